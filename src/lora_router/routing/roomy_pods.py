"""The pods of a large fleet that have room, by load: those that ``PodRoom`` does not find full.

In a large fleet it takes a millisecond to look at each pod. So they are looked at when something
changes: the load or the slots of a pod, its limit, or the age of what its last scrape showed.
"""

from collections.abc import Callable, Iterable

from lora_router.fleet.index import FleetIndex
from lora_router.fleet.load_order import LoadOrder
from lora_router.fleet.pod_state import PodState


class RoomyPods:
    """The pods with room. They are kept up to date by ``look``."""

    __slots__ = ("_index", "_is_full", "by_load", "with_slot")

    def __init__(self, index: FleetIndex, is_full: Callable[[PodState], bool]) -> None:
        """Look at all pods, and at each one whose load changes from now on.

        Args:
            index: The ready pods.
            is_full: Returns whether a pod has no room, apart from slots.
        """
        self._index = index
        self._is_full = is_full
        self.by_load = LoadOrder()
        """The pods with room, by the requests of all routers."""
        self.with_slot = LoadOrder()
        """Those of them that have a free slot, or an unknown number of slots."""
        self.look(index.by_load)
        index.followers.append(self._look_at)

    def look(self, pods: Iterable[PodState]) -> None:
        """Look at pods whose limit may have changed, or that may have left."""
        for pod in pods:
            self._look_at(pod)

    def _look_at(self, pod: PodState) -> None:
        if pod not in self._index.by_load or self._is_full(pod):
            self.by_load.remove(pod)
            self.with_slot.remove(pod)
            return
        beliefs = pod.beliefs
        self.by_load.put(pod, pod.in_flight + beliefs.peers.requests)
        if pod in self._index.with_room:
            self.with_slot.put(pod, pod.in_flight + beliefs.foreign_requests)
        else:
            self.with_slot.remove(pod)
