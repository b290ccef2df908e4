"""Which adapters are in flight on some pod: one look-up, however many pods there are.

To inspect each pod would cost as much as everything else about the record of a decision. It is kept
only where decisions are recorded.
"""

from collections.abc import Iterable, Mapping

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState

_NONE: frozenset[str] = frozenset()


class AdaptersInFlight:
    """The adapters that are in flight on the pods of one fleet."""

    __slots__ = ("_fleet", "_foreign_on", "foreign", "own")

    def __init__(self, fleet: Fleet) -> None:
        """Follow a fleet without requests of this router."""
        self._fleet = fleet
        self.own: Mapping[str, int]
        """The requests of this router for each adapter."""
        self.own = fleet.ledger.adapters = {}
        self.foreign: dict[str, int] = {}
        """On how many pods others have an adapter in flight."""
        self._foreign_on: dict[PodState, frozenset[str]] = {}
        """What was last counted of each pod that has any."""
        fleet.changes.scraped.subscribe(self._changed)
        fleet.changes.shared.subscribe(self._changed)
        fleet.changes.pods.subscribe(self._changed)
        self._changed(fleet)

    def __contains__(self, adapter: object) -> bool:
        return adapter in self.own or adapter in self.foreign

    def _changed(self, states: Iterable[PodState]) -> None:
        for state in states:
            before, now = self._foreign_on.get(state, _NONE), state.beliefs.foreign_adapters
            if self._fleet.get(state.pod.name) is not state:
                now = _NONE
            if now is before:
                continue
            if now:
                self._foreign_on[state] = now
            else:
                self._foreign_on.pop(state, None)
            for adapter in now - before:
                self.foreign[adapter] = self.foreign.get(adapter, 0) + 1
            for adapter in before - now:
                if self.foreign[adapter] == 1:
                    del self.foreign[adapter]
                else:
                    self.foreign[adapter] -= 1
