"""The clock of one simulated router: it may be slow or fast, stand still, or end.

Everything that a router does runs on its clock: timers, messages that arrive, requests. While the
router's event loop stands still, all of that waits, and then happens in the order in which it was
due. When the router dies, nothing happens any more.
"""

from collections.abc import Callable
from math import inf, nextafter

from lora_router.simulator.events import EventQueue


class RouterTimer:
    """A scheduled call of one router."""

    __slots__ = ("_clock", "call")

    def __init__(self, clock: "RouterClock", call: Callable[[], object]) -> None:
        self._clock = clock
        self.call: Callable[[], object] | None = call

    def __call__(self) -> None:
        """Call, unless it was cancelled. Wait while the router stands still."""
        call = self.call
        if call is not None and self._clock.may_run(self):
            self.call = None
            call()

    def cancel(self) -> None:
        """Cancel the call."""
        self.call = None


class RouterClock:
    """Time and timers of one router."""

    __slots__ = ("_began", "_events", "_rate", "_stalled_until", "stopped")

    def __init__(self, events: EventQueue, rate: float = 1.0, began: float = 0.0) -> None:
        """Create it.

        Args:
            events: Simulated time.
            rate: Seconds that this clock counts in a second.
            began: The simulated time at which it shows 0.
        """
        self._began = began
        self.stopped = False
        """Whether the router is dead."""
        self._events = events
        self._rate = rate
        self._stalled_until = float("-inf")

    def now(self) -> float:
        """Return seconds, as this router counts them."""
        return self._shown_at(self._events.time)

    def call_later(self, seconds: float, call: Callable[[], object]) -> RouterTimer:
        """Schedule a call, ``seconds`` of this clock from now."""
        timer = RouterTimer(self, call)
        due, at = self.now() + seconds, self._events.time + seconds / self._rate
        while self._shown_at(at) < due:
            at = nextafter(at, inf)  # Rounding must not make it too early.
        self._events.call_at(at, timer)
        return timer

    def _shown_at(self, time: float) -> float:
        """Return what this clock shows at a simulated time."""
        return (time - self._began) * self._rate

    def run(self, call: Callable[[], object]) -> None:
        """Call now, or when the router's event loop runs again."""
        if not self.stopped:
            if self._events.time < self._stalled_until:
                self._events.call_at(self._stalled_until, RouterTimer(self, call))
            else:
                call()

    def may_run(self, timer: RouterTimer) -> bool:
        """Return whether a timer may call. If the event loop stands still, it calls later."""
        if self.stopped:
            return False
        if self._events.time < self._stalled_until:
            self._events.call_at(self._stalled_until, timer)
            return False
        return True

    def stall(self, seconds: float) -> None:
        """Let the event loop stand still for some seconds of simulated time."""
        self._stalled_until = max(self._stalled_until, self._events.time + seconds)
