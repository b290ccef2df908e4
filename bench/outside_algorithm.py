"""An algorithm as a user outside this project writes it, from docs/algorithms.md alone.

It does what ``least-request`` does. If it is slower, an algorithm from outside lacks something that
the built-in ones have.
"""

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates


class FewestRequests:
    """The pod with the fewest requests in flight."""

    name = "from-outside"
    interface_version = 2

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng

    def pick(self, _request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        """Return the least loaded candidate."""
        pods = candidates.shortlist(None, self._random)
        return Pick(min(pods, key=_in_flight), "fewest")


def _in_flight(pod: PodView) -> int:
    return pod.in_flight
