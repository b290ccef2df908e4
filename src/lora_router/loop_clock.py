"""The clock of the running event loop. Its timers do not call too early.

libuv counts whole milliseconds, so that timers of uvloop call up to one or two of them too early by
the clock that ``now`` reads.
"""

import asyncio
import time
from collections.abc import Callable

from lora_router.clock import Timer

_SHORTEST_SECONDS = 0.001
"""How long a timer waits at least that was too early: a shorter one is not a timer for uvloop."""


class LoopClock:
    """The clock of the running event loop. The scraper uses the same."""

    now = staticmethod(time.monotonic)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Schedule one call, ``seconds`` from now."""
        loop = asyncio.get_running_loop()
        return _LoopTimer(loop, seconds, call) if seconds > 0 else loop.call_later(0.0, call)


class _LoopTimer:
    """One call, which is scheduled again if the event loop makes it too early."""

    __slots__ = ("_call", "_due", "_handle", "_loop")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, call: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._call = call
        self._due = time.monotonic() + seconds
        self._handle: asyncio.TimerHandle | None = loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        left = self._due - time.monotonic()
        if left > 0:
            self._handle = self._loop.call_later(max(left, _SHORTEST_SECONDS), self._ring)
        else:
            self._handle = None
            self._call()

    def cancel(self) -> None:
        """Cancel the call. Does nothing once it was made."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
