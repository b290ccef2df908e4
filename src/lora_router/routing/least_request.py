"""``least-request``: the pod with the fewest requests in flight."""

import random
from collections.abc import Sequence

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import (
    AlgorithmOptions,
    Cost,
    InferenceRequest,
    Pick,
    Sight,
)
from lora_router.routing.candidates import Candidates
from lora_router.routing.fallback import accepts_any


def requests_in_flight(pod: PodView) -> int:
    """Return a pod's requests in flight, of this router and its peers."""
    return pod.in_flight + pod.beliefs.peers.requests


def least_loaded(pods: Sequence[PodView], rng: random.Random) -> PodView:
    """Return the pod with the fewest requests in flight, of this router and its peers.

    Ties are broken at random.

    This needs no metrics, so a pod that was never scraped is as good as any other.
    """
    loads = [pod.in_flight + pod.beliefs.peers.requests for pod in pods]
    fewest = min(loads)
    ties = [pod for pod, load in zip(pods, loads, strict=True) if load == fewest]
    return ties[0] if len(ties) == 1 else rng.choice(ties)


def load_of(sight: Sight) -> int:
    """Return the requests in flight of a pod that is explained, as ``least_loaded`` counts them."""
    return sight.requests if sight.view is None else requests_in_flight(sight.view)


def load_costs(sights: Sequence[Sight]) -> list[Cost]:
    """Return costs that explain ``least_loaded``: the requests in flight."""
    return [Cost({"requests": load_of(sight)}) for sight in sights]


class LeastRequest:
    """Picks the candidate with the fewest requests in flight, with ties at random."""

    name = "least-request"
    accepts = staticmethod(accepts_any)

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng

    def pick(self, _request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        """Return the least loaded candidate."""
        pods = candidates.shortlist(None, self._random)
        return Pick(least_loaded(pods, self._random), "least-request")

    def terms(
        self,
        _request: InferenceRequest,
        sights: Sequence[Sight],
        _candidates: Candidates | None,
        _now: float,
    ) -> Sequence[Cost]:
        """Return the requests in flight (``Explains``)."""
        return load_costs(sights)
