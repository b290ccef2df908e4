"""Token buckets for what a peer may send."""

from collections.abc import Callable


class Budget:
    """So many units at once, and so many more in each second."""

    __slots__ = ("_at", "_burst", "_left", "_now", "_per_second")

    def __init__(self, burst: float, per_second: float, now: Callable[[], float]) -> None:
        self._burst = burst
        self._per_second = per_second
        self._now = now
        self._left = burst
        self._at = now()

    def spend(self, units: float) -> bool:
        """Take some units; return whether there were enough. If not, none are taken."""
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if units > self._left:
            return False
        self._left -= units
        return True


class Allowance:
    """How many messages a peer may send, and how many bytes in them."""

    __slots__ = ("_bytes", "_messages")

    def __init__(self, messages: Budget, size: Budget) -> None:
        self._messages = messages
        self._bytes = size

    def admits(self, size: int) -> bool:
        """Count a message of so many bytes; return whether it is allowed."""
        return self._messages.spend(1) and self._bytes.spend(size)
