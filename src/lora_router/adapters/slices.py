"""Long work of the loader, done in steps with pauses, so that requests are hardly delayed."""

from collections import deque
from collections.abc import Generator
from typing import TypeAlias

from lora_router.clock import Clock

Work: TypeAlias = Generator[None, None, None]
"""Work that yields after each step of about a millisecond."""
PAUSE_SECONDS = 0.002
"""Between two steps."""
REST = 5.0
"""Between two runs of the same work, so many times as long as the last run took."""


class Slices:
    """Does steps of all work in turn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._work: deque[Work] = deque()
        self._is_working = False

    def __len__(self) -> int:
        return len(self._work)

    def do(self, work: Work) -> None:
        """Begin some work soon. If it raises, it is dropped, and the other work goes on."""
        self._work.append(work)
        if not self._is_working:
            self._is_working = True
            self._clock.call_later(0.0, self._step)

    def _step(self) -> None:
        work = self._work.popleft()
        try:
            next(work)
            self._work.append(work)
        except StopIteration:
            pass
        finally:
            self._is_working = bool(self._work)
            if self._work:
                self._clock.call_later(PAUSE_SECONDS, self._step)
