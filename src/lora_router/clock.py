"""Time and timers, as the event loop or a simulation has them, and turns that come late."""

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Cancel the call. Does nothing once it was made."""


class Clock(Protocol):
    """Time and timers."""

    def now(self) -> float:
        """Return seconds, monotonic."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, ``seconds`` from now.

        It is never called before ``now`` has grown by so much. So a call finds that what it was
        scheduled for is due, and need not schedule itself again.
        """


class LateTurns:
    """Tells which turns of a periodic task to skip, because the event loop stalled before them.

    What arrived during a stall is read after the turn that was due meanwhile. That turn would take
    for silence what is only unread. Of late turns in a row, every second one is done all the same.
    """

    __slots__ = ("_longest", "_skipped")

    def __init__(self, longest: float) -> None:
        """Create it.

        Args:
            longest: A turn that is late by more seconds shows a stall.
        """
        self._longest = longest
        self._skipped = False

    def skips(self, late: float) -> bool:
        """Return whether to skip the turn that comes now, so many seconds late."""
        self._skipped = not self._skipped and late > self._longest
        return self._skipped
