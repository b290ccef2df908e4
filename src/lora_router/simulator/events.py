"""Simulated time: a queue of timed calls, which is also the clock of the directors."""

import heapq
import math
from collections.abc import Callable
from itertools import count


class SimulatedTimer:
    """A call that is scheduled for later."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Cancel the call."""
        self.call = None


class EventQueue:
    """Runs calls at their times, in seconds from the start of the simulation.

    Calls with the same time run in the order in which they were scheduled. The queue is a ``Clock``
    for the director.
    """

    __slots__ = ("_count", "_due", "time")

    def __init__(self) -> None:
        self.time = 0.0
        self._due: list[tuple[float, int, SimulatedTimer]] = []
        self._count = count()

    @property
    def next_at(self) -> float:
        """Time of the next call. Infinity: no call is scheduled."""
        return self._due[0][0] if self._due else math.inf

    def now(self) -> float:
        """Return the simulated time."""
        return self.time

    def call_at(self, time: float, call: Callable[[], None]) -> SimulatedTimer:
        """Schedule a call at a time, which must not be in the past."""
        timer = SimulatedTimer(call)
        heapq.heappush(self._due, (time, next(self._count), timer))
        return timer

    def call_later(self, seconds: float, call: Callable[[], None]) -> SimulatedTimer:
        """Schedule a call ``seconds`` from now."""
        return self.call_at(self.time + seconds, call)

    def run(self, until: Callable[[], bool]) -> None:
        """Run calls until the condition holds or the queue is empty."""
        due, pop = self._due, heapq.heappop
        while due and not until():
            self.time, _, timer = pop(due)
            call = timer.call
            if call is not None:
                timer.call = None
                call()
