"""Which pod has processed which beginnings of prompts, by what routers sent where.

An index of what was sent is as good as the truth, because a pod's cache is evicted in the order of
last use, and the router knows the order. What a pod has no room for is forgotten, what was used
least recently first, and the end of a prompt before its beginning. So a pod that has a chunk has
all chunks before it. Prompts of different models have nothing in common: vLLM's cache is kept by
adapter.

*Room.* A pod has room for the tokens of its KV cache, as its page states it, without those that its
running requests have generated. The page does not distinguish these from prompts, so prompts count
as long as the pod's prompts are at the mean. A pod that was started again has nothing.

*Bounds.* In all pods together there are at most ``MAX_CHUNKS`` chunks. Beyond that, the chunk that
was used least recently on any pod is forgotten. No call does work that grows with the number of
pods or of chunks. What a pod had that left counts no longer at once, and is removed in small steps
by later calls.

*Many pods.* The pods that have a chunk are the bits of a number. All pods that have a chunk have
those before it, so ``cached`` searches by bisection for the chunks at which that number changes,
and looks at few of them.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prompt import Prompt

DEFAULT_TOKENS = 200_000.0
"""Room of a pod whose cache size is unknown. A GPU of 80 GB has 300,000 to 500,000 tokens of a
model with 8 billion parameters, and fewer of a larger one."""
MAX_CHUNKS = 250_000
"""Chunks of all pods together. A chunk of two pods counts twice. They take up to 63 MB, and are as
many as 100 pods have whose caches have 600,000 tokens each, in chunks of 250."""
MAX_LEVELS = 16
"""How many lengths of a common beginning ``cached`` tells apart, the longest ones."""
FEW_PODS = 64
"""The answer about so many pods is a dictionary, which is the fastest to ask."""
_STEP = 64
"""Chunks that one call removes, besides as many as it adds."""
_MEAN_OF = 32
"""The mean length of a pod's prompts follows about so many of them."""
_MASK = (1 << 63) - 1
_NONE: Mapping[PodState, float] = {}


class _PodPrefixes:
    """The beginnings that one pod has, least recently used first, with their tokens."""

    __slots__ = (
        "bit",
        "capacity",
        "chunks",
        "generated_tokens",
        "mean",
        "number",
        "room",
        "started_at",
        "state",
        "tokens",
    )

    def __init__(self, state: PodState, number: int) -> None:
        self.state = state
        self.number = number
        self.bit = 1 << number
        self.chunks: OrderedDict[int, float] = OrderedDict()
        self.tokens = 0.0
        self.capacity = self.room = DEFAULT_TOKENS
        self.mean = 0.0
        """Mean length of its prompts."""
        self.started_at: float | None = None
        self.generated_tokens: float | None = None

    def scraped(self, metrics: PodMetrics) -> bool:
        """Take in a snapshot. Return whether the server was started again since the last one."""
        capacity = metrics.cache_tokens
        if capacity is not None:
            self.capacity = capacity
        used = (metrics.kv_cache_usage or 0.0) * self.capacity
        generated = used - (metrics.running or 0.0) * self.mean
        self.room = self.capacity - max(0.0, generated)
        started, before = metrics.started_at, self.started_at
        tokens, tokens_before = metrics.generated_tokens, self.generated_tokens
        self.started_at, self.generated_tokens = started, tokens
        if started is not None and before is not None:
            return started != before
        return tokens is not None and tokens_before is not None and tokens < tokens_before


