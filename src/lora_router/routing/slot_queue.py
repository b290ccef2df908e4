"""Adapters whose requests wait in the router for a slot, and the slots that are closed for them.

An adapter that has waited for ``PATIENCE_SECONDS`` gets a slot freed: of all slots, the one with
the fewest requests in flight is closed to further requests of the adapter that has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Hold

PATIENCE_SECONDS = 6.0
"""Less: slots are closed for others sooner, and hot adapters load again and again. More: a rare
adapter waits longer while hot ones keep every slot."""
_AS_LONG_AS_ALLOWED = 86400.0
_FORGOTTEN_SECONDS = 10.0
"""A held adapter that was not asked for during this time has no request waiting any more."""


@dataclass(slots=True)
class Waiting:
    """An adapter whose requests are held."""

    since: float
    asked: float
    closed: tuple[PodView, str] | None = None
    """The pod and the adapter on it that gets no further requests, to free a slot."""


class SlotQueue:
    """All of them."""

    __slots__ = ("_pruned_at", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[str, Waiting] = {}
        """By adapter."""
        self._pruned_at = 0.0

    def hold(
        self,
        adapter: str,
        candidates: Sequence[PodView],
        now: float,
        wanted: PodView | None = None,
    ) -> Hold:
        """Have a request wait, and a slot closed for its adapter if that is due.

        Args:
            adapter: What is asked for.
            candidates: The pods that may take it.
            now: Seconds, monotonic.
            wanted: A pod whose free slot it would have, were it this router's turn.
        """
        if now - self._pruned_at > 1.0:
            self._prune(now)
        waiting = self.waiting.setdefault(adapter, Waiting(now, now))
        waiting.asked = now
        closed = waiting.closed
        if now - waiting.since >= PATIENCE_SECONDS and (
            closed is None or closed[0] not in candidates or not in_flight(*closed)
        ):
            waiting.closed = self._choose_to_close(candidates)
        return Hold("no-slot", _AS_LONG_AS_ALLOWED, wanted, waiting.closed)

    def served(self, adapter: str) -> None:
        """Take note that an adapter's requests wait no more."""
        self.waiting.pop(adapter, None)

    def closed_to(self, adapter: str) -> Sequence[PodView]:
        """Return the pods that take no further requests of an adapter."""
        if not self.waiting:
            return ()
        closed = (waiting.closed for waiting in self.waiting.values())
        return [each[0] for each in closed if each is not None and each[1] == adapter]

    def _choose_to_close(self, candidates: Sequence[PodView]) -> tuple[PodView, str] | None:
        """Return the slot in which the fewest requests are, of those that are not closed yet."""
        taken = [waiting.closed for waiting in self.waiting.values() if waiting.closed]
        open_slots = [
            (in_flight(pod, name), number, name)
            for number, pod in enumerate(candidates)
            for name in {*pod.in_flight_adapters, *pod.beliefs.peers.adapters}
            if (pod, name) not in taken and name not in pod.beliefs.peers.closed
        ]
        if not open_slots:
            return None
        _, number, name = min(open_slots)
        return candidates[number], name

    def _prune(self, now: float) -> None:
        """Forget the adapters whose held requests have left."""
        self._pruned_at = now
        for name, waiting in tuple(self.waiting.items()):
            if now - waiting.asked > _FORGOTTEN_SECONDS:
                del self.waiting[name]


def in_flight(pod: PodView, adapter: str) -> int:
    """Return an adapter's requests in flight on a pod, of this router and of those that tell."""
    return pod.in_flight_adapters.get(adapter, 0) + pod.beliefs.peers.in_flight(adapter)
