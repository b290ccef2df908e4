"""What a policy has sent to pods, and what of it is still there."""

from collections import deque

from lora_router.fleet.pod_state import PodView


class SentRequests:
    """Adds up a size of the requests that were sent to each pod and have not ended.

    A policy sees how many requests of each adapter a pod has, but not which of them ended. The
    oldest ones are assumed to have ended first.
    """

    def __init__(self) -> None:
        self._sent: dict[PodView, dict[str | None, deque[float]]] = {}
        self._sums: dict[PodView, float] = {}

    def add(self, pod: PodView, adapter: str | None, size: float) -> None:
        """Record that a request is sent to a pod, with a size that is added up."""
        by_adapter = self._sent.setdefault(pod, {})
        by_adapter.setdefault(adapter, deque()).append(size)
        self._sums[pod] = self._sums.get(pod, 0.0) + size

    def size_on(self, pod: PodView) -> float:
        """Return the sum of the sizes of the requests on a pod."""
        by_adapter = self._sent.get(pod)
        if not by_adapter:
            return 0.0
        ended = 0.0
        for adapter in tuple(by_adapter):
            sizes = by_adapter[adapter]
            while len(sizes) > _in_flight(pod, adapter):
                ended += sizes.popleft()
            if not sizes:
                del by_adapter[adapter]
        if not by_adapter:
            self._sums[pod] = 0.0
        elif ended:
            self._sums[pod] -= ended
        return self._sums[pod]


def _in_flight(pod: PodView, adapter: str | None) -> int:
    adapters = pod.in_flight_adapters
    if adapter is None:
        return pod.in_flight - sum(adapters.values())
    return adapters.get(adapter, 0)
