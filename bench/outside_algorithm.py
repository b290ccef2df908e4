"""An algorithm as somebody outside this project writes it, with docs/algorithms.md alone.

It does what ``least-request`` does, so that the two can be compared: a difference is what an
algorithm from outside lacks.
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
