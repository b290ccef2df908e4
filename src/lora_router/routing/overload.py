"""What the router does when more requests wait than the fleet has room for: the settings of it."""

from dataclasses import dataclass

PATIENCE_SECONDS = 6.0
"""How long an adapter waits before a slot is closed for it. A lower value closes slots sooner, and
hot adapters are loaded again and again. A higher value makes a rare adapter wait longer while hot
ones keep every slot."""
DRAIN_SECONDS = 60.0
"""For how long requests of the adapter in a closed slot are refused, if they may not be held and no
other pod could take them. A lower value lets rare adapters starve on small fleets, where
generations are longer. A higher value refuses more of the others' requests."""
AS_LONG_AS_ALLOWED = 86400.0
"""The seconds of a hold that only the settings limit."""
NO_ROOM = "no-room"
"""The reason of a hold until a pod has room, apart from slots."""
ROOM_SHARE = 0.5
"""What part of the longest expected wait a request may wait for room. It then waits on the pod for
about as long, for the step of the batch that takes it in."""
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
    sheds: bool = False
    """Whether a request is refused at once that would wait for too long. Otherwise it waits as long
    as it may."""
    max_expected_wait_seconds: float = 2.0
    """The longest expected wait of a request that is not refused, if overload is shed and lasts."""
    burst_seconds: float = 20.0
    """The time over which expected waits are averaged, to tell overload from a burst (``overrun``).
    A lower value refuses requests of bursts. With a higher value, requests are late for longer when
    overload begins."""
    max_requests_per_pod: int | None = None
    """How many requests may be in flight on a pod, of all known senders; ``None``: any number."""
    max_seconds_per_token: float | None = None
    """The longest usual time between two tokens of an answer, in seconds. A pod gets no further
    request that would make it longer. ``None``: any time."""

    def most_closed(self, slots: int) -> int:
        """Return how many of some slots may be closed at the same time."""
        if not self.closed_slots_share:
            return 0
        return max(1, int(self.closed_slots_share * slots))

    def longest_wait(self, reason: str) -> float:
        """Return the longest expected wait, in seconds, above which there is overload.

        Args:
            reason: Why it is held.
        """
        share = ROOM_SHARE if reason == NO_ROOM else 1.0
        return share * self.max_expected_wait_seconds