class PrefixIndex:
    """The beginnings of prompts that pods have."""

    def __init__(self, max_chunks: int = MAX_CHUNKS) -> None:
        """Create it without pods.

        Args:
            max_chunks: Chunks of all pods together.
        """
        self.count = 0
        """Chunks of all pods together."""
        self._max_chunks = max_chunks
        self._pods: dict[PodState, _PodPrefixes] = {}
        self._numbered: list[_PodPrefixes] = []
        """By their numbers, with those that have left."""
        self._free: list[int] = []
        """Numbers for further pods."""
        self._live = 0
        """The bits of the pods that have not left."""
        self._left: deque[_PodPrefixes] = deque()
        """What pods had that left."""
        self._having: OrderedDict[int, int] = OrderedDict()
        """The bits of the pods that have a chunk. The chunk that was used least recently is first.
        A chunk of a model is its name, mixed with a number of the model."""

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
            return _NONE
        having, live, of_model = self._having.get, self._live, _number_of(model)
        if not (first := having(chunks[0] ^ of_model, 0) & live):
            return _NONE
        # The longest beginning that any pod has.
        low, high = 0, len(chunks)
        while high - low > 1:
            middle = (low + high) >> 1
            if having(chunks[middle] ^ of_model, 0) & live:
                low = middle
            else:
                high = middle
        levels: list[tuple[int, float]] = []
        ends = prompt.ends
        while True:
            pods = having(chunks[low] ^ of_model, 0) & live
            levels.append((pods, ends[low]))
            if pods == first:
                break
            if len(levels) == MAX_LEVELS:
                levels.append((first, ends[0]))
                break
            # The longest beginning that further pods have.
            high, low = low, 0
            while high - low > 1:
                middle = (low + high) >> 1
                if having(chunks[middle] ^ of_model, 0) & live != pods:
                    low = middle
                else:
                    high = middle
        if first.bit_count() > FEW_PODS:
            return _Found(levels, self._numbered, self._pods)
        return dict(_each(levels, self._numbered))

    # Updates

    def sent(self, state: PodState, model: str, prompt: Prompt) -> float:
        """Record that a pod gets a prompt, and so will have its beginnings.

        Returns:
            How many tokens of it the pod had before.
        """
        chunks, ends = prompt.chunks, prompt.ends
        if not chunks:
            return 0.0
        pod = self._pods.get(state) or self._add(state)
        pod.mean += (prompt.tokens - pod.mean) / _MEAN_OF if pod.mean else prompt.tokens
        having, kept, bit, of_model = self._having, pod.chunks, pod.bit, _number_of(model)
        had = added = 0.0
        new = 0
        # From the end to the beginning, so that the end is forgotten first.
        for at in range(len(chunks) - 1, -1, -1):
            key = chunks[at] ^ of_model
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
        return had

    def scraped(self, state: PodState, metrics: PodMetrics) -> None:
        """Take in what a pod's page shows: the size of its cache, its use, and restarts."""
        pod = self._pods.get(state)
        if pod is None:
            return
        if pod.scraped(metrics):
            self.forget(state)
            self._add(state)
        else:
            self._remove(pod, _STEP)

    def resize(self, state: PodState, tokens: float) -> None:
        """Set how many tokens a pod's cache has room for, until a page shows it."""
        pod = self._pods.get(state) or self._add(state)
        pod.capacity = pod.room = tokens
        self._remove(pod, _STEP)

    def forget(self, state: PodState) -> None:
        """Forget what a pod has, because it left or was started again."""
        pod = self._pods.pop(state, None)
        if pod is not None:
            self._live &= ~pod.bit
            self._left.append(pod)

    def _add(self, state: PodState) -> _PodPrefixes:
        if self._free:
            number = self._free.pop()
            pod = self._numbered[number] = _PodPrefixes(state, number)
        else:
            pod = _PodPrefixes(state, len(self._numbered))
            self._numbered.append(pod)
        self._pods[state] = pod
        self._live |= pod.bit
        if state.metrics is not None:
            pod.scraped(state.metrics)
        return pod

    # Forgetting

    def _remove(self, pod: _PodPrefixes, most: int) -> None:
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

    def _drop_oldest(self, pod: _PodPrefixes) -> None:
        key, tokens = pod.chunks.popitem(last=False)
        pod.tokens = pod.tokens - tokens if pod.chunks else 0.0
        self.count -= 1
        having = self._having
        pods = having[key] ^ pod.bit
        if pods:
            having[key] = pods
        else:
            del having[key]

    def _drop_everywhere(self, most: int) -> int:
        """Remove the chunk that was used least recently. Return how many more may be removed."""
        having = self._having
        key = next(iter(having))
        pods = having[key]
        for number in _bits(pods):
            pod = self._numbered[number]
            pod.tokens -= pod.chunks.pop(key)
            pods ^= pod.bit
            self.count -= 1
            most -= 1
            if not most:
                break
        if pods:
            having[key] = pods
        else:
            del having[key]
        return most


class _Found(Mapping[PodState, float]):
    """The answer about many pods: the tokens that each of them has, worked out when it is asked."""

    __slots__ = ("_levels", "_numbered", "_pods")

    def __init__(
        self,
        levels: Sequence[tuple[int, float]],
        numbered: Sequence[_PodPrefixes],
        pods: Mapping[PodState, _PodPrefixes],
    ) -> None:
        self._levels = levels
        self._numbered = numbered
        self._pods = pods

    def __getitem__(self, state: PodState) -> float:
        pod = self._pods.get(state)
        if pod is not None:
            bit = pod.bit
            for pods, end in self._levels:
                if pods & bit:
                    return end
        raise KeyError(state)

    def __iter__(self) -> Iterator[PodState]:
        return (state for state, _ in _each(self._levels, self._numbered))

    def __len__(self) -> int:
        return self._levels[-1][0].bit_count()


def _each(
    levels: Sequence[tuple[int, float]], numbered: Sequence[_PodPrefixes]
) -> Iterator[tuple[PodState, float]]:
    """Yield each pod of some levels, with the tokens that it has."""
    seen = 0
    for pods, end in levels:
        for number in _bits(pods & ~seen):
            yield numbered[number].state, end
        seen |= pods


def _bits(pods: int) -> Iterator[int]:
    while pods:
        lowest = pods & -pods
        yield lowest.bit_length() - 1
        pods ^= lowest


def _number_of(model: str) -> int:
    """Return what tells the chunks of a model from those of another, in this process."""
    return hash(model) & _MASK
