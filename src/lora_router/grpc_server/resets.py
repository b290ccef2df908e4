"""The rate at which peers may waste streams: resets before an answer, and streams that fail.

Each such stream costs work and brings nothing (CVE-2023-44487, CVE-2025-8671). An honest gateway
resets streams too, whenever its clients disconnect. So nobody is disconnected for it. A connection
that exceeds its rate is not read for a while, which costs only the streams of that connection.

The process has one rate. Whatever it leaves is free for all. When it is spent, every connection
still has an equal share, so a connection that resets a lot slows down only itself.
"""

from collections.abc import Callable

from lora_router.grpc_server.limits import Rate

_SHORTEST_PAUSE_SECONDS = 0.05
"""A connection continues until its debt is worth a pause, so that timers stay few."""


class Resets:
    """The rate of a process."""

    def __init__(self, rate: Rate, now: Callable[[], float]) -> None:
        self.rate = rate
        self.now = now
        self.connections = 0
        """The connections that share the rate."""
        self.total = 0
        """Wasted streams, in total."""
        self._left = float(rate.burst)
        self._at = now()

    def take(self, now: float) -> bool:
        """Count one wasted stream; return whether the process still has room for it."""
        self.total += 1
        rate = self.rate
        self._left = min(rate.burst, self._left + (now - self._at) * rate.per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class ResetShare:
    """The share of one connection."""

    __slots__ = ("_at", "_left", "_resets")

    def __init__(self, resets: Resets) -> None:
        self._resets = resets
        self._at = resets.now()
        self._left = 0.0

    def spend(self) -> float:
        """Count one wasted stream; return the seconds for which not to read, often 0."""
        resets = self._resets
        now = resets.now()
        if resets.take(now):
            return 0.0
        sharing = max(1, resets.connections)
        per_second = resets.rate.per_second / sharing
        earned = (now - self._at) * per_second
        self._left = min(resets.rate.burst / sharing, self._left + earned) - 1
        self._at = now
        pause = -self._left / per_second
        return pause if pause >= _SHORTEST_PAUSE_SECONDS else 0.0
