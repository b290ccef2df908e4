"""The last share of each router: those that peers sent, and this router's own.

Times are seconds on this router's monotonic clock. No router needs to know another router's clock.
"""

from dataclasses import dataclass

from lora_router.fleet.peer_ledgers import LedgerShare

MISSED = 3
"""How many shares a router may miss before it is treated as gone."""
QUIET = 4
"""After how many of this router's own shares without one of a peer it is allotted no slot.

TCP needs less time to send a lost packet again.
"""


@dataclass(frozen=True, slots=True)
class Received:
    """A share, and when it arrived or was sent."""

    share: LedgerShare
    at: float


class PeerShares:
    """The last share of each router. Only ``Peers`` writes to it."""

    __slots__ = ("own", "received")

    def __init__(self) -> None:
        self.received: dict[str, Received] = {}
        """By the names of the peers."""
        self.own: Received | None = None
        """``None``: this router has sent no share."""

    def talking(self, now: float) -> frozenset[str]:
        """Return the peers that sent a share lately: only they can leave slots to others.

        A peer that is silent for longer may be gone, or not hear this router. What it has in flight
        still counts until it is forgotten, but no slot waits for it, and its claims do not count.
        """
        if self.own is None:
            return frozenset(self.received)
        longest = QUIET * self.own.share.every
        return frozenset(
            name for name, received in self.received.items() if now - received.at <= longest
        )
