"""Which adapters wait for slots at peers, and how many of them got one.

Routers share the slots of a fleet, so an adapter that waits here is served after those that have
waited for longer at peers. An adapter that this router holds as well is left out, as long as a peer
holds it: it is served with this router's own, and needs no other slot.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.slot_allotment import Claim

Listener = Callable[[Mapping[BaseModels, int]], None]
"""Receives how many adapters of each base model got a slot at peers since it was called last."""

_NONE: Mapping[int, int] = {}


class WaitingAtPeers:
    """The adapters that wait for slots at peers, as of the last shares."""

    def __init__(self) -> None:
        """Know of none."""
        self.on_change: Listener = _ignore
        """Called after adapters got slots, and when the first begins or the last ceases to wait."""
        self._counts: dict[BaseModels, dict[int, int]] = {}
        """By base models and priority."""
        self._places: dict[str, tuple[int, int]] = {}
        """For each of them, its priority, and how many of its base model are served before it, at
        any router."""
        self._bases: dict[str, BaseModels] = {}
        """For each adapter that waits at any router, what it is an adapter of."""
        self._own: set[str] = set()
        """Those of them that waited here as well."""
        self._peers: frozenset[str] = frozenset()

    def somebody_waits(self, bases: BaseModels) -> bool:
        """Return whether an adapter of some base models waits at a peer, and not here."""
        return bases in self._counts

    def count_of(self, bases: BaseModels, priority: int) -> int:
        """Return how many adapters wait at peers, and not here.

        Args:
            bases: Their base models.
            priority: The lowest priority that counts.
        """
        counts = self._counts.get(bases, _NONE)
        return sum(number for each, number in counts.items() if each >= priority)

    def before(self, adapter: str, priority: int) -> int | None:
        """Return how many are served before an adapter that waits at a peer.

        ``None``: it does not wait at a peer with this priority or a higher one, or it waits here as
        well.
        """
        place = self._places.get(adapter)
        return None if place is None or place[0] < priority else place[1]

    def put(
        self,
        claims: Iterable[Claim],
        own: Collection[str],
        peers: frozenset[str],
        bases_of: Callable[[str], BaseModels],
    ) -> None:
        """Take note of the last shares.

        Args:
            claims: One claim for each adapter that waits, those first that are served first.
            own: The adapters that wait here.
            peers: The peers whose claims count. If one of the last call is missing, what is no
                longer claimed may have been its, and does not count as served.
            bases_of: Returns the base models of the pods that list an adapter.
        """
        bases: dict[str, BaseModels] = {}
        places: dict[str, tuple[int, int]] = {}
        everywhere: dict[BaseModels, int] = {}
        counts: dict[BaseModels, dict[int, int]] = {}
        mine: set[str] = set()
        for claim in claims:
            adapter, priority = claim.adapter, claim.priority
            base = bases[adapter] = self._bases.get(adapter) or bases_of(adapter)
            place = everywhere.get(base, 0)
            everywhere[base] = place + 1
            if adapter in own or adapter in self._own:
                mine.add(adapter)
            else:
                places[adapter] = priority, place
                of_base = counts.setdefault(base, {})
                of_base[priority] = of_base.get(priority, 0) + 1
        gone = self._places.keys() - bases.keys() if peers >= self._peers else ()
        served = Counter(self._bases[adapter] for adapter in gone)
        changed = served or counts.keys() != self._counts.keys()
        self._bases, self._places, self._counts = bases, places, counts
        self._own, self._peers = mine, peers
        if changed:
            self.on_change(served)


def _ignore(_served: Mapping[BaseModels, int]) -> None:
    """Do nothing."""
