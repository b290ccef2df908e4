"""Reads of long metrics pages: few at once, in short goes, and with a rest after each.

A long page is filtered while it arrives (``page_filter``), in goes of a fraction of a millisecond,
of which one runs in a turn of the event loop. So the page is read in the time in which it arrives,
and requests are hardly delayed. Afterwards its place rests, so that a place takes a fortieth of one
CPU, and all of them a tenth. If there are many long pages, each is read less often.
"""

import asyncio
import time
from asyncio import CancelledError
from collections.abc import Callable
from typing import TypeVar

from lora_router.scrape.breaks import BREAK
from lora_router.scrape.page_filter import PageFilter
from lora_router.scrape.page_reader import ScrapeError
from lora_router.scrape.read_health import ReadHealth
from lora_router.scrape.series import PageTooLargeError
from lora_router.scrape.turns import Turns
from lora_router.steps import Steps

LONG_PAGES_AT_ONCE = 4
"""Long pages that are read at the same time, or whose places rest."""
_GO_SECONDS = 0.00025
"""How long a page is filtered in one go."""

_Result = TypeVar("_Result")


class LongPages:
    """What all reads of long metrics pages share. Must be created in the event loop."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        """Create it without reads.

        Args:
            clock: Returns the seconds that this thread has worked.
        """
        self._clock = clock
        self._places = asyncio.Semaphore(LONG_PAGES_AT_ONCE)
        self._turns = Turns(1)
        self.resting = False
        """Whether places rest. Not until requests are served."""

    def page(self, health: ReadHealth, wall_now: float) -> "FilteredPage":
        """Return what filters a page that is read at this Unix time, and notes that it is long."""
        return FilteredPage(self._turns, health, wall_now, self._clock)

    def place(self, health: ReadHealth) -> "LongPlace":
        """Return the place for a read of a page that was long."""
        return LongPlace(self._places, health, lambda: self.resting)


class FilteredPage:
    """One page that is filtered while it arrives."""

    __slots__ = ("_clock", "_filter", "_health", "_turns")

    def __init__(
        self, turns: Turns, health: ReadHealth, wall_now: float, clock: Callable[[], float]
    ) -> None:
        self._turns = turns
        self._filter = PageFilter(wall_now)
        self._health = health
        self._clock = clock

    async def add(self, data: bytes) -> int:
        """Take in what follows; return the number of bytes that are held.

        Raises:
            ScrapeError: The page exceeds a limit.
        """
        self._health.is_long = True
        await self._do(self._filter.add(data))
        return self._filter.held

    async def finish(self) -> bytes:
        """Return what is kept of the page.

        Raises:
            ScrapeError: The page exceeds a limit.
        """
        return await self._do(self._filter.finish())

    async def _do(self, steps: Steps[_Result]) -> _Result:
        clock = self._clock
        await self._turns.take()
        started = clock()
        try:
            while True:
                next(steps)
                if (worked := clock() - started) >= _GO_SECONDS:
                    self._health.work += worked
                    await self._turns.take()
                    started = clock()
        except StopIteration as end:
            result: _Result = end.value
            return result
        except PageTooLargeError as error:
            raise ScrapeError("too-large", str(error)) from None
        finally:
            self._health.work += clock() - started


class LongPlace:
    """A place for one read, which rests after it."""

    __slots__ = ("_health", "_is_held", "_places", "_rests")

    def __init__(
        self, places: asyncio.Semaphore, health: ReadHealth, rests: Callable[[], bool]
    ) -> None:
        """Create a place that has to be entered.

        Args:
            places: All places of this kind.
            health: Has the work of the read.
            rests: Returns whether the place rests after it.
        """
        self._places = places
        self._health = health
        self._rests = rests
        self._is_held = False

    async def __aenter__(self) -> "LongPlace":
        await self._places.acquire()
        self._is_held = True
        self._health.work = 0.0
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        try:
            if self._rests() and self._health.work and not isinstance(error, CancelledError):
                if not self._is_held:
                    await self._places.acquire()
                    self._is_held = True
                await asyncio.sleep(self._health.work * BREAK)
        finally:
            self.free()

    def wait_outside(self) -> None:
        """Let the next read start if this one still waits for its pod, which may be silent."""
        if not self._health.is_long:
            self.free()

    def free(self) -> None:
        """Let the next read start."""
        if self._is_held:
            self._is_held = False
            self._places.release()
