"""Time and timers, as the event loop or a simulation has them."""

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Cancel the call. Does nothing once it was made."""


class Clock(Protocol):
    """Time and timers."""

    def now(self) -> float:
        """Return seconds, monotonic."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, ``seconds`` from now."""
