"""Which held adapters claim a free slot, and which peers know of these claims.

Rule 2 of ``slot_allotment`` says what a claim is good for. The claims of a peer follow from its
last share, so they are made once for each share, and in steps.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from lora_router.fleet.peer_shares import MISSED, PeerShares, Received
from lora_router.fleet.slot_allotment import Claim, place_of
from lora_router.steps import Steps, all_at_once

FitsOf = Callable[[str], Sequence[int] | None]
"""Returns the positions of the pods that list an adapter; ``None``: all. One that no pod lists
needs no slot yet."""

_AT_ONCE = 256
"""How many claims are made in one step."""


_Placed = tuple[tuple[int, float, str, str], Claim]
"""A claim with its place."""


class _Made(NamedTuple):
    """The claims of one peer."""

    received: Received
    """The share from which they follow."""
    claims: Sequence[_Placed]


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
        self._made: dict[str, _Made] = {}
        """By peer."""
        self.rows = 0
        """How many claims were looked at last."""

    def report(self, held: Iterable[str], number: int, now: float) -> None:
        """Record the adapters that this router holds, as in its share of this number."""
        self._claimed = {name: self._claimed.get(name, (number, now)) for name in held}

    def somebody_holds(self, talking: Collection[str]) -> bool:
        """Return whether this router or one of some peers holds an adapter."""
        received = self._shares.received
        return bool(self._claimed) or any(received[each].share.held for each in talking)

    def forget_made(self) -> None:
        """Make all claims anew: the positions of pods are others, or what they list."""
        self._made = {}

    def make(
        self, received: Received, positions: Mapping[str, int], fits_of: FitsOf
    ) -> Steps[None]:
        """Return the steps that make the claims of a peer. The arguments are those of ``of``."""
        share, into = received.share, self._made
        claims: list[_Placed] = []
        for number, adapter in enumerate(share.held, 1):
            claims += _claim(received, adapter, (), positions, fits_of)
            if number % _AT_ONCE == 0:
                yield
        into[share.router] = _Made(received, claims)

    def of(
        self,
        talking: Collection[str],
        positions: Mapping[str, int],
        fits_of: FitsOf,
        now: float,
    ) -> Collection[Claim]:
        """Return one claim for each held adapter: the one that is served first.

        Args:
            talking: The peers whose claims count.
            positions: The positions of pods by their names.
            fits_of: Returns which pods list an adapter.
            now: The time.
        """
        received = self._shares.received
        if len(self._made) > len(received):
            self._made = {name: made for name, made in self._made.items() if name in received}
        claims = {placed[1].adapter: placed for placed in self._own(positions, fits_of, now)}
        self.rows = len(claims)
        for name in sorted(talking):
            made = self._made.get(name)
            if made is None or made.received is not received[name]:
                all_at_once(self.make(received[name], positions, fits_of))
                made = self._made[name]
            self.rows += len(made.claims)
            for placed in made.claims:
                first = claims.get(placed[1].adapter)
                if first is None or placed[0] < first[0]:
                    claims[placed[1].adapter] = placed
        return [claim for _, claim in claims.values()]

    def _own(self, positions: Mapping[str, int], fits_of: FitsOf, now: float) -> Iterable[_Placed]:
        """Yield this router's claims."""
        own = self._shares.own
        if own is None:
            return
        heard_by: dict[tuple[int, float], Collection[str]] = {}
        for adapter in own.share.held:
            first = self._claimed[adapter]
            if first not in heard_by:
                heard_by[first] = self._acknowledged_by(*first, now)
            yield from _claim(own, adapter, heard_by[first], positions, fits_of)

    def _acknowledged_by(self, number: int, at: float, now: float) -> Collection[str]:
        """Return the peers that have acknowledged a claim that this router has reported.

        After ``MISSED`` share intervals all peers are assumed to know it.

        Args:
            number: The number of the first share that reported it.
            at: The time of that share.
            now: The time.
        """
        assert self._shares.own is not None  # noqa: S101 -- claims come from shares
        own = self._shares.own.share
        if now - at > MISSED * own.every:
            return self._shares.received.keys()
        return [
            name
            for name, received in self._shares.received.items()
            if received.share.heard.get(own.router, 0) >= number
        ]


def _claim(
    received: Received,
    adapter: str,
    heard_by: Collection[str],
    positions: Mapping[str, int],
    fits_of: FitsOf,
) -> tuple[_Placed, ...]:
    """Return the claim of a router to a slot for an adapter that it holds, if it needs one."""
    share, held, fits = received.share, received.share.held[adapter], fits_of(adapter)
    if share.has_sent(adapter, held) or not (fits is None or fits):
        return ()
    wanted = None if held.wanted is None else positions.get(held.wanted)
    since = received.at - held.seconds
    claim = Claim(since, share.router, adapter, wanted, heard_by, fits, held.priority)
    return ((place_of(claim), claim),)
