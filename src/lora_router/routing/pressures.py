"""How long requests of each priority would wait, on average of some seconds.

A request does not wait for those of lower priorities. So what they note says nothing of it, while
what it notes is the least that they would wait. The average of a priority is thus that of what
requests of it note, or if that is more, of higher ones.

It is a step function of the priority: between two priorities that were noted, it is that of the
higher one. Clients choose among 2,001 priorities, so there are ``MOST_STEPS`` at most. If there are
more, the two steps that differ least become one.
"""

import math
from itertools import pairwise

MOST_STEPS = 16


class _Step:
    """The average of one priority, and of those below it down to the next step."""

    __slots__ = ("at", "average", "last")

    def __init__(self, at: float, last: float = 0.0, average: float = 0.0) -> None:
        self.at = at
        """When the average was computed last."""
        self.last = last
        """What was noted last, less the time since then."""
        self.average = average

    def go_on(self, now: float, tau: float) -> None:
        passed, self.at = now - self.at, now
        # If nobody had come since, the line would be empty after the last expected wait.
        busy = min(passed, self.last)
        for seconds, wait in ((busy, self.last), (passed - busy, 0.0)):
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
        step = self._find(priority)
        if step is None:
            return 0.0
        step.go_on(now, tau)
        return step.average

    def note(self, priority: int, seconds: float, now: float, tau: float) -> None:
        """Record the expected wait of a request of some priority."""
        step = self._find(priority)
        if step is None:
            step = _Step(now)
        else:
            step.go_on(now, tau)
            if priority not in self._steps:
                step = _Step(now, step.last, step.average)
        step.last = seconds
        self._steps[priority] = step
        if len(self._steps) > 1:
            self._note_below(priority, step, tau)
        if len(self._steps) > MOST_STEPS:
            self._merge(priority, now, tau)

    def _find(self, priority: int) -> _Step | None:
        step = self._steps.get(priority)
        if step is not None:
            return step
        higher = min((each for each in self._steps if each > priority), default=None)
        return None if higher is None else self._steps[higher]

    def _note_below(self, priority: int, step: _Step, tau: float) -> None:
        """Let lower priorities wait for at least as long, and drop those that wait no longer."""
        for lower in [each for each in self._steps if each < priority]:
            other = self._steps[lower]
            other.go_on(step.at, tau)
            other.last = max(other.last, step.last)
            if other.last <= step.last and other.average <= step.average:
                del self._steps[lower]

    def _merge(self, noted: int, now: float, tau: float) -> None:
        """Drop the step that differs least from the next higher one, but not the one just noted."""
        steps = sorted(self._steps.items())
        for _, step in steps:
            step.go_on(now, tau)
        least, dropped = math.inf, noted
        for (priority, step), (_, higher) in pairwise(steps):
            difference = step.average - higher.average
            if difference < least and priority != noted:
                least, dropped = difference, priority
        del self._steps[dropped]
