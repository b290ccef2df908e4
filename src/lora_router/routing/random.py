"""``random``: any candidate, with equal probability."""

from collections.abc import Sequence

from lora_router.routing.algorithm import (
    AlgorithmOptions,
    Cost,
    InferenceRequest,
    Pick,
    Sight,
)
from lora_router.routing.candidates import Candidates
from lora_router.routing.fallback import accepts_any


class RandomPod:
    """Picks a candidate at random, each with the same probability. The baseline for comparisons."""

    name = "random"
    accepts = staticmethod(accepts_any)

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng

    def pick(self, _request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        """Return a random candidate."""
        return Pick(self._random.choice(candidates), "random")

    def terms(
        self,
        _request: InferenceRequest,
        sights: Sequence[Sight],
        _candidates: Candidates | None,
        _now: float,
    ) -> Sequence[Cost]:
        """Return no terms: all candidates are equal (``Explains``)."""
        return [Cost()] * len(sights)
