"""The load and the slots of the pods of each base model.

A fleet may serve several base models. Slots of one are of no use to the adapters of another, so how
busy and how full the fleet is has to be known for each of them. Pods that serve the same base
models count together.
"""

from typing import NamedTuple

from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.pod_state import PodState


class Counted(NamedTuple):
    """What one pod adds."""

    bases: BaseModels
    requests: int
    """Of this router and its peers."""
    slots: int
    free: int


class Total:
    """The sums of some pods."""

    __slots__ = ("free", "pods", "requests", "slots")

    def __init__(self) -> None:
        self.pods = self.requests = self.slots = self.free = 0


class BaseTotals:
    """The sums by base models."""

    def __init__(self) -> None:
        self._counted: dict[PodState, Counted] = {}
        self._totals: dict[BaseModels, Total] = {}

    def of(self, bases: BaseModels) -> Total:
        """Return the sums of the pods that serve some base models."""
        return self._totals.get(bases) or Total()

    def count(self, pod: PodState, slots: int, free: int) -> None:
        """Count a pod as it is now.

        Args:
            pod: The pod.
            slots: Its slots; 0: their number is not known.
            free: Those without an adapter in flight.
        """
        now = Counted(pod.base_models, pod.in_flight + pod.beliefs.peers.requests, slots, free)
        before = self._counted.get(pod)
        if before != now:
            if before is not None:
                self._add(before, -1)
            self._counted[pod] = now
            self._add(now, 1)

    def remove(self, pod: PodState) -> None:
        """Count a pod no more."""
        before = self._counted.pop(pod, None)
        if before is not None:
            self._add(before, -1)

    def _add(self, counted: Counted, sign: int) -> None:
        total = self._totals.get(counted.bases)
        if total is None:
            total = self._totals[counted.bases] = Total()
        total.pods += sign
        total.requests += sign * counted.requests
        total.slots += sign * counted.slots
        total.free += sign * counted.free
        if not total.pods:
            del self._totals[counted.bases]
