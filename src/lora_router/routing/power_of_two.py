"""``power-of-two``: the better of two random pods."""

from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates


class PowerOfTwo:
    """Two different candidates at random; of them the one with fewer requests in flight.

    Looks at no adapter and no metrics. Where several routers each count only their own requests, it
    keeps them from all choosing the same pod, as least-request can. (Mitzenmacher, 2001.)
    """

    name = "power-of-two"

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng

    def pick(self, _request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        """Choose."""
        if len(candidates) == 1:
            return Pick(candidates[0], "only-pod")
        # Their sequence is random too, so the first may win ties.
        first, second = self._random.sample(candidates, 2)
        return Pick(second if second.in_flight < first.in_flight else first, "power-of-two")
