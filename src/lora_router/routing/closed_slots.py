"""Slots that are closed to further requests of the adapter in them, so that a queue gets them."""

from collections.abc import Collection, Iterator

from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.waiting_queue import Queue


class ClosedSlots:
    """The closed slots of this router. Each slot is closed for at most one queue."""

    def __init__(self) -> None:
        self._by_adapter: dict[str, dict[PodView, Queue]] = {}
        self._by_pod: dict[PodState, dict[str, Queue]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def closed_to(self, adapter: str) -> Collection[PodView]:
        """Return the pods that must get no further requests for an adapter."""
        return self._by_adapter.get(adapter, ())

    def close(self, queue: Queue, slot: tuple[PodState, str]) -> None:
        """Close a slot for a queue. If two queues name the same slot, the later one gets it."""
        pod, adapter = slot
        other = self._by_pod.get(pod, {}).get(adapter)
        if other is not None:
            self.reopen(other)
        self._count += 1
        queue.closing = slot
        self._by_adapter.setdefault(adapter, {})[pod] = queue
        self._by_pod.setdefault(pod, {})[adapter] = queue

    def reopen(self, queue: Queue) -> str | None:
        """Reopen the slot that is closed for a queue, if any; return the adapter in it."""
        if queue.closing is None:
            return None
        pod, adapter = queue.closing
        queue.closing = None
        self._count -= 1
        pods, adapters = self._by_adapter[adapter], self._by_pod[pod]
        del pods[pod], adapters[adapter]
        if not pods:
            del self._by_adapter[adapter]
        if not adapters:
            del self._by_pod[pod]
        return adapter

    def empty_on(self, pod: PodState) -> Iterator[Queue]:
        """Yield the queues whose closed slot on a pod has no request left."""
        for adapter, queue in self._by_pod.get(pod, {}).items():
            if adapter not in pod.in_flight_adapters and not pod.beliefs.peers.in_flight(adapter):
                yield queue

    def on(self, pod: PodState) -> Collection[Queue]:
        """Return the queues for which a slot on a pod is closed."""
        return self._by_pod.get(pod, {}).values()
