"""``lora-placement``: keeps the number of adapters in flight on each pod within the pod's slots.

Requests that find no slot wait in the router. A vLLM pod runs requests of at most ``max_lora``
adapters at once. Requests for one more adapter wait on the pod for whole generations of the other
adapters, and the router cannot move them any more. Therefore this algorithm controls the number of
distinct adapters in flight on each pod.

The rules, for a request and the pods that may take it:

1. A request for a base model needs no slot. It goes to the pod with the least load.
2. *Join*: a pod on which the adapter is in flight (according to this router's ledger, a peer's
   share, or the last scrape) takes the request without another slot. If there are several such
   pods, the one with the least load takes it. Where routers exchange shares, two routers may have
   placed the adapter at the same time. In that case prefer the pod that already runs more of the
   adapter's requests, so that the other copy drains.
3. *Place*: a pod with a free slot takes the request at a price, counted in requests of load. The
   price is zero if the adapter is resident there. It is the cost of a load (as the pod reports it,
   or as configured) if the adapter is in host memory, and it is highest if the adapter was never
   there. The cheapest pod takes the request. Ties are broken by rendezvous hashing, so that routers
   agree without communication. The longer the prompt, the less a load matters in comparison, and
   the lower the prices.
4. If both are possible, the request joins, unless placing is cheaper even with the price of a slot.
   That price rises as the fleet's free slots become few. It is not charged if the pod to join is
   overloaded. An adapter of which one copy drains joins that copy rather than take a further slot.
   The cost of the load is shared by the adapter's requests in flight. A hot adapter
   therefore spreads as its load requires and as room allows, and shrinks again, because a pod that
   no request joins any more drains.
5. If neither is possible, the request is *held*: it waits in the router, which asks again whenever
   a request ends, in order of arrival. A request is also held, for one or two exchanges, if placing
   is much cheaper on a pod whose free slots are in another router's allotment
   (``fleet/slot_allotment.py``).
6. For an adapter that has been held for ``PATIENCE_SECONDS``, a slot is closed (``slot_closing``):
   of all slots, the one with the fewest requests in flight receives no further requests of the
   adapter in it. Those requests join elsewhere or wait. An adapter therefore waits for a slot no
   longer than ``PATIENCE_SECONDS`` plus the longest open generation in that slot, unless more
   adapters wait this long than the fleet has slots. In that case the wait grows by one round of
   generations for each time that the waiting adapters fill the fleet.
7. A request that may not be held any longer goes to a pod on which its adapter is in flight, or
   otherwise to the pod with the least load.

Load means this router's requests in flight, plus the requests that peers reported or that the last
scrape showed beyond them. A pod with an unknown number of slots counts as having room. The prices
were chosen with ``lora-router simulate`` on the scenarios that come with it.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lora_router.fleet.adapter_beliefs import AWAY, IN_HOST_MEMORY, IN_SLOT
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import (
    AlgorithmOptions,
    Cost,
    Hold,
    InferenceRequest,
    Pick,
    Sight,
)
from lora_router.routing.candidates import Candidates, FleetLoad
from lora_router.routing.looks import PLACES, RUNNING
from lora_router.routing.rendezvous import rendezvous_order
from lora_router.routing.slot_closing import hold_for_slot, in_flight

LOAD_SECONDS = 0.08
"""Seconds that it takes to load an adapter from host memory into a slot, if neither the pod nor the
option ``adapter_load_seconds`` provides the value. The whole batch stalls during the load."""
LOAD_PRICE = 200.0
"""Price of a second of loading, in requests of load. A lower value makes adapters move between pods
and be loaded again and again. A higher value makes pods with popular adapters busier."""
COLD_FACTOR = 4.0
"""Factor on the price of a load if the pod never had the adapter. The adapter may have to be
fetched from disk or from a remote store first."""
HIGHEST_PRICE = 128.0
"""Upper bound of the price of a load, however long the load takes. Without a bound, an expensive
load would be avoided no matter how busy the pods are that have the adapter."""
SHARED_BY = 8.0
"""With this many of an adapter's requests in flight, the price of loading it on another pod is
halved: the load is paid once and serves all of them. A lower value makes hot adapters spread
sooner, with more loads. A higher value makes their pods busier."""
SLOT_PRICE = 24.0
"""Price of another slot for an adapter in flight, when half of the fleet's slots are in use. A
lower value makes hot adapters take slots that others soon need. A higher value makes pods with
popular adapters busier."""
OVERLOAD = 3.0
"""A pod is overloaded if it has more than this many times the average load. If the pod to join is
overloaded, a slot costs nothing. A lower value makes hot adapters take the last slots, so that rare
adapters wait. A higher value makes pods with hot adapters fall behind near the fleet's capacity,
keep their slots for longer, and fall further behind."""
_A_FEW = 8
"""Requests that are added to this threshold, so that the first requests in an idle fleet do not
overload its pods."""
TURN_PRICE = 8.0
"""Price of waiting for a slot in another router's allotment. A lower value makes requests wait to
avoid a load that takes no longer than the wait. A higher value makes pods fetch adapters from a
remote store although another pod has them."""
TWIN_PRICE = 2.0
"""Reduction of a pod's load in the choice of a pod to join, for each request of the adapter on that
pod, up to ``TWIN_REQUESTS`` requests. With a lower value, adapters that two routers placed at the
same time keep two slots. A higher value makes their pods busier, and for longer."""
TWIN_REQUESTS = 12
PROMPT_BYTES = 2048.0
"""A body of this length halves the prices. A long prompt stalls its pod more than a load does."""


REQUESTS, LOAD, SLOT, COPIES = "requests", "adapter-load", "slot", "other-copies"
"""The terms of the cost of a pod: its load; the price of loading the adapter; that of another slot
for an adapter in flight; the reduction that lets other copies of the adapter drain."""
_WHERE = {PLACES[place]: place for place in (IN_SLOT, IN_HOST_MEMORY, AWAY)}


@dataclass(slots=True)
class _Survey:
    """The result of a survey of the candidates."""

    join: PodView | None = None
    join_load: float = float("inf")
    join_cost: float = float("inf")
    """The load, minus the reduction that lets other copies of the adapter drain."""
    spare: PodView | None = None
    """The pod with the least load of those that could be joined."""
    spare_load: float = float("inf")
    place: PodView | None = None
    place_cost: float = float("inf")
    place_load: int = 0
    in_flight: int = 0
    """The adapter's requests on the pods that it could join, of this router and its peers."""
    wish: PodView | None = None
    """A pod that is cheaper than ``place``, but whose free slots are in other routers' allotments.
    """
    wish_cost: float = float("inf")
    last_resort: PodView | None = None

    def spread_cost(self, weight: float, fleet: FleetLoad) -> float:
        """Return the cost of another slot for an adapter in flight, including the load of its pod.

        The price of loading is shared by the requests that the load will serve, assumed to be as
        many as are in flight now. The price of the slot rises as fewer slots are left.
        """
        load = _shared(self.place_cost - self.place_load, self.in_flight)
        return self.place_load + load + weight * _slot_price(fleet, self.spare_load)


