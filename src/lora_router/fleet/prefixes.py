"""Which pod has processed which beginnings of prompts, by what this router sent where.

An index of what was sent is as good as the truth, because a pod's cache is evicted in the order of
last use, and the router knows the order. Each pod has room for some tokens. What was used least
recently is forgotten first. Prompts of different models have nothing in common: vLLM's cache is
kept by adapter.
"""

from collections import OrderedDict
from collections.abc import Mapping

from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prompt import Prompt

DEFAULT_TOKENS = 200_000.0
"""Room of a pod whose cache size is unknown."""

_Key = tuple[str, int]


class _PodPrefixes:
    """The beginnings that one pod has, least recently used first, with their tokens."""

    __slots__ = ("chunks", "room", "tokens")

    def __init__(self) -> None:
        self.chunks: OrderedDict[_Key, float] = OrderedDict()
        self.tokens = 0.0
        self.room = DEFAULT_TOKENS


class PrefixIndex:
    """The beginnings of prompts that pods have."""

    def __init__(self) -> None:
        self._pods: dict[PodState, _PodPrefixes] = {}
        self._having: dict[_Key, dict[PodState, None]] = {}

    def cached(self, model: str, prompt: Prompt) -> Mapping[PodState, float]:
        """Return how many tokens of a prompt's beginning each pod has. Pods with none are omitted.

        Args:
            model: The name of the model: what one model computed is of no use to another.
            prompt: The prompt.
        """
        found: dict[PodState, float] = {}
        having = self._having
        for chunk, end in zip(prompt.chunks, prompt.ends, strict=True):
            pods = having.get((model, chunk))
            if not pods:
                break
            for pod in pods:
                found[pod] = end
        return found

    def sent(self, state: PodState, model: str, prompt: Prompt) -> None:
        """Record that a pod gets a prompt, and so will have its beginnings."""
        if not prompt.chunks:
            return
        pod = self._pods.get(state)
        if pod is None:
            pod = self._pods[state] = _PodPrefixes()
        start = 0.0
        # The longest beginning is the least useful one, so it is evicted first.
        for chunk in reversed(prompt.chunks):
            key = model, chunk
            if key in pod.chunks:
                pod.chunks.move_to_end(key)
            else:
                pod.chunks[key] = 0.0
                self._having.setdefault(key, {})[state] = None
        for chunk, end in zip(prompt.chunks, prompt.ends, strict=True):
            key = model, chunk
            pod.tokens += end - start - pod.chunks[key]
            pod.chunks[key] = end - start
            start = end
        self._evict(state, pod)

    def resize(self, state: PodState, tokens: float) -> None:
        """Set how many tokens a pod's cache has room for."""
        pod = self._pods.get(state)
        if pod is None:
            pod = self._pods[state] = _PodPrefixes()
        pod.room = tokens
        self._evict(state, pod)

    def forget(self, state: PodState) -> None:
        """Forget what a pod has, because it left or was started again."""
        pod = self._pods.pop(state, None)
        if pod is not None:
            for key in pod.chunks:
                self._drop(state, key)

    def _evict(self, state: PodState, pod: _PodPrefixes) -> None:
        while pod.tokens > pod.room and pod.chunks:
            key, tokens = pod.chunks.popitem(last=False)
            pod.tokens -= tokens
            self._drop(state, key)

    def _drop(self, state: PodState, key: _Key) -> None:
        pods = self._having[key]
        del pods[state]
        if not pods:
            del self._having[key]
