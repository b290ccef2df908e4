"""``least-request``: the pod with the fewest requests in flight."""

import random
from collections.abc import Iterable, Sequence

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import (
    AlgorithmOptions,
    Cost,
    InferenceRequest,
    Noted,
    Pick,
    Sight,
)
from lora_router.routing.candidates import FULL_LOOK, Candidates
from lora_router.routing.fallback import accepts_any


def requests_in_flight(pod: PodView) -> int:
    """Return a pod's requests in flight, of this router and its peers."""
    return pod.in_flight + pod.beliefs.peers.requests


def least_loaded(pods: Sequence[PodView], rng: random.Random) -> PodView:
    """Return the pod with the fewest requests in flight, of this router and its peers.

    Ties are broken at random.

    This needs no metrics, so a pod that was never scraped is as good as any other.
    """
    return one_of_least(pods, loads_of(pods), rng)


def loads_of(pods: Sequence[PodView]) -> list[int]:
    """Return the requests in flight on pods, of this router and its peers."""
    return [pod.in_flight + pod.beliefs.peers.requests for pod in pods]


def one_of_least(pods: Sequence[PodView], loads: Sequence[int], rng: random.Random) -> PodView:
    """Return a pod with the lowest load. Ties are broken at random."""
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
        self._takes_notes = options.takes_notes

    def pick(self, _request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        """Return the least loaded candidate."""
        pods = candidates.shortlist(None, self._random)
        loads = loads_of(pods)
        # The loads of very many pods, which only a filter can cause, are not kept.
        notes = (pods, loads) if self._takes_notes and len(loads) <= FULL_LOOK else None
        return Pick(one_of_least(pods, loads, self._random), "least-request", 0.0, False, notes)

    def recall(self, notes: object) -> Iterable[Noted]:
        """Return the requests in flight, as they were compared (``Recalls``)."""
        assert isinstance(notes, tuple)  # noqa: S101 -- there are no other notes
        return [
            Noted(pod, Cost({"requests": load}), requests=load)
            for pod, load in zip(*notes, strict=True)
        ]

    def terms(
        self,
        _request: InferenceRequest,
        sights: Sequence[Sight],
        _candidates: Candidates | None,
        _now: float,
    ) -> Sequence[Cost]:
        """Return the requests in flight (``Explains``)."""
        return load_costs(sights)