def _weight(size: int) -> float:
    """Return by what all prices are multiplied for a body of a length in bytes."""
    return 1.0 / (1.0 + size / PROMPT_BYTES)


def _shared(price: float, in_flight: int) -> float:
    """Return the price of loading an adapter on a further pod, by its requests in flight."""
    return price / (1.0 + in_flight / SHARED_BY)


def _slot_price(fleet: FleetLoad, spare_load: float) -> float:
    """Return the price of a further slot for an adapter in flight.

    Args:
        fleet: The load and slots of the fleet.
        spare_load: The load of the least loaded pod that the request could join.
    """
    if spare_load > OVERLOAD * fleet.in_flight / fleet.pods + _A_FEW:
        return 0.0
    return SLOT_PRICE * (fleet.slots - fleet.free_slots) / max(fleet.free_slots, 1)


def _reduction(weight: float, here: int) -> float:
    """Return by what a pod to join is cheaper that runs some requests of the adapter already."""
    return weight * TWIN_PRICE * min(here, TWIN_REQUESTS)


def _prices(load_seconds: float) -> tuple[float, float, float]:
    """Return the prices of loading, indexed by where the adapter is."""
    price = LOAD_PRICE * load_seconds
    return 0.0, min(price, HIGHEST_PRICE), min(COLD_FACTOR * price, HIGHEST_PRICE)


