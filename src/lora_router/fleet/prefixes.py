"""Which pod has processed which beginnings of prompts, by what routers sent where.

An index of what was sent is as good as the truth, because a pod's cache is evicted in the order of
last use, and the router knows the order: a request uses its prompt until it ends. What a pod has no
room for is forgotten, what was used least recently first, and the end of a prompt before its
beginning. So a pod that has a chunk has all chunks before it. Prompts of different models have
nothing in common: vLLM's cache is kept by adapter.

*Room.* A pod has room for the tokens of its KV cache, as its page states it, without those that its
running requests have generated. The page does not distinguish these from prompts, so prompts count
as long as the pod's prompts are at the mean. A pod that was started again has nothing.

*Bounds.* In all pods together there are at most ``MAX_CHUNKS`` chunks. Beyond that, the chunk that
was used least recently on any pod is forgotten. No call does work that grows with the number of
pods or of chunks. What a pod had that left counts no longer at once, and is removed in small steps
by later calls.

*Peers* tell of each prompt the name of the whole, and of few beginnings (``peering``). They count
like what this router sent.

*Many pods.* The pods that have a chunk are the bits of a number. All pods that have a chunk have
those before it, so ``cached`` searches by bisection for the chunks at which that number changes,
and looks at few of them.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_prefixes import PodPrefixes, PrefixUse
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prefix_matches import NO_PODS, Level, bits, matches
from lora_router.fleet.prompt import Prompt

DEFAULT_TOKENS = 200_000.0
"""Room of a pod whose cache size is unknown. A GPU of 80 GB has 300,000 to 500,000 tokens of a
model with 8 billion parameters, and fewer of a larger one."""
MAX_CHUNKS = 250_000
"""Chunks of all pods together. A chunk of two pods counts twice. They take 57 MB, and are as
many as 100 pods have whose caches have 600,000 tokens each, in chunks of 250."""
MAX_LEVELS = 16
"""How many lengths of a common beginning ``cached`` tells apart, the longest ones."""
_STEP = 64
"""Chunks that one call removes, besides as many as it adds."""
_MEAN_OF = 32
"""The mean length of a pod's prompts follows about so many of them."""
_MASK = (1 << 63) - 1


