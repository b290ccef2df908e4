"""A limit on how fast bytes leave: some at once, and some per second after that."""

from collections.abc import Callable


class ByteRate:
    """Bytes that may leave now."""

    __slots__ = ("_burst", "_filled_at", "_left", "_now", "_per_second")

    def __init__(self, burst: int, per_second: int, now: Callable[[], float]) -> None:
        """Create it with a full burst.

        Args:
            burst: Bytes that may leave at once.
            per_second: Bytes that may leave in each second.
            now: Returns seconds, monotonic.
        """
        self._burst = burst
        self._per_second = per_second
        self._now = now
        self._left = float(burst)
        self._filled_at = now()

    def seconds_until_room(self) -> float:
        """Return how long the next bytes have to wait.

        They may be more than what is left, which is then negative. So nothing is too long to leave.
        """
        now = self._now()
        filled = self._left + (now - self._filled_at) * self._per_second
        self._left, self._filled_at = min(filled, self._burst), now
        return max(0.0, -self._left / self._per_second)

    def take(self, size: int) -> None:
        """Count bytes that leave."""
        self._left -= size