def _load_seconds(extra: Mapping[str, str]) -> float:
    written = extra.get("adapter_load_seconds", LOAD_SECONDS)
    try:
        seconds = float(written)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= 60.0:
        raise ValueError(
            f"adapter_load_seconds={written}: must be a number of seconds, from 0 to 60"
        )
    return seconds


class LoraPlacement:
    """The algorithm ``lora-placement``. The module's docstring lists its rules."""

    name = "lora-placement"
    option_names = ("adapter_load_seconds",)

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random: random.Random = options.rng
        self._prices = _prices(_load_seconds(options.extra))

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick | Hold:
        """Return a pick or a hold by the rules above."""
        adapter = request.adapter
        if adapter is None:
            pods = candidates.shortlist(None, self._random)
            return Pick(self._least_loaded(pods), "base-model")
        if candidates.waiting.held and request.may_hold and candidates.is_full_for(adapter):
            return hold_for_slot(request, candidates, now)
        weight = _weight(request.size)
        found = self._survey(adapter, candidates, weight, any_slot=not request.may_hold)
        if found.join is None and found.wish_cost + weight * TURN_PRICE < found.place_cost:
            return hold_for_slot(request, candidates, now, found.wish)
        if found.join is None:
            if found.place is not None:
                return Pick(found.place, "placed")
        elif found.place is None:
            return Pick(found.join, "joined")
        else:
            cost = found.spread_cost(weight, candidates.load())
            if cost < found.spare_load:
                return Pick(found.place, "spread")
            # A copy that drains is used again before the adapter takes a further slot.
            spare = found.spare if cost < found.join_load else None
            return Pick(spare or found.join, "joined")
        if request.may_hold:
            return hold_for_slot(request, candidates, now)
        pod = found.last_resort or self._least_loaded(candidates)
        return Pick(pod, "no-slot-in-time")

    def _survey(
        self, adapter: str, candidates: Candidates, weight: float, *, any_slot: bool
    ) -> _Survey:
        looked_at = candidates.shortlist(adapter, self._random)
        waiting = candidates.waiting
        closed = waiting.closed_to(adapter) if waiting.held else ()
        found = _Survey()
        last_resort_load = least = float("inf")
        open_pods = []
        in_order = (
            candidates.in_order(adapter)
            if looked_at is candidates
            else rendezvous_order(adapter, looked_at)
        )
        for pod in in_order:
            beliefs = pod.beliefs
            load = pod.in_flight + beliefs.foreign_requests
            if adapter in pod.in_flight_adapters or adapter in beliefs.foreign_adapters:
                if load < last_resort_load:
                    found.last_resort, last_resort_load = pod, load
                if pod not in closed and adapter not in beliefs.peers.closed:
                    self._consider_to_join(adapter, pod, load, weight, found)
                continue
            room = beliefs.free_slots
            if room is None or room > 0:
                open_pods.append((load, pod))
                if load < least:  # noqa: PLR1730 -- a call for each pod
                    least = load
        # No price is negative. If no pod has less load than the pod to join, none is cheaper.
        if least < found.join_load:
            self._find_place(adapter, open_pods, weight, found, any_slot=any_slot)
        return found

    @staticmethod
    def _consider_to_join(
        adapter: str, pod: PodView, load: int, weight: float, found: _Survey
    ) -> None:
        here = in_flight(pod, adapter)
        found.in_flight += here
        if load < found.spare_load:
            found.spare, found.spare_load = pod, load
        cost: float = load
        if pod.beliefs.peers.allotment is not None:
            cost -= _reduction(weight, here)
        if cost < found.join_cost:
            found.join, found.join_load, found.join_cost = pod, load, cost

    def _find_place(
        self,
        adapter: str,
        open_pods: Sequence[tuple[int, PodView]],
        weight: float,
        found: _Survey,
        *,
        any_slot: bool,
    ) -> None:
        """Find the cheapest pod with a free slot.

        Also find a cheaper one whose free slots are in another router's allotment.
        """
        place_cost = found.place_cost
        configured = self._prices
        for load, pod in open_pods:
            if load >= place_cost:
                continue
            beliefs = pod.beliefs
            cost: float = load
            where = beliefs.where(adapter)
            if where != IN_SLOT:
                metrics = pod.metrics
                seconds = None if metrics is None else metrics.adapter_load_seconds
                cost += weight * (configured if seconds is None else _prices(seconds))[where]
                if cost >= place_cost:
                    continue
            if any_slot or beliefs.peers.allotment is None or beliefs.may_take_slot(adapter):
                found.place, found.place_load, place_cost = pod, load, cost
            elif cost < found.wish_cost:
                found.wish, found.wish_cost = pod, cost
        found.place_cost = place_cost

    def terms(
        self,
        request: InferenceRequest,
        sights: Sequence[Sight],
        candidates: Candidates | None,
        _now: float,
    ) -> Sequence[Cost]:
        """Return what each candidate costs by rules 2 to 4 (``Explains``).

        What a further slot costs depends on the whole fleet. It is not known of past decisions.
        """
        adapter = request.adapter
        if adapter is None:
            return [Cost({REQUESTS: sight.requests}) for sight in sights]
        weight = _weight(request.size)
        closed = () if candidates is None else candidates.waiting.closed_to(adapter)
        joins = [
            sight
            for sight in sights
            if sight.place == PLACES[RUNNING] and not _is_closed(sight, adapter, closed)
        ]
        more: dict[str, float] = {}
        if joins and candidates is not None:
            spare_load = min(sight.requests for sight in joins)
            more = {SLOT: weight * _slot_price(candidates.load(), spare_load)}
        sharing = sum(in_flight(sight.view, adapter) for sight in joins if sight.view is not None)
        costs = []
        for sight in sights:
            view = sight.view
            if sight.place == PLACES[RUNNING]:
                costs.append(_cost_to_join(sight, adapter, weight, closed))
            elif sight.free_slots is not None and sight.free_slots <= 0:
                costs.append(Cost(excluded="no free slot"))
            elif request.may_hold and view is not None and not view.beliefs.may_take_slot(adapter):
                costs.append(Cost(excluded="its free slots are allotted to another router"))
            else:
                load = _shared(weight * self._price(sight), sharing)
                costs.append(Cost({REQUESTS: sight.requests, LOAD: load, **more}))
        return costs

    def _price(self, sight: Sight) -> float:
        """Return the price of loading the adapter on a pod, for a short prompt."""
        metrics = None if sight.view is None else sight.view.metrics
        seconds = None if metrics is None else metrics.adapter_load_seconds
        prices = self._prices if seconds is None else _prices(seconds)
        return prices[_WHERE.get(sight.place, AWAY)]

    def _least_loaded(self, candidates: Sequence[PodView]) -> PodView:
        loads = [pod.in_flight + pod.beliefs.foreign_requests for pod in candidates]
        least = min(loads)
        ties = [pod for pod, load in zip(candidates, loads, strict=True) if load == least]
        return ties[0] if len(ties) == 1 else self._random.choice(ties)


def _is_closed(sight: Sight, adapter: str, closed: Collection[PodView]) -> bool:
    """Return whether the pod's slot gets no further requests, for an adapter that waits."""
    view = sight.view
    return view is not None and (view in closed or adapter in view.beliefs.peers.closed)


def _cost_to_join(sight: Sight, adapter: str, weight: float, closed: Collection[PodView]) -> Cost:
    view = sight.view
    if _is_closed(sight, adapter, closed):
        return Cost(excluded="its slot is being emptied for an adapter that waits")
    if view is None or view.beliefs.peers.allotment is None:
        return Cost({REQUESTS: sight.requests})
    reduction = _reduction(weight, in_flight(view, adapter))
    return Cost({REQUESTS: sight.requests, COPIES: -reduction})
