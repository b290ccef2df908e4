"""Turns: connections with much input share the event loop with all others. No I/O.

A connection handles a bounded number of frames at once. If more have arrived, it is not read until
it has had its next turn. In each iteration of the event loop, turns are given for a few
milliseconds, in order, so a burst on some connections delays the others by no more than that.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

_SECONDS = 0.005


class Waiting(Protocol):
    """A connection that waits for its turn."""

    def take_turn(self) -> None:
        """Handle some frames. If more are left, join again."""


class Turns:
    """Who waits for a turn, in order."""

    def __init__(
        self, call_soon: Callable[[Callable[[], None]], object], now: Callable[[], float]
    ) -> None:
        """Create an empty queue.

        Args:
            call_soon: Calls a function in the next iteration of the event loop.
            now: Returns seconds, monotonic.
        """
        self._call_soon = call_soon
        self._now = now
        self._waiting: deque[Waiting] = deque()
        self._due = False

    def join(self, waiting: Waiting) -> None:
        """Add a connection at the end."""
        self._waiting.append(waiting)
        if not self._due:
            self._schedule()

    def _give(self) -> None:
        until = self._now() + _SECONDS
        try:
            # Who joins again meanwhile gets the next turn in the next iteration.
            for _ in range(len(self._waiting)):
                self._waiting.popleft().take_turn()
                if self._now() >= until:
                    break
        finally:
            self._due = False
            if self._waiting:
                self._schedule()

    def _schedule(self) -> None:
        # Due only afterwards: without memory, the call raises, and the next that joins tries again.
        self._call_soon(self._give)
        self._due = True
