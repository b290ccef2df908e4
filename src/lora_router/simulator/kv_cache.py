"""The KV cache of a pod: blocks of running requests, and blocks of past ones that may be found.

The rules are those of vLLM's V1 engine (``vllm/v1/core/kv_cache_manager.py``, ``block_pool.py``):

- The cache has a fixed number of blocks, each for the keys and values of ``block_tokens`` tokens. A
  request holds a block for each ``block_tokens`` of its tokens, the last of them in part.
- With prefix caching, a full block can be found by its content as soon as the step that computes it
  is scheduled. Its key is the adapter and all tokens up to its end, so the base model and each
  adapter have their own. A request that finds blocks holds them together with the requests that
  hold them already. They occupy the cache once.
- At least the last token of a prompt is computed, because its result is needed.
- A block that no request holds any more stays until its room is needed. The least recently released
  block is evicted first, and of one request's blocks the last one. Blocks that never get a second
  reader (of answers, of prompts without names) age in the same order.

Blocks are found by the names in ``blocks`` of a request. A name stands for ``block_tokens`` of the
request (512 in Mooncake's trace), which may be many blocks of the cache. Such a group of blocks is
found and evicted as a whole, which is the one difference from vLLM. If a request's ``blocks`` go on
behind its prompt, the further names are those of its answer: they can be found when it has ended.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class KvUser(Protocol):
    """What the cache reads of a request."""

    adapter: str | None
    blocks: Sequence[int]
    block_tokens: int


class Group:
    """Blocks that are kept and evicted together."""

    __slots__ = ("adapter", "blocks", "name", "users")

    def __init__(self, adapter: str | None, name: int | None, blocks: int) -> None:
        self.adapter = adapter
        self.name = name
        """``None``: nobody can find it. Such a group may shrink, from its end."""
        self.blocks = blocks
        self.users = 0
        """Requests that hold it."""


class Holding:
    """The blocks that one request holds, or held when it was preempted."""

    __slots__ = ("groups", "named", "named_blocks", "own", "rest", "user", "whole")

    def __init__(self, user: KvUser) -> None:
        self.user = user
        self.groups: list[Group] = []
        """Those with a name, in the order of the prompt."""
        self.named_blocks = 0
        """Blocks of these groups."""
        self.named = 0
        """Names that were looked at: found, or given to blocks of this request."""
        self.own = 0
        """Blocks without a name."""
        self.rest: Group | None = None
        """What a preempted request left behind its named groups."""
        self.whole = 0
        """The full blocks of ``rest``. Only they can be found."""

    @property
    def blocks(self) -> int:
        """All blocks that it holds."""
        return self.named_blocks + self.own


class Found(NamedTuple):
    """What a request would find in the cache, and whether the rest fits."""

    groups: Sequence[Group]
    blocks: int
    """Blocks found, those of ``rest`` included."""
    rest: int
    """Blocks found that the same request left when it was preempted."""
    fits: bool


class KvCache:
    """Counts blocks. It knows nothing of time."""

    def __init__(self, tokens: int, block_tokens: int, *, caches: bool) -> None:
        """Create an empty cache.

        Args:
            tokens: Size of the cache.
            block_tokens: Tokens in a block.
            caches: Whether blocks can be found after they were computed (prefix caching).
        """
        self.block_tokens = block_tokens
        self.capacity = tokens // block_tokens
        """Blocks."""
        self.caches = caches
        self.used = 0
        """Blocks that a request holds. Above ``capacity`` only for a request that never fits."""
        self.idle = 0
        """Blocks that no request holds and that can be found, or wait for their eviction."""
        self._released: OrderedDict[Group, None] = OrderedDict()
        """The idle groups, the first to evict first."""
        self._groups: dict[str | None, dict[int, Group]] = {}

    @property
    def usage(self) -> float:
        """Share of the blocks that requests hold, in [0, 1] (``vllm:kv_cache_usage_perc``)."""
        return min(1.0, self.used / self.capacity)

    @property
    def available(self) -> int:
        """Blocks that requests could still take. Idle ones are evicted for them."""
        return self.capacity - self.used

    def blocks_of(self, tokens: int) -> int:
        """Return how many blocks so many tokens take."""
        return -(-tokens // self.block_tokens)

    def find(self, user: KvUser, tokens: int, room: int, before: Holding | None = None) -> Found:
        """Look for the blocks of a request. Nothing changes.

        Args:
            user: The request.
            tokens: Tokens to compute: of its prompt, and of its answer if it was preempted.
            room: Tokens that must fit.
            before: What it held when it was preempted.
        """
        groups: list[Group] = []
        found = back = rest = 0
        if self.caches:
            span, table = user.block_tokens, self._groups.get(user.adapter)
            names = user.blocks
            if table:
                for position in range(min(len(names), (tokens - 1) // span)):
                    group = table.get(names[position])
                    if group is None:
                        break
                    groups.append(group)
                    if not group.users:
                        back += group.blocks
                found = len(groups) * span // self.block_tokens
            left = before.rest if before is not None else None
            if left is not None and before is not None and len(groups) == before.named:
                rest = max(
                    0, min(left.blocks, before.whole, (tokens - 1) // self.block_tokens - found)
                )
        fits = self.used + back + self.blocks_of(room) - found <= self.capacity
        return Found(groups, found + rest, rest, fits)

    def hold(self, user: KvUser, found: Found, before: Holding | None = None) -> Holding:
        """Let a request hold what it found.

        Args:
            user: The request.
            found: What ``find`` returned for it since the last change.
            before: As for ``find``.
        """
        holding = Holding(user)
        for group in found.groups:
            self._share(holding, group)
        holding.named = len(found.groups)
        left = before.rest if before is not None else None
        if left is not None and left.blocks:
            # What of it is not held again could not be found either.
            del self._released[left]
            self.idle -= left.blocks
            left.blocks = 0
            holding.own = found.rest
            self.used += found.rest
        return holding

    def grow(self, holding: Holding, tokens: int) -> None:
        """Let a request hold blocks for its first ``tokens`` tokens, if it holds fewer."""
        more = self.blocks_of(tokens) - holding.blocks
        if more > 0:
            holding.own += more
            self.add(more)

    def add(self, blocks: int) -> None:
        """Count blocks that requests have taken (``settle`` says which). Evicts for them."""
        self.used += blocks
        self._evict(self.used + self.idle - self.capacity)

    def settle(self, holding: Holding, tokens: int) -> None:
        """Note that a request holds blocks for ``tokens`` tokens, which ``add`` has counted."""
        holding.own = self.blocks_of(tokens) - holding.named_blocks

    def name(self, holding: Holding, tokens: int) -> None:
        """Make the groups that are full with the first ``tokens`` tokens of a request findable."""
        if not self.caches:
            return
        user = holding.user
        names, span, size = user.blocks, user.block_tokens, self.block_tokens
        position = holding.named
        until = min(len(names), tokens // span)
        if position >= until:
            return
        table = self._groups.setdefault(user.adapter, {})
        while position < until:
            name = names[position]
            blocks = (position + 1) * span // size - position * span // size
            position += 1
            # Another request computed the same at the same time. This copy is not found.
            if name not in table:
                group = table[name] = Group(user.adapter, name, blocks)
                group.users = 1
                holding.groups.append(group)
                holding.named_blocks += blocks
                holding.own -= blocks
        holding.named = until

    def release(self, holding: Holding, tokens: int) -> None:
        """Take a request's blocks from it.

        Args:
            holding: The blocks.
            tokens: Tokens whose keys and values are in them. The last block may be full in part.
        """
        if not self.caches:
            self.used -= holding.own
            return
        own = holding.own
        if own:
            self.used -= own
            rest = Group(None, None, own)
            self._keep(rest)
            # What lies behind a copy that is not found cannot be found either.
            holding.rest = rest if len(holding.groups) == holding.named else None
            holding.whole = max(0, tokens // self.block_tokens - holding.named_blocks)
        for group in reversed(holding.groups):
            group.users -= 1
            if not group.users:
                self.used -= group.blocks
                self._keep(group)
        # A request that never fits held more than there is.
        self._evict(self.used + self.idle - self.capacity)

    def _share(self, holding: Holding, group: Group) -> None:
        if not group.users:
            del self._released[group]
            self.idle -= group.blocks
            self.used += group.blocks
        group.users += 1
        holding.groups.append(group)
        holding.named_blocks += group.blocks

    def _keep(self, group: Group) -> None:
        self._released[group] = None
        self.idle += group.blocks

    def _evict(self, blocks: int) -> None:
        released = self._released
        while blocks > 0 and released:
            group = next(iter(released))
            if group.name is None and group.blocks > blocks:
                group.blocks -= blocks
                self.idle -= blocks
                return
            del released[group]
            self.idle -= group.blocks
            blocks -= group.blocks
            if group.name is None:
                group.blocks = 0
            else:
                table = self._groups[group.adapter]
                del table[group.name]
                if not table:
                    del self._groups[group.adapter]
