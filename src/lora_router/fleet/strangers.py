"""What strangers have in flight on one pod: routers that send no shares, and direct clients.

Only scrapes tell of them. They are what the last scrape showed beyond all known ledgers.

- An adapter whose last request ended after the previous scrape is not attributed to strangers,
  because the scrape may have shown only that request's end.
- An adapter that a peer reports shortly after the scrape is not attributed to strangers either,
  because its share was still on its way.
- If scrapes fail for too long, strangers are forgotten.
"""

from collections.abc import Collection, Iterable

from lora_router.fleet.pod_peers import PodPeers

_NONE: frozenset[str] = frozenset()


class Strangers:
    """The adapters and requests of strangers, as of the last scrape. Only the beliefs write it."""

    __slots__ = ("_not_own", "adapters", "requests")

    def __init__(self) -> None:
        self.adapters = _NONE
        self.requests = 0
        self._not_own = 0
        """The requests that the last scrape showed and that this router had not sent."""

    def scraped(
        self,
        active: frozenset[str],
        own: Iterable[Collection[str]],
        not_own: int,
        peers: PodPeers,
    ) -> None:
        """Apply a scrape.

        Args:
            active: The adapters that it shows.
            own: Adapters that are known without it.
            not_own: How many more requests it shows than this router had in flight.
            peers: What peers have in flight.
        """
        self._not_own = max(0, not_own)
        self.requests = max(0, self._not_own - peers.requests)
        self.adapters = active.difference(*own, peers.adapters) if active else _NONE

    def explain(self, adapters: Collection[str], requests: int = 0) -> None:
        """Take away what a peer has reported since the scrape."""
        self.adapters = self.adapters.difference(adapters)
        self.requests = max(0, self.requests - max(0, requests))

    def take_over(self, adapters: Collection[str], peers: PodPeers) -> None:
        """Add what the scrape showed of a peer that is forgotten.

        Args:
            adapters: The adapters.
            peers: What the other peers have in flight.
        """
        self.adapters = self.adapters.union(adapters)
        self.requests = max(0, self._not_own - peers.requests)