class PrefixIndex:
    """The beginnings of prompts that pods have."""

    def __init__(self, max_chunks: int = MAX_CHUNKS, room: float = DEFAULT_TOKENS) -> None:
        """Create it without pods.

        Args:
            max_chunks: Chunks of all pods together.
            room: Tokens of a pod's cache, until its page shows them.
        """
        self._unknown_room = room
        self.count = 0
        """Chunks of all pods together."""
        self.on_sent: Callable[[PodState, str, Prompt, float], None] | None = None
        """Called with each prompt that is sent, and how many tokens of it the pod had before."""
        self._max_chunks = max_chunks
        self._marks = 0
        """Chunks that peers told. Of their prompts, only some beginnings are known, so these are
        kept apart: under the complement of their keys."""
        self._pods: dict[PodState, PodPrefixes] = {}
        self._numbered: list[PodPrefixes] = []
        """By their numbers, with those that have left."""
        self._free: list[int] = []
        """Numbers for further pods."""
        self._live = 0
        """The bits of the pods that have not left."""
        self._left: deque[PodPrefixes] = deque()
        """What pods had that left."""
        self._having: OrderedDict[int, int] = OrderedDict()
        """The bits of the pods that have a chunk. The chunk that was used least recently is first.
        A chunk of a model is its name, mixed with a number of the model."""
        self._last: tuple[Prompt, str, Mapping[PodState, float]] | None = None
        """The last answer, until something changes: a decision may ask several times."""

    # Questions

    def cached(self, model: str, prompt: Prompt) -> Mapping[PodState, float]:
        """Return how many tokens of a prompt's beginning each pod has. Pods with none are omitted.

        The pods with the most are first. Of more than ``MAX_LEVELS`` different lengths, all but the
        longest count as the length of the first chunk.

        Args:
            model: The name of the model: what one model computed is of no use to another.
            prompt: The prompt.
        """
        chunks = prompt.chunks
        if not chunks or not self._having:
            return NO_PODS
        last = self._last
        if last is not None and last[0] is prompt and last[1] == model:
            return last[2]
        levels = self._levels_of_sent(prompt, of_model := _number_of(model))
        if self._marks:
            levels = self._with_marks(levels, prompt, of_model)
        found = matches(levels, self._numbered, self._pods) if levels else NO_PODS
        self._last = prompt, model, found
        return found

    def _levels_of_sent(self, prompt: Prompt, of_model: int) -> list[Level]:
        """Return what pods have by what this router sent, the most first."""
        chunks, ends = prompt.chunks, prompt.ends
        having, live = self._having.get, self._live
        if not (first := having(chunks[0] ^ of_model, 0) & live):
            return []
        # The longest beginning that any pod has.
        low, high = 0, len(chunks)
        while high - low > 1:
            middle = (low + high) >> 1
            if having(chunks[middle] ^ of_model, 0) & live:
                low = middle
            else:
                high = middle
        levels: list[Level] = []
        while True:
            pods = having(chunks[low] ^ of_model, 0) & live
            levels.append((pods, ends[low]))
            if pods == first:
                return levels
            if len(levels) == MAX_LEVELS:
                levels.append((first, ends[0]))
                return levels
            # The longest beginning that further pods have.
            high, low = low, 0
            while high - low > 1:
                middle = (low + high) >> 1
                if having(chunks[middle] ^ of_model, 0) & live != pods:
                    low = middle
                else:
                    high = middle

    def _with_marks(self, levels: list[Level], prompt: Prompt, of_model: int) -> list[Level]:
        """Add what pods have by what peers told."""
        having, live = self._having.get, self._live
        most = max(0, len(levels) - 1) + MAX_LEVELS
        seen = 0
        for chunk, end in zip(reversed(prompt.chunks), reversed(prompt.ends), strict=True):
            pods = having(~(chunk ^ of_model), 0) & live & ~seen
            if pods:
                seen |= pods
                levels.append((pods, end))
                if len(levels) > most:
                    break
        levels.sort(key=_end, reverse=True)
        return levels

    # Updates

    def sent(self, state: PodState, model: str, prompt: Prompt) -> PrefixUse | None:
        """Record that a pod gets a prompt, and so will have its beginnings.

        Returns:
            What the request uses there, to be told when it ends. ``None``: nothing.
        """
        chunks, ends = prompt.chunks, prompt.ends
        if not chunks:
            return None
        self._last = None
        pod = self._pods.get(state) or self._add(state)
        pod.mean += (prompt.tokens - pod.mean) / _MEAN_OF if pod.mean else prompt.tokens
        having, kept, bit, of_model = self._having, pod.chunks, pod.bit, _number_of(model)
        had = added = 0.0
        new = 0
        # From the end to the beginning, so that the end is forgotten first.
        keys = [chunk ^ of_model for chunk in reversed(chunks)]
        for at, key in zip(range(len(chunks) - 1, -1, -1), keys, strict=True):
            if self._marks and ~key in kept:
                had = had or ends[at]
                self._drop(pod, ~key, kept.pop(~key))
            if key in kept:
                kept.move_to_end(key)
                having.move_to_end(key)
                had = had or ends[at]
                continue
            kept[key] = tokens = ends[at] - ends[at - 1] if at else ends[0]
            added += tokens
            new += 1
            if key in having:
                having[key] |= bit
                having.move_to_end(key)
            else:
                having[key] = bit
        pod.tokens += added
        self.count += new
        self._remove(pod, new + _STEP)
        if self.on_sent is not None:
            self.on_sent(state, model, prompt, had)
        return PrefixUse(pod, keys, had, prompt.tokens)

    def hear(self, state: PodState, model: str, names: Sequence[int], tokens: float) -> None:
        """Take in what a peer sent to a pod.

        Args:
            state: The pod.
            model: The model.
            names: Names of some beginnings of the prompt, the shortest first. The last one is that
                of the whole prompt.
            tokens: How much of it is new to the pod.
        """
        if not names:
            return
        self._last = None
        pod = self._pods.get(state) or self._add(state)
        having, kept, bit, of_model = self._having, pod.chunks, pod.bit, _number_of(model)
        new = 0
        if ~(names[-1] ^ of_model) in kept:
            tokens = 0.0  # It was told before, or the peer does not know what this router sent.
        for name in reversed(names):
            mark = ~(name ^ of_model)
            if mark in kept:
                kept.move_to_end(mark)
            else:
                kept[mark] = 0.0
                new += 1
            having[mark] = having.get(mark, 0) | bit
            having.move_to_end(mark)
        kept[~(names[-1] ^ of_model)] += tokens
        pod.tokens += tokens
        self.count += new
        self._marks += new
        self._remove(pod, new + _STEP)

    def scraped(self, state: PodState, metrics: PodMetrics) -> None:
        """Take in what a pod's page shows: the size of its cache, its use, and restarts."""
        pod = self._pods.get(state)
        if pod is None:
            return
        self._last = None
        if pod.scraped(metrics):
            self.forget(state)
            self._add(state)
        else:
            self._remove(pod, _STEP)

    def forget(self, state: PodState) -> None:
        """Forget what a pod has, because it left or was started again."""
        pod = self._pods.pop(state, None)
        if pod is not None:
            self._last = None
            self._live &= ~pod.bit
            self._left.append(pod)

    def _add(self, state: PodState) -> PodPrefixes:
        if self._free:
            number = self._free.pop()
            pod = self._numbered[number] = PodPrefixes(state, number, self._unknown_room)
        else:
            pod = PodPrefixes(state, len(self._numbered), self._unknown_room)
            self._numbered.append(pod)
        self._pods[state] = pod
        self._live |= pod.bit
        if state.metrics is not None:
            pod.scraped(state.metrics)
        return pod

    # Forgetting

    def _remove(self, pod: PodPrefixes, most: int) -> None:
        """Remove up to so many chunks that have no room, or whose pods left."""
        kept = pod.chunks
        while pod.tokens > pod.room and most and kept:
            self._drop_oldest(pod)
            most -= 1
        while self._left and most:
            left = self._left[0]
            if left.chunks:
                self._drop_oldest(left)
                most -= 1
            else:
                self._left.popleft()
                self._free.append(left.number)
        while self.count > self._max_chunks and most > 0:
            most = self._drop_everywhere(most)

    def _drop_oldest(self, pod: PodPrefixes) -> None:
        self._drop(pod, *pod.chunks.popitem(last=False))

    def _drop(self, pod: PodPrefixes, key: int, tokens: float) -> None:
        """Take in that a pod does not have a chunk any more."""
        having = self._having
        pods = having[key] ^ pod.bit
        if pods:
            having[key] = pods
        else:
            del having[key]
        pod.tokens = pod.tokens - tokens if pod.chunks else 0.0
        self.count -= 1
        if key < 0:
            self._marks -= 1

    def _drop_everywhere(self, most: int) -> int:
        """Remove the chunk that was used least recently. Return how many more may be removed."""
        key = next(iter(self._having))
        for number in bits(self._having[key]):
            pod = self._numbered[number]
            self._drop(pod, key, pod.chunks.pop(key))
            most -= 1
            if not most:
                break
        return most


def _end(level: Level) -> float:
    return level[1]


def _number_of(model: str) -> int:
    """Return what tells the chunks of a model from those of another, in this process."""
    return hash(model) & _MASK
