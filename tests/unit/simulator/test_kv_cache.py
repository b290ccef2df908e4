"""The KV cache counts groups of blocks as a pool of single blocks would."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.simulator.kv_cache import Holding, KvCache
from tests.examples import examples


@dataclass(eq=False)
class User:
    """A request: all that the cache reads of one."""

    adapter: str | None
    blocks: Sequence[int]
    block_tokens: int = 16


@dataclass
class Pool:
    """Blocks one by one: a queue of free ones, and an index of their contents, as in vLLM."""

    size: int
    free: list[int] = field(default_factory=list)
    content: dict[int, tuple[str | None, int]] = field(default_factory=dict)
    users: dict[int, int] = field(default_factory=dict)
    found: int = 0
    """Blocks that the last request found."""

    def __post_init__(self) -> None:
        self.free = list(range(self.size))

    def begin(self, adapter: str | None, tokens: int, names: Sequence[int]) -> list[int] | None:
        """Return the blocks of a request, the found ones first. ``None``: it does not fit."""
        index = {content: block for block, content in self.content.items()}
        found: list[int] = []
        for name in names[: (tokens - 1) // 16]:
            block = index.get((adapter, name))
            if block is None:
                break
            found.append(block)
        self.found = len(found)
        wanted = -(-tokens // 16) - len(found)
        if wanted > len(self.free) - sum(block in self.free for block in found):
            return None
        for block in found:
            self.users[block] = self.users.get(block, 0) + 1
            if block in self.free:
                self.free.remove(block)
        blocks = found + [self.take() for _ in range(wanted)]
        for position in range(len(found), min(len(names), tokens // 16)):
            # A prompt that ends with a block computes that block again, and nobody finds the copy.
            if (adapter, names[position]) not in index:
                self.content[blocks[position]] = adapter, names[position]
        return blocks

    def take(self) -> int:
        block = self.free.pop(0)
        self.content.pop(block, None)
        self.users[block] = 1
        return block

    def end(self, blocks: list[int]) -> None:
        named = [block for block in blocks if block in self.content]
        # As ``KvCache``: those that nobody can find first, then the others from the end on.
        for block in [block for block in blocks if block not in self.content] + named[::-1]:
            self.users[block] -= 1
            if not self.users[block]:
                self.free.append(block)


actions = st.lists(
    st.one_of(
        st.tuples(
            st.just("begin"),
            st.sampled_from([None, "a", "b"]),
            st.integers(0, 3),
            st.integers(0, 12),
            st.integers(0, 12),
            st.integers(1, 100),
        ),
        st.tuples(st.just("end"), st.integers(0, 5)),
    ),
    max_size=60,
)


@examples(200)
@given(actions)
def test_what_is_found_held_and_evicted_is_what_a_pool_of_blocks_finds(
    actions: list[tuple[object, ...]],
) -> None:
    cache, pool = KvCache(40 * 16 + 3, 16, caches=True), Pool(40)
    open_requests: list[tuple[Holding, int, list[int]]] = []
    for action in actions:
        match action:
            case "begin", adapter, int(session), int(common), int(own), int(tokens):
                assert adapter is None or isinstance(adapter, str)
                total = 16 * (common + own) + tokens
                mine = [1000 * (session + 1) + position for position in range(own)]
                user = User(adapter, [*range(common), *mine])
                # Names of blocks are those of all that comes before them too.
                user.blocks = [hash((*user.blocks[: n + 1],)) for n in range(common + own)]
                found = cache.find(user, total, total)
                blocks = pool.begin(adapter, total, user.blocks)
                assert found.fits is (blocks is not None)
                assert found.blocks == pool.found
                if blocks is None:
                    continue
                holding = cache.hold(user, found)
                cache.grow(holding, total)
                cache.name(holding, total)
                open_requests.append((holding, total, blocks))
            case "end", int(number) if open_requests:
                holding, total, blocks = open_requests.pop(number % len(open_requests))
                cache.release(holding, total)
                pool.end(blocks)
        assert cache.used == sum(1 for users in pool.users.values() if users)
        assert cache.used + cache.idle <= cache.capacity


def request(cache: KvCache, tokens: int, names: Sequence[int], span: int = 16) -> Holding:
    user = User(None, names, span)
    holding = cache.hold(user, cache.find(user, tokens, tokens))
    cache.grow(holding, tokens)
    cache.name(holding, tokens)
    return holding


@pytest.mark.parametrize(("span", "found"), [(16, 9), (48, 9), (160, 0), (10, 9), (7, 9), (512, 0)])
def test_names_may_stand_for_more_or_less_than_a_block(span: int, found: int) -> None:
    cache = KvCache(100 * 16, 16, caches=True)
    names = range(160 // span)
    cache.release(request(cache, 160, names, span), 160)

    assert cache.find(User(None, names, span), 160, 160).blocks == found


def test_what_a_preempted_request_left_is_its_own_only() -> None:
    cache = KvCache(20 * 16, 16, caches=True)
    held = request(cache, 160, range(4))
    cache.release(held, 160)

    assert cache.find(held.user, 161, 161, held).blocks == 10
    assert cache.find(User(None, range(10)), 161, 161).blocks == 4

    request(cache, 16 * 16, ())  # Takes the 10 free blocks, and the last 6 of those 10.
    assert cache.find(held.user, 161, 161, held).blocks == 4


@pytest.mark.parametrize(("computed", "found"), [(20, 1), (32, 2), (40, 2), (100, 6)])
@pytest.mark.parametrize("names", [(), (7,), range(6)])
def test_a_block_that_is_full_in_part_is_not_found_after_a_preemption(
    computed: int, found: int, names: Sequence[int]
) -> None:
    cache = KvCache(100 * 16, 16, caches=True)
    held = request(cache, computed, names)
    cache.release(held, computed)

    again = cache.find(held.user, 101, 101, held)
    assert again.blocks == found
    assert cache.hold(held.user, again, held).blocks == found
    assert (cache.used, cache.idle) == (found, 0)


def test_a_cache_without_prefix_caching_counts_tokens_and_keeps_nothing() -> None:
    cache = KvCache(100, 1, caches=False)
    held = request(cache, 60, range(3))
    assert (cache.used, cache.usage, cache.available) == (60, 0.6, 40)
    assert not cache.find(User(None, ()), 41, 41).fits

    cache.release(held, 60)
    assert (cache.used, cache.idle) == (0, 0)
    assert cache.find(User(None, range(3)), 60, 60).blocks == 0
