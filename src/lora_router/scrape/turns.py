"""Spreads work over the turns of the event loop."""

import asyncio
from collections import deque


class Turns:
    """Lets few pieces of work run in one turn of the event loop.

    Without it, a thousand pods that join, or that respond at the same moment after a pause, would
    be handled in one turn, and requests would wait for all of them.
    """

    __slots__ = ("_at_once", "_left", "_loop", "_waiting")

    def __init__(self, at_once: int) -> None:
        """Create it in the running event loop.

        Args:
            at_once: How many pieces of work may run in one turn.
        """
        self._at_once = at_once
        self._left = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()

    async def take(self) -> None:
        """Return in a turn in which few others do. Usually that is this one."""
        if self._left == self._at_once:
            self._loop.call_soon(self._next_turn)
        if self._left > 0:
            self._left -= 1
            return
        waiting = self._loop.create_future()
        self._waiting.append(waiting)
        await waiting

    def _next_turn(self) -> None:
        self._left = self._at_once
        while self._waiting and self._left > 0:
            waiting = self._waiting.popleft()
            if not waiting.done():  # It is done if the task was cancelled.
                waiting.set_result(None)
                self._left -= 1
        if self._left < self._at_once:
            self._loop.call_soon(self._next_turn)
