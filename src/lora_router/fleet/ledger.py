"""The in-flight ledger: the requests that this router has sent and that have not ended.

Rules:

- A request is counted in the same synchronous step that picks its pod, so that the next request
  already sees it.
- ``Reservation.release`` decrements the count exactly once, however often it is called.
- A reservation refers to the pod's state, not to its name. A pod that leaves and returns under the
  same name has a new state, so neither count can become wrong.
"""

from lora_router.fleet.answer import Answer
from lora_router.fleet.changes import Changes, Signal
from lora_router.fleet.index import FleetIndex
from lora_router.fleet.pod_state import PodState


class Reservation:
    """One request that counts as in flight on a pod until it is released."""

    __slots__ = ("_ledger", "adapter", "answer", "state")

    def __init__(self, ledger: "Ledger", state: PodState, adapter: str | None) -> None:
        self._ledger: Ledger | None = ledger
        self.state = state
        self.adapter = adapter
        self.answer: Answer | None = None

    @property
    def open(self) -> bool:
        """Whether the request still counts as in flight."""
        return self._ledger is not None

    def answered(self, answer: Answer) -> None:
        """Record that the answer to the request began."""
        self.answer = answer

    def release(self) -> bool:
        """End the reservation. Return whether this call was the one that ended it."""
        ledger = self._ledger
        if ledger is None:
            return False
        self._ledger = None
        state = self.state
        state.in_flight -= 1
        if self.adapter is not None:
            left = state.in_flight_adapters[self.adapter] - 1
            if left:
                state.in_flight_adapters[self.adapter] = left
            else:
                del state.in_flight_adapters[self.adapter]
            state.beliefs.used(self.adapter)
        ledger.total -= 1
        ledger.index.changed(state, self.adapter)
        ledger.released.send((state,))
        return True


class Ledger:
    """Counts requests in flight by pod and by adapter.

    The counts are stored in each ``PodState``.
    """

    __slots__ = ("index", "released", "total")

    def __init__(self, index: FleetIndex | None = None, released: Signal | None = None) -> None:
        self.total = 0
        self.index = index if index is not None else FleetIndex()
        self.released = released if released is not None else Changes().released
        """The signal sent after each release, with the record of the pod."""

    def reserve(self, state: PodState, adapter: str | None) -> Reservation:
        """Count one more request on a pod, for an adapter or (``None``) for the base model."""
        state.in_flight += 1
        if adapter is not None:
            counts = state.in_flight_adapters
            counts[adapter] = counts.get(adapter, 0) + 1
            state.beliefs.used(adapter)
        self.total += 1
        self.index.changed(state, adapter)
        return Reservation(self, state, adapter)
