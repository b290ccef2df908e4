"""Simulated time: calls that are due, in order, and the clock that a director asks."""

import heapq
from collections.abc import Callable
from itertools import count


class SimulatedTimer:
    """A call that is due later."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Make it not happen."""
        self.call = None


class EventQueue:
    """Runs calls at their times. Seconds from the start of the simulation.

    Calls due at the same time run in the order in which they were asked for. It is a ``Clock`` for
    the director.
    """

    __slots__ = ("_count", "_due", "time")

    def __init__(self) -> None:
        self.time = 0.0
        self._due: list[tuple[float, int, SimulatedTimer]] = []
        self._count = count()

    def now(self) -> float:
        """Return the time."""
        return self.time

    def call_at(self, time: float, call: Callable[[], None]) -> SimulatedTimer:
        """Call at a time, which must not have passed."""
        timer = SimulatedTimer(call)
        heapq.heappush(self._due, (time, next(self._count), timer))
        return timer

    def call_later(self, seconds: float, call: Callable[[], None]) -> SimulatedTimer:
        """Call once, ``seconds`` from now."""
        return self.call_at(self.time + seconds, call)

    def run(self, until: Callable[[], bool]) -> None:
        """Run what is due until a condition holds, or nothing is due any more."""
        due, pop = self._due, heapq.heappop
        while due and not until():
            self.time, _, timer = pop(due)
            call = timer.call
            if call is not None:
                timer.call = None
                call()
