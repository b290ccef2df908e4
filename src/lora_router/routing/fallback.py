"""Which other pods Envoy may try if a request cannot reach the pod that was picked.

A fallback is used rarely, and only for a request that no pod has seen. So the first acceptable pods
of a few are good enough, and finding them costs about a microsecond.
"""

import logging
import random
from collections.abc import Callable

from lora_router.fleet.pod_state import PodView
from lora_router.log_limit import LogLimit
from lora_router.routing.algorithm import Algorithm, InferenceRequest
from lora_router.routing.candidates import Candidates
from lora_router.routing.interrupt import let_interrupt_pass

log = logging.getLogger("lora_router.routing")

LOOKED_AT = 8
"""How many candidates are inspected. They are a random run, so that a dead pod's requests do not
all go to the same other pod."""


def has_place(request: InferenceRequest, pod: PodView, candidates: Candidates) -> bool:
    """Return whether a pod could run a request at once, as far as adapter slots are concerned.

    The rule for algorithms that do not have an ``accepts`` of their own.
    """
    adapter = request.adapter
    if adapter is None:
        return True
    if adapter in pod.in_flight_adapters or adapter in pod.beliefs.foreign_adapters:
        return not candidates.waiting.is_closed(pod, adapter)
    room = pod.beliefs.free_slots
    return room is None or room > 0


def accepts_any(_request: InferenceRequest, _pod: PodView, _candidates: Candidates) -> bool:
    """Accept every candidate. For algorithms that do not look at adapters."""
    return True


class Fallbacks:
    """Finds fallbacks."""

    def __init__(self, count: int, ready_pods: Callable[[], int]) -> None:
        """Create a finder.

        Args:
            count: The maximum number of fallbacks of a request.
            ready_pods: Returns how many pods Envoy may know.
        """
        self._count = count
        self._ready_pods = ready_pods
        self._random = random.Random()
        self._limit = LogLimit(10.0)

    def of(
        self,
        algorithm: Algorithm | None,
        request: InferenceRequest,
        picked: PodView,
        candidates: Candidates,
    ) -> tuple[str, ...]:
        """Return the endpoints to try after the picked pod, in order.

        After the last one, Envoy would choose among all pods, also among those that do not serve
        the model: their 404 would be final for the client. So where such pods exist, the picked pod
        itself stands in for a fallback that was not found.

        Args:
            algorithm: The algorithm that picked; ``None``: every candidate is acceptable.
            request: The request.
            picked: The pod that was picked.
            candidates: The pods that may take the request.
        """
        wanted, size = self._count, len(candidates)
        if not wanted:
            return ()
        found = self._find(algorithm, request, picked, candidates) if size > 1 else []
        if len(found) < wanted and size < self._ready_pods():
            found += [picked.pod.address] * (wanted - len(found))
        return tuple(found)

    def _find(
        self,
        algorithm: Algorithm | None,
        request: InferenceRequest,
        picked: PodView,
        candidates: Candidates,
    ) -> list[str]:
        wanted, size = self._count, len(candidates)
        accepts = accepts_any if algorithm is None else getattr(algorithm, "accepts", has_place)
        start = int(self._random.random() * size)
        found: list[str] = []
        try:
            for number in range(start, start + min(size, LOOKED_AT)):
                pod = candidates[number % size]
                if pod is not picked and accepts(request, pod, candidates):
                    found.append(pod.pod.address)
                    if len(found) == wanted:
                        break
        except BaseException as error:
            let_interrupt_pass(error)
            self._limit.log(
                log,
                logging.ERROR,
                "failed",
                "an algorithm's accepts failed, the request has no fallback: %s",
                type(error).__name__,
                exc_info=error,
            )
            return []
        return found
