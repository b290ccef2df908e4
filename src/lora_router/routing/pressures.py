"""How long requests of each priority would wait, on average of some seconds.

A request does not wait for those of lower priorities. So what they note says nothing of it, while
what it notes is the least that they would wait. The average of a priority is thus that of what
requests of it note, or if that is more, of higher ones.

It is a step function of the priority: between two priorities that were noted, it is that of the
higher one. Clients choose among 2,001 priorities, so there are ``MOST_STEPS`` at most. If there are
more, the two steps that differ least become one.

Between two requests, the lowest priority counts with what the last one noted, as long as that would
wait: in doubt it is refused, so that the queue is short. Nobody gains if higher ones are refused in
its place. They count with what a request would wait that comes meanwhile: less and less.
"""

import math
from itertools import pairwise

MOST_STEPS = 8
_KEPT = 3.0
"""A step below others is dropped if no request of its priority came in this times the seconds over
which waits are averaged."""


class _Step:
    """The average of one priority, and of those below it down to the next step."""

    __slots__ = ("at", "average", "last", "noted")

    def __init__(self, at: float, last: float = 0.0, average: float = 0.0) -> None:
        self.at = at
        """When the average was computed last."""
        self.noted = at
        """When a request of the priority came last."""
        self.last = last
        """What was noted last, less the time since then."""
        self.average = average

    def go_on(self, now: float, tau: float, *, is_lowest: bool) -> None:
        passed, self.at = now - self.at, now
        # If nobody had come since, the line would be empty after the last expected wait.
        busy = min(passed, self.last)
        average = self.last if is_lowest else self.last - busy / 2
        for seconds, wait in ((busy, average), (passed - busy, 0.0)):
            if seconds > 0.0:
                share = math.exp(-seconds / tau) if tau else 0.0
                self.average = share * self.average + (1.0 - share) * wait
        self.last -= busy


class Pressures:
    """The averages of one line."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: dict[int, _Step] = {}
        """By priority."""

    def __len__(self) -> int:
        return len(self._steps)

    def of(self, priority: int, now: float, tau: float) -> float:
        """Return the average expected wait of a priority.

        Args:
            priority: The priority.
            now: The time.
            tau: Seconds after which an expected wait counts a third.
        """
        found = self._find(priority)
        if found is None:
            return 0.0
        return max(self._go_on(each, now, tau).average for each in self._steps if each >= found)

    def note(self, priority: int, seconds: float, now: float, tau: float) -> None:
        """Record the expected wait of a request of some priority."""
        found = self._find(priority)
        if found is None:
            step = _Step(now)
        else:
            step = self._go_on(found, now, tau)
            if found != priority:
                step = _Step(now, step.last, step.average)
        step.last, step.noted = seconds, now
        self._steps[priority] = step
        if len(self._steps) > 1:
            self._note_below(priority, step, tau)
        if len(self._steps) > MOST_STEPS:
            self._merge(priority, now, tau)

    def _find(self, priority: int) -> int | None:
        """Return the priority of the step of some priority."""
        if priority in self._steps:
            return priority
        return min((each for each in self._steps if each > priority), default=None)

    def _go_on(self, priority: int, now: float, tau: float) -> _Step:
        step = self._steps[priority]
        step.go_on(now, tau, is_lowest=priority == min(self._steps))
        return step

    def _note_below(self, priority: int, step: _Step, tau: float) -> None:
        """Let lower priorities wait for at least as long, and drop those that nobody has."""
        for lower in [each for each in self._steps if each < priority]:
            other = self._go_on(lower, step.at, tau)
            other.last = max(other.last, step.last)
            if step.at - other.noted > _KEPT * tau:
                del self._steps[lower]

    def _merge(self, noted: int, now: float, tau: float) -> None:
        """Drop the step that differs least from the next higher one, but not the one just noted."""
        averages = [(each, self._go_on(each, now, tau).average) for each in sorted(self._steps)]
        least, dropped = math.inf, noted
        for (priority, average), (_, higher) in pairwise(averages):
            if average - higher < least and priority != noted:
                least, dropped = average - higher, priority
        del self._steps[dropped]
