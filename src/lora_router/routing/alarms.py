"""Alarms that ask for queues again although nothing changed. One timer serves all of them."""

from collections.abc import Callable
from heapq import heappop, heappush

from lora_router.clock import Clock, Timer
from lora_router.routing.waiting_queue import Queue

SOONEST_SECONDS = 0.01
"""Lower bound of ``Hold.ask_again``, so that no algorithm keeps the event loop busy."""
LATEST_SECONDS = 60.0
"""Upper bound, so that alarms of removed queues do not accumulate."""

AT_ONCE = 64
"""Alarms that go off in one turn of the event loop. The others follow in the next turns."""


class Alarms:
    """At most one alarm for each queue: the earliest that was set."""

    def __init__(self, clock: Clock, call: Callable[[list[Queue]], None]) -> None:
        self._clock = clock
        self._call = call
        self._heap: list[tuple[float, int, Queue]] = []
        self._count = 0
        """A tie-breaker for alarms of the same time."""
        self._timer: tuple[float, Timer] | None = None

    def set(self, queue: Queue, seconds: float) -> None:
        """Call for a queue after some seconds, unless an earlier call is due."""
        at = self._clock.now() + min(max(seconds, SOONEST_SECONDS), LATEST_SECONDS)
        if queue.alarm is not None and queue.alarm <= at + SOONEST_SECONDS:
            return
        queue.alarm = at
        self._count += 1
        heappush(self._heap, (at, self._count, queue))
        self._arm()

    def _arm(self) -> None:
        at = self._heap[0][0]
        if self._timer is not None:
            if self._timer[0] <= at:
                return
            self._timer[1].cancel()
        delay = max(0.0, at - self._clock.now())
        self._timer = at, self._clock.call_later(delay, self._go_off)

    def _go_off(self) -> None:
        self._timer = None
        now = self._clock.now()
        due = []
        for _ in range(AT_ONCE):
            if not self._heap or self._heap[0][0] > now:
                break
            at, _, queue = heappop(self._heap)
            if queue.alarm == at:
                queue.alarm = None
                due.append(queue)
        if self._heap:
            self._arm()
        self._call(due)
