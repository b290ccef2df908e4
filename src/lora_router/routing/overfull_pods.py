"""Finds adapters that wait on a pod for a slot although nobody decided that they should.

A router sends requests for more adapters to a pod than it has slots if it does not know better:
before the first scrape of a pod it may not know the number of its slots, and routers that do not
hear of each other fill the same slots. Such an adapter waits on the pod as those do that could not
be held any longer, so a slot is closed for it too (``misplaced``). Otherwise an adapter that never
pauses would keep it waiting for ever.

A scrape shows which adapters have had a first token. Of the others, those that came last wait.
"""

from collections.abc import Collection, Sequence

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.routing.candidate_finder import CandidateFinder
from lora_router.routing.misplaced import excess
from lora_router.routing.refusal import Refused
from lora_router.routing.waiting_room import WaitingRoom


class OverfullPods:
    """Looks at the scrapes of one router."""

    def __init__(self, fleet: Fleet, finder: CandidateFinder, room: WaitingRoom) -> None:
        self._fleet = fleet
        self._finder = finder
        self._room = room

    def scraped(self, states: Collection[PodState]) -> None:
        """Look for such adapters on pods that were just scraped."""
        for state in states:
            for adapter in without_slot(state):
                found = self._finder.among(self._fleet.serving(adapter).pods, None, None)
                if not isinstance(found, Refused):
                    self._room.misplaced(state, adapter, found.load().slots)


def without_slot(state: PodState) -> Sequence[str]:
    """Return the adapters of this router that wait on a pod for a slot, by its last scrape."""
    metrics, beliefs = state.metrics, state.beliefs
    free = beliefs.free_slots
    if metrics is None or metrics.lora is None or metrics.deferred == 0:
        return ()
    if free is None or not (free < 0 or beliefs.somebody_waits):
        return ()
    many = excess(state)
    if many <= 0:
        return ()
    waiting = [name for name in state.in_flight_adapters if name not in beliefs.active]
    return waiting[-many:]
