"""*Prefix*: the prompt tokens that a pod has to process and the best other pod would not.

A pod keeps the keys and values of prompts that it has processed. A prompt that begins like one of
them needs only the rest. The pod that lacks least costs nothing, and every other one costs what
processing the difference takes there. What all pods lack decides nothing between them.
"""

from collections.abc import Iterable, Mapping

from lora_router.fleet.pod_state import PodView
from lora_router.fleet.prompt import TOKEN_BYTES
from lora_router.routing.algorithm import InferenceRequest
from lora_router.routing.candidates import Candidates
from lora_router.routing.terms.weights import REQUESTS_A_SECOND

_MOST_TOKENS = 32_768.0
"""Most tokens of a prompt of which only the length of its body is known. A long body may be an
image."""
_NONE: Mapping[PodView, float] = {}


class Prefix:
    """What pods have of one request's prompt."""

    __slots__ = ("_price", "best", "cached", "costs", "tokens")

    def __init__(self, request: InferenceRequest, candidates: Candidates, weight: float) -> None:
        prompt = request.prompt
        self.tokens = (
            min(request.size / TOKEN_BYTES, _MOST_TOKENS) if prompt is None else prompt.tokens
        )
        """The length of the prompt."""
        self.cached: Mapping[PodView, float] = (
            candidates.cached(request.model, prompt) if weight else {}
        )
        """How many tokens of its beginning pods have. Pods with none are omitted."""
        self.best = 0.0
        """The most that one of the pods has that are considered."""
        self.costs: Mapping[PodView, float] = _NONE
        """What each of these pods costs that lacks more than the best one. Empty: nothing."""
        self._price = weight * REQUESTS_A_SECOND

    def consider(self, pods: Iterable[PodView]) -> None:
        """Compare with these pods."""
        cached = self.cached
        if cached:
            # Of very many pods, it takes a while to find out what one has.
            having = {pod: cached.get(pod, 0.0) for pod in pods}
            self.best = best = max(having.values())
            if best:
                price = self._price
                self.costs = {
                    pod: (best - had) * price / pod.work.tokens_a_second
                    for pod, had in having.items()
                }

    def cost(self, pod: PodView) -> float:
        """Return what a pod costs, of those considered, that lacks more than the best one."""
        return self.costs.get(pod, 0.0)

    def least_lacking(self) -> float:
        """Return how many tokens of the prompt every pod considered has to process."""
        return max(0.0, self.tokens - self.best)

    def lacking(self, pod: PodView) -> float:
        """Return how many tokens of the prompt a pod has to process."""
        return max(0.0, self.tokens - self.cached.get(pod, 0.0))
