"""What ``lora-placement`` finds on the pods that it considers for a request.

A survey is kept with the decision as it is, because most decisions are never explained. What
pods cost at that moment is read from it only when somebody asks, or when the request is over and
abnormal (``noted``).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Cost, Noted
from lora_router.routing.candidates import FULL_LOOK, FleetLoad
from lora_router.routing.rendezvous import precedes
from lora_router.routing.terms.adapter import shared
from lora_router.routing.terms.base_cost import PREFIX
from lora_router.routing.terms.slot import slot_price

ALL = "load"
"""A term of a past decision: the whole load of a pod."""
LOAD, SLOT, LAST, COPIES = "adapter-load", "slot", "last-slot", "other-copies"
"""Further ones: the price of loading the adapter; that of another slot for an adapter in flight;
what a pod's last free slot costs beyond its load; the reduction that lets other copies of the
adapter drain."""
EMPTIED = "its slot is being emptied for an adapter that waits"
ALLOTTED = "its free slots are allotted to another router"
NO_SLOT = "no free slot"
RUNNING = "running"


@dataclass(slots=True)
class Survey:
    """The result of a survey of the candidates. Costs have the load and the prefix."""

    is_in_order: bool = False
    """Whether the pods are in the rendezvous order of the adapter."""
    join: PodView | None = None
    join_base: float = float("inf")
    """Its cost, without the reduction that lets other copies of the adapter drain."""
    join_cost: float = float("inf")
    spare: PodView | None = None
    """The cheapest pod of those that could be joined, without that reduction."""
    spare_cost: float = float("inf")
    spare_load: float = float("inf")
    """The least load of the pods that could be joined, as it is for a short prompt."""
    place: PodView | None = None
    place_cost: float = float("inf")
    place_base: float = 0.0
    """Its cost, without the load of the adapter."""
    in_flight: int = 0
    """The adapter's requests on the pods that it could join, of this router and its peers."""
    wish: PodView | None = None
    """A pod that is cheaper than ``place``, but whose free slots are in other routers' allotments.
    """
    wish_cost: float = float("inf")
    is_held: bool = False
    """Whether the request was held for a further slot, and ``place`` loads the adapter fast."""
    fleet: FleetLoad | None = None
    """The load of the fleet, if the price of another slot for an adapter in flight was compared."""
    looked_at: Sequence[PodView] = ()
    """The pods that were considered. The fields that follow are for explanations."""
    joins: Sequence[tuple[PodView, float, float]] = ()
    """The pods that could be joined, each with its cost and what is left of it so that other
    copies drain."""
    open_pods: Sequence[tuple[float, PodView]] = ()
    """The pods with a free slot, each with its cost."""
    with_last: Sequence[tuple[float, PodView]] = ()
    """The same in the same order, with what the last slots of pods cost."""
    prices: Sequence[float] = ()
    """The costs with the price of loading the adapter, of those pods that could be the cheapest
    (``_priced``), in the order of ``with_last``."""
    prefixes: Mapping[PodView, float] | None = None
    """The part of the costs that is for the prefix. ``None``: no pod has any of the prompt."""
    emptied: tuple[PodView, ...] = ()
    """The pods whose slot of the adapter is closed."""
    allotted: tuple[PodView, ...] = ()
    """Pods whose free slots are in other routers' allotments."""

    def is_first(self, adapter: str, pod: PodView, other: PodView | None) -> bool:
        """Return whether a pod is before one that was found earlier and costs the same.

        To compare these few takes less than to sort all pods.
        """
        return not self.is_in_order and other is not None and precedes(adapter, pod, other)

    def spread_cost(self, fleet: FleetLoad) -> float:
        """Return the cost of another slot for an adapter in flight, including that of its pod."""
        load = shared(self.place_cost - self.place_base, self.in_flight)
        self.fleet = fleet
        return self.place_base + load + self._slot_price(self.place, fleet)

    def _slot_price(self, pod: PodView | None, fleet: FleetLoad) -> float:
        return slot_price(fleet, self.spare, self.spare_load, pod, is_held=self.is_held)

    def noted(self) -> Iterator[Noted]:
        """Yield what each pod that was considered cost.

        A pod whose load alone cost more than the best one has no price of loading the adapter: it
        was never asked for.
        """
        told: set[PodView] = set()
        priced = self._priced()
        for pod, cost, reduced in self.joins:
            terms = self._terms(pod, cost)
            if reduced != cost:
                terms[COPIES] = reduced - cost
            told.add(pod)
            yield Noted(pod, Cost(terms), place=RUNNING)
        for (cost, pod), (with_last, _) in zip(self.open_pods, self.with_last, strict=True):
            told.add(pod)
            if pod in self.allotted:
                yield Noted(pod, Cost(excluded=ALLOTTED))
                continue
            terms = self._terms(pod, cost)
            if with_last != cost:
                terms[LAST] = with_last - cost
            whole = priced.get(pod)
            if whole is not None:
                terms[LOAD] = shared(whole - with_last, self.in_flight)
                if self.fleet is not None and (price := self._slot_price(pod, self.fleet)):
                    terms[SLOT] = price
            yield Noted(pod, Cost(terms))
        for pod in islice(self.looked_at, FULL_LOOK):
            if pod not in told:
                is_emptied = pod in self.emptied
                place = RUNNING if is_emptied else ""
                why = EMPTIED if is_emptied else NO_SLOT
                yield Noted(pod, Cost(excluded=why), place=place)

    def _priced(self) -> dict[PodView, float]:
        """Return the costs with the price of loading the adapter, by pod.

        A pod was asked for its price unless it cost more than the best one before it. So the prices
        alone say whose they are, and a decision does not have to note it.
        """
        found: dict[PodView, float] = {}
        least, prices = float("inf"), iter(self.prices)
        for base, pod in self.with_last:
            if base <= least:
                price = next(prices, None)
                if price is None:
                    break
                found[pod] = price
                if price < least and pod not in self.allotted:
                    least = price
        return found

    def _terms(self, pod: PodView, cost: float) -> dict[str, float]:
        prefix = 0.0 if self.prefixes is None else self.prefixes[pod]
        terms = {ALL: cost - prefix}
        if prefix:
            terms[PREFIX] = prefix
        return terms


def noted(notes: object) -> Iterable[Noted]:
    """Return what pods cost that a pick of ``lora-placement`` compared.

    Args:
        notes: ``Pick.notes``: a survey, or for a base model the pods, their loads, and their costs.
    """
    if isinstance(notes, Survey):
        return notes.noted()
    assert isinstance(notes, tuple)  # noqa: S101 -- there are no other notes
    return [
        Noted(pod, Cost({ALL: load} if cost == load else {ALL: load, PREFIX: cost - load}))
        for pod, load, cost in zip(*notes, strict=True)
    ]
