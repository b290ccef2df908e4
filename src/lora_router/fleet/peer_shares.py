"""The last share of each router: those that peers sent, and this router's own.

Times are seconds on this router's monotonic clock. No router needs to know another router's clock.
"""

from dataclasses import dataclass

from lora_router.fleet.peer_ledgers import LedgerShare

MISSED = 3
"""How many shares a router may miss before it is treated as gone."""
QUIET = 4
"""After how many of this router's own shares without one of a peer it is allotted no slot.

TCP needs less time to send a lost packet again. A router that stalled has sent no shares meanwhile,
so that no peer is quiet because of that.
"""


@dataclass(frozen=True, slots=True)
class Received:
    """A share, and when it arrived or was sent."""

    share: LedgerShare
    at: float
    own: int = 0
    """The number of this router's own last share at that time."""


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
        return frozenset(
            name for name, received in self.received.items() if not self.is_quiet(received, now)
        )

    def is_quiet(self, received: Received, now: float) -> bool:
        """Return whether a peer whose last share this is should have sent another one by now."""
        own = self.own
        return (
            own is not None
            and now - received.at > QUIET * own.share.every
            and own.share.number - received.own >= QUIET
        )
