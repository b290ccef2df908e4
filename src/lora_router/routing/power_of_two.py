"""``power-of-two``: the better of two random pods."""

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
from lora_router.routing.least_request import least_loaded, load_costs


class PowerOfTwo:
    """Samples two different candidates at random and picks the one with fewer requests in flight.

    It considers neither adapters nor metrics. Where several routers do not know of each other, the
    random sample prevents them from all picking the same pod, which can happen with least-request.
    (Mitzenmacher, 2001.)
    """

    name = "power-of-two"
    accepts = staticmethod(accepts_any)

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng

    def pick(self, _request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        """Return the less loaded of two random candidates."""
        if len(candidates) == 1:
            return Pick(candidates[0], "only-pod")
        return Pick(least_loaded(self._random.sample(candidates, 2), self._random), "power-of-two")

    def terms(
        self,
        _request: InferenceRequest,
        sights: Sequence[Sight],
        _candidates: Candidates | None,
        _now: float,
    ) -> Sequence[Cost]:
        """Return the requests in flight (``Explains``). Two candidates, by chance, are compared."""
        return load_costs(sights)
