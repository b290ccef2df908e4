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


class Budgets:
    """A budget for each peer, made when it spends first."""

    __slots__ = ("_burst", "_by_peer", "_now", "_per_second")

    def __init__(self, burst: float, per_second: float, now: Callable[[], float]) -> None:
        self._burst = burst
        self._per_second = per_second
        self._now = now
        self._by_peer: dict[str, Budget] = {}

    def spend(self, peer: str, units: float) -> bool:
        """Take some units of a peer's budget; return whether there were enough."""
        budget = self._by_peer.get(peer)
        if budget is None:
            budget = self._by_peer[peer] = Budget(self._burst, self._per_second, self._now)
        return budget.spend(units)

    def forget(self, peer: str) -> None:
        """Forget a peer."""
        self._by_peer.pop(peer, None)


class Allowance:
    """How many messages a peer may send, and how many bytes in them."""

    __slots__ = ("_bytes", "_messages")

    def __init__(self, messages: Budget, size: Budget) -> None:
        self._messages = messages
        self._bytes = size

    def admits(self, size: int) -> bool:
        """Count a message of so many bytes; return whether it is allowed."""
        return self._messages.spend(1) and self._bytes.spend(size)
