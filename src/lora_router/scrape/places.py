"""Places for calls of pods: how many run at once, and who gives way to whom.

A pod that answers does so within milliseconds. One that is silent holds its call until the
timeout. So there are two kinds of places:

- A call starts in one of few *quick* places.
- After ``SLOW_SECONDS`` it moves to one of many *slow* places, and its quick place is free for the
  next call. If all slow places are taken, it moves when one becomes free.

Calls of pods that failed last use at most half of both. So however many pods are silent, a call of
another pod starts soon. The silent ones are found in time too: with 64 quick places and a timeout
of 2 s, 128 calls of failing pods end in a second.
"""

import asyncio
from collections.abc import Callable

SLOW_SECONDS = 0.2
"""A call that takes longer is slow."""
SLOW_PER_QUICK = 8
"""Slow places for each quick one. A slow call costs a socket, and the reads of a pod keep one open
in any case."""


class Places:
    """The places of one kind of call."""

    def __init__(self, quick: int) -> None:
        """Create places that are free.

        Args:
            quick: The number of quick places.
        """
        self._quick = asyncio.Semaphore(quick)
        self._quick_for_failing = asyncio.Semaphore(max(1, quick // 2))
        self._slow = SLOW_PER_QUICK * quick
        """The number of slow places that are free."""
        self._slow_for_failing = max(1, self._slow // 2)
        self._moving: dict[Place, None] = {}
        """Slow calls that still are in quick places, in their order."""
        self._moving_failing: dict[Place, None] = {}

    def place(self, *, failing: bool = False, on_slow: Callable[[], None] | None = None) -> "Place":
        """Return a place to be entered.

        Args:
            failing: Whether the last such call of the pod failed.
            on_slow: Called when the call becomes slow.
        """
        return Place(self, failing=failing, on_slow=on_slow)

    async def enter(self, place: "Place") -> None:
        """Wait for a quick place."""
        if not place.failing:
            await self._quick.acquire()
            return
        # Those who wait here are behind nobody who has not failed.
        await self._quick_for_failing.acquire()
        try:
            await self._quick.acquire()
        except BaseException:
            self._quick_for_failing.release()
            raise

    def move(self, place: "Place") -> None:
        """Move a call to a slow place, now or as soon as one is free."""
        self._moving_of(place)[place] = None
        self._move_on()

    def leave(self, place: "Place") -> None:
        """Free the place of a call that has ended."""
        self._moving_of(place).pop(place, None)
        if not place.is_slow:
            self._leave_quick(place)
            return
        self._slow += 1
        if place.failing:
            self._slow_for_failing += 1
        self._move_on()

    def _moving_of(self, place: "Place") -> dict["Place", None]:
        return self._moving_failing if place.failing else self._moving

    def _move_on(self) -> None:
        while self._slow > 0 and (place := self._next()) is not None:
            del self._moving_of(place)[place]
            self._slow -= 1
            if place.failing:
                self._slow_for_failing -= 1
            place.is_slow = True
            self._leave_quick(place)

    def _next(self) -> "Place | None":
        """Return which call moves next, if one may."""
        failing = self._moving_failing if self._slow_for_failing > 0 else ()
        return next(iter(self._moving), None) or next(iter(failing), None)

    def _leave_quick(self, place: "Place") -> None:
        self._quick.release()
        if place.failing:
            self._quick_for_failing.release()


class Place:
    """The place of one call."""

    __slots__ = ("_on_slow", "_places", "_timer", "failing", "is_slow")

    def __init__(
        self, places: Places, *, failing: bool, on_slow: Callable[[], None] | None
    ) -> None:
        self._places = places
        self._on_slow = on_slow
        self._timer: asyncio.TimerHandle | None = None
        self.failing = failing
        self.is_slow = False
        """Whether it is a slow place."""

    async def __aenter__(self) -> None:
        await self._places.enter(self)
        self._timer = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._became_slow)

    async def __aexit__(self, *_error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._places.leave(self)

    def _became_slow(self) -> None:
        self._places.move(self)
        if self._on_slow is not None:
            self._on_slow()
