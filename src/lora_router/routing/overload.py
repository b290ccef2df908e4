"""What the router does when more requests wait than the fleet has room for: the settings of it."""

from dataclasses import dataclass

PATIENCE_SECONDS = 6.0
"""How long an adapter waits before a slot is closed for it. A lower value closes slots sooner, and
hot adapters are loaded again and again. A higher value makes a rare adapter wait longer while hot
ones keep every slot."""
PATIENT_SHARE = 0.5
"""The most that patience takes of the time for which requests may be held."""


def patience(max_hold_seconds: float) -> float:
    """Return how long an adapter waits before a slot is closed for it, by the longest hold."""
    return min(PATIENCE_SECONDS, PATIENT_SHARE * max_hold_seconds)


@dataclass(frozen=True, slots=True)
class Overload:
    """How the router treats requests for which there is no room."""

    closed_slots_share: float = 0.1
    """The share of the fleet's adapter slots that may be closed at the same time, by all routers
    together, so that adapters that wait get them. At least one slot may be closed, unless this is
    0. A lower value makes rare adapters wait longer while hot ones keep every slot. A higher value
    makes everybody wait once more adapters are wanted than the fleet has slots."""

    def most_closed(self, slots: int) -> int:
        """Return how many of some slots may be closed at the same time."""
        if not self.closed_slots_share:
            return 0
        return max(1, int(self.closed_slots_share * slots))
