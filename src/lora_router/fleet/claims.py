"""Which held adapters claim a free slot, and which peers know of these claims.

Rule 2 of ``slot_allotment`` says what a claim is good for.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from lora_router.fleet.peer_shares import MISSED, PeerShares
from lora_router.fleet.slot_allotment import Claim, place_of


class Claims:
    """The claims that follow from the last shares."""

    def __init__(self, shares: PeerShares) -> None:
        """Create the claims of routers that hold nothing.

        Args:
            shares: The last share of each router.
        """
        self._shares = shares
        self._claimed: dict[str, tuple[int, float]] = {}
        """The adapters that this router holds, each with the number and time of the first of its
        shares that reported it."""

    def report(self, held: Iterable[str], number: int, now: float) -> None:
        """Record the adapters that this router holds, as in its share of this number."""
        self._claimed = {name: self._claimed.get(name, (number, now)) for name in held}

    def somebody_holds(self, talking: Collection[str]) -> bool:
        """Return whether this router or one of some peers holds an adapter."""
        received = self._shares.received
        return bool(self._claimed) or any(received[each].share.held for each in talking)

    def of(
        self,
        talking: Collection[str],
        positions: Mapping[str, int],
        fits_of: Callable[[str], Sequence[int] | None],
        now: float,
    ) -> Collection[Claim]:
        """Return one claim for each held adapter: the one that is served first.

        Args:
            talking: The peers whose claims count.
            positions: The positions of pods by their names.
            fits_of: Returns the positions of the pods that list an adapter; ``None``: all. One that
                no pod lists needs no slot yet.
            now: The time.
        """
        claims: dict[str, Claim] = {}
        own, peers = self._shares.own, self._shares.received
        for received in (own, *(peers[each] for each in sorted(talking))):
            if received is None:
                continue
            for adapter, held in received.share.held.items():
                fits = fits_of(adapter)
                if received.share.has_sent(adapter, held) or not (fits is None or fits):
                    continue
                heard_by = self._acknowledged_by(adapter, now) if received is own else ()
                wanted = None if held.wanted is None else positions.get(held.wanted)
                since = received.at - held.seconds
                router, priority = received.share.router, held.priority
                claim = Claim(since, router, adapter, wanted, heard_by, fits, priority)
                if adapter not in claims or place_of(claim) < place_of(claims[adapter]):
                    claims[adapter] = claim
        return claims.values()

    def _acknowledged_by(self, adapter: str, now: float) -> Collection[str]:
        """Return the peers that have acknowledged that this router holds an adapter.

        After ``MISSED`` share intervals all peers are assumed to know it.
        """
        assert self._shares.own is not None  # noqa: S101 -- claims come from shares
        own = self._shares.own.share
        number, at = self._claimed[adapter]
        if now - at > MISSED * own.every:
            return self._shares.received.keys()
        return [
            name
            for name, received in self._shares.received.items()
            if received.share.heard.get(own.router, 0) >= number
        ]
