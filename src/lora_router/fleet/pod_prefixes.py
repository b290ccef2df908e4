"""The beginnings of prompts that one pod has, how much room it has for them, and who uses them.

*Running requests.* A pod evicts nothing that a running request holds, and counts it as used when
the request ends (vLLM: ``BlockPool.free_blocks``). So the end of a request is a use, too. Otherwise
the router forgets prompts with long answers too early, and others too late.

*What answers state.* Where an answer states how much of its prompt was cached
(``usage.prompt_tokens_details.cached_tokens``), the room of its pod is corrected. A pod that lacks
what it was believed to have has less room than was assumed: its page does not state the size of its
cache, or requests of others take a part. A pod that has what was forgotten has more. Only a pod
whose page does not state the size gets more room than was assumed.
"""

from collections import OrderedDict
from collections.abc import Sequence

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.server_process import ServerProcess

TOLERATED = 0.1
"""Share of a prompt by which a belief may be wrong. Templates add tokens, and estimates differ."""
STEP = 0.1
"""By this share the room changes if a belief about a whole prompt was wrong. With a lower value the
room is learned late. With a higher one it changes with each odd answer."""
_LEAST, _MOST = 1 / 16, 16.0
"""Bounds of what is learned, as a factor of the room."""
_MOST_PATHS = 16


class PodPrefixes:
    """The beginnings that one pod has, least recently used first, with their tokens."""

    __slots__ = (
        "bit",
        "capacity",
        "chunks",
        "factor",
        "known",
        "mean",
        "number",
        "process",
        "room",
        "state",
        "stating",
        "tokens",
    )

    def __init__(self, state: PodState, number: int, room: float) -> None:
        self.state = state
        self.number = number
        self.bit = 1 << number
        self.chunks: OrderedDict[int, float] = OrderedDict()
        self.tokens = 0.0
        self.capacity = self.room = room
        self.known = False
        """Whether the pod's page states how large its cache is."""
        self.factor = 1.0
        """The room for prompts, as answers show it, by the room that was assumed."""
        self.stating: set[str | None] = set()
        """Paths whose answers have stated how much was cached."""
        self.mean = 0.0
        """Mean length of its prompts."""
        self.process = ServerProcess()

    def scraped(self, metrics: PodMetrics) -> bool:
        """Take in a snapshot. Return whether the server was started again since the last one."""
        capacity = metrics.cache_tokens
        if capacity is not None:
            self.capacity = capacity
            self.known = True
        used = (metrics.kv_cache_usage or 0.0) * self.capacity
        generated = used - (metrics.running or 0.0) * self.mean
        self.room = self.factor * (self.capacity - max(0.0, generated))
        return self.process.is_another(metrics)

    def learn(self, believed: float, stated: float) -> None:
        """Correct the room by what an answer states.

        Args:
            believed: Share of the prompt that the pod was believed to have.
            stated: Share that was cached.
        """
        wrong = believed - stated
        if wrong > TOLERATED:
            change = 1.0 - STEP * min(wrong, 1.0)
        elif not believed and wrong < -TOLERATED:
            change = 1.0 - STEP * max(wrong, -1.0)
        else:
            return
        factor = min(max(self.factor * change, _LEAST), 1.0 if self.known else _MOST)
        self.room *= factor / self.factor
        self.factor = factor


class PrefixUse:
    """What one request uses of its pod's cache, as long as it is in flight."""

    __slots__ = ("_keys", "_pod", "_tokens", "had")

    def __init__(self, pod: PodPrefixes, keys: Sequence[int], had: float, tokens: float) -> None:
        self.had = had
        """How many tokens of the prompt the pod had before."""
        self._pod = pod
        self._keys = keys
        """Its chunks, from the end to the beginning, so that the end is forgotten first."""
        self._tokens = tokens
        """The length of the prompt, as estimated."""

    def ended(self) -> None:
        """Take in that the request has ended, and what it used was used last."""
        kept = self._pod.chunks
        for key in self._keys:
            if key in kept:
                kept.move_to_end(key)

    def stated(self, prompt_tokens: int, cached_tokens: int | None, path: str | None) -> None:
        """Learn from what an answer states of its prompt.

        Args:
            prompt_tokens: The length of the prompt.
            cached_tokens: How many of these tokens the pod had. ``None``: the answer does not say.
                vLLM leaves it out if there are none, so this is 0 on a path that stated it before.
            path: The path of the request.
        """
        stating = self._pod.stating
        if cached_tokens is None:
            if path not in stating:
                return
            cached_tokens = 0
        elif len(stating) < _MOST_PATHS:
            stating.add(path)
        if prompt_tokens > 0 and self._tokens > 0:
            self._pod.learn(self.had / self._tokens, cached_tokens / prompt_tokens)
