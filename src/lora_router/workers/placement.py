"""Which worker gets a connection, and which one has too many.

A gateway opens few connections and keeps them: an Envoy, one for each of its worker threads and for
each hundred streams. So each must be placed well. The kernel's way, SO_REUSEPORT, places them by a
hash: of two connections, both go to the same one of two workers half of the time.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class Share:
    """What one worker has."""

    number: int
    ready: bool = False
    responsive: bool = False
    """Whether it has reported lately."""
    short: bool = False
    """Whether it has as many file descriptors as it may. A connection would be lost."""
    connections: int = 0
    """Open connections, as of its last report."""
    received: int = 0
    """Connections that it had received by then."""
    placed: int = 0
    """Connections that were handed to it."""
    streams: int = 0

    @property
    def can_take(self) -> bool:
        """Whether it can get a connection."""
        return self.responsive and not self.short

    @property
    def total(self) -> int:
        """Its connections, those included that it has not reported yet."""
        return self.connections + self.placed - self.received


def in_order(shares: Iterable[Share]) -> list[Share]:
    """Return the workers that may get a connection, the best one first.

    As long as no worker is ready, those that are not get connections: they answer health checks.
    """
    usable = [share for share in shares if share.can_take]
    ready = [share for share in usable if share.ready]
    return sorted(ready or usable, key=lambda each: (each.total, each.streams, each.number))


def too_many(shares: Iterable[Share]) -> Share | None:
    """Return the worker that should give a connection away, or ``None``.

    A worker that was started again has none: gateways keep the connections that they have.
    """
    ready = [share for share in shares if share.ready and share.can_take]
    if len(ready) < 2 or any(share.placed != share.received for share in ready):
        return None
    most = max(ready, key=lambda each: (each.total, each.streams))
    least = min(ready, key=lambda each: each.total)
    return most if most.total - least.total >= 2 else None
