"""What peering counts, for ``/metrics``."""

from typing import NamedTuple

CAUSES = (
    "unauthenticated",
    "stale",
    "version",
    "malformed",
    "too-large",
    "flood",
    "too-many-peers",
    "too-many-streams",
)
"""Why streams or messages of peers were rejected, as labels of a metric."""


class PeerLoad(NamedTuple):
    """What all peers reported. It is 0 when all of them are forgotten."""

    requests: int
    """Requests in flight."""
    adapters: int
    """Adapters in flight, each counted on every pod: the slots in use."""
    held: int
    """Adapters that requests are held for."""


class PeerCounts:
    """Totals since the start."""

    def __init__(self) -> None:
        self.reports_sent = 0
        self.reports_received = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.rejected = dict.fromkeys(CAUSES, 0)
        """Streams and messages, by cause."""
        self.silent = 0
        """Peers that were forgotten because they were silent."""
        self.left = 0
        """Peers that said that they stop."""
