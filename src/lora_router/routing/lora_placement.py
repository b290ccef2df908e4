"""``lora-placement``: keeps the number of adapters in flight on each pod within the pod's slots.

Requests that find no slot wait in the router. A vLLM pod runs requests of at most ``max_lora``
adapters at once. Requests for one more adapter wait on the pod for whole generations of the other
adapters, and the router cannot move them any more. Therefore this algorithm controls the number of
distinct adapters in flight on each pod.

What a pod costs is a sum of terms, in requests of load (``terms``): its *load*, the price of
loading the *adapter*, and the prompt tokens that the pod lacks in its *prefix* cache and the best
other pod has.

The rules, for a request and the pods that may take it:

1. A request for a base model needs no slot. It goes to the pod with the lowest sum of load and
   prefix.
2. *Join*: a pod on which the adapter is in flight (according to this router's ledger, a peer's
   share, or the last scrape) takes the request without another slot. If there are several such
   pods, the one with the lowest sum of load and prefix takes it. While requests wait in the router,
   and where routers exchange shares, the pod that already runs more of the adapter's requests is
   cheaper, so that the other copies drain (``terms/copies.py``).
3. *Place*: a pod with a free slot takes the request at the price of loading the adapter, beside
   load and prefix. The price is zero if the adapter is in a slot there. It is that of a load if the
   adapter is in host memory, and highest if the adapter was never there. Slow loads that are under
   way on the pod come on top. A pod with one free slot
   costs at least the average load, unless the adapter is in flight elsewhere. The cheapest pod
   takes the request. Ties are broken by rendezvous hashing, so that routers agree without
   communication. If the cheapest pod would load the adapter from disk, the request may wait for
   a slot of a pod that has the adapter in host memory (``waiting_near``).
4. If both are possible, the request joins, unless placing is cheaper even with the price of a slot.
   That price rises as the fleet's free slots become few. It is not charged if the pod to join is
   overloaded; if few slots are free, badly so. Nor is it charged if the pod to join is busier than
   average, and the other one has fewer slots. An adapter of which one copy drains joins that copy
   rather than take a further slot.
   The cost of the load is shared by the adapter's requests in flight. A hot adapter
   therefore spreads as its load requires and as room allows, and shrinks again, because a pod that
   no request joins any more drains.
   If no slot is free, and only overloaded pods can be joined, the request waits for the next free
   slot for a short time (``spreading``).
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
7. A request that may not be held any longer, and finds no slot, goes to a pod where its adapter
   waits for one (``slot_closing.pod_without_slot``).

With each pick goes the number of prompt tokens that the pod lacks, so that they count as its work
(``fleet/pod_work.py``). A pod with an unknown number of slots counts as having room. The prices
were chosen with ``lora-router simulate`` on the scenarios that come with it, on seeds 1 to 5.
"""

import random
from collections.abc import Collection, Iterable, Sequence

from lora_router.fleet.adapter_beliefs import AWAY, IN_HOST_MEMORY, IN_SLOT
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import (
    AlgorithmOptions,
    Cost,
    Hold,
    InferenceRequest,
    Noted,
    Pick,
    Sight,
)
from lora_router.routing.candidates import FULL_LOOK, Candidates
from lora_router.routing.looks import PLACES, RUNNING
from lora_router.routing.slot_closing import hold_for_slot, in_flight, pod_without_slot
from lora_router.routing.spreading import HOLD_TO_SPREAD, is_near, may_wait_to_spread
from lora_router.routing.survey import (
    ALLOTTED,
    COPIES,
    EMPTIED,
    LAST,
    LOAD,
    NO_SLOT,
    SLOT,
    Survey,
    noted,
)
from lora_router.routing.terms.adapter import AdapterLoad, shared
from lora_router.routing.terms.base_cost import BaseCost
from lora_router.routing.terms.copies import drains_copies, reduction
from lora_router.routing.terms.load import Load
from lora_router.routing.terms.peers import TURN_PRICE
from lora_router.routing.terms.prefix import Prefix
from lora_router.routing.terms.slot import last_slot_price, slot_price, with_last_slots
from lora_router.routing.terms.weights import OPTION_NAMES, Weights
from lora_router.routing.waiting_near import hold_near
from lora_router.routing.who_waits import NOBODY_WAITS

_WHERE = {PLACES[place]: place for place in (IN_SLOT, IN_HOST_MEMORY, AWAY)}


class LoraPlacement:
    """The algorithm ``lora-placement``. The module's docstring lists its rules."""

    name = "lora-placement"
    option_names = OPTION_NAMES
    reads_prompts = True
    waits_for_room = True
    keeps_slots = True

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random: random.Random = options.rng
        self._takes_notes = options.takes_notes
        weights = Weights.read(options.extra)
        self._prefix_weight = weights.prefix_weight
        self._load = Load(weights, options.metrics_max_age)
        self._adapter_load = AdapterLoad(weights)

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick | Hold:
        """Return a pick or a hold by the rules above."""
        adapter = request.adapter
        waiting = candidates.waiting
        if (
            adapter is not None
            and waiting.held
            and request.may_hold
            and candidates.is_full_for(adapter)
        ):
            return hold_for_slot(request, candidates, now)
        prefix = Prefix(request, candidates, self._prefix_weight)
        looked_at = candidates.shortlist(adapter, self._random, prefix.cached)
        base = BaseCost(self._load, prefix, looked_at, now)
        if adapter is None:
            return self._cheapest(looked_at, base)
        found = self._survey(request, adapter, candidates, looked_at, base)
        if found.join is None and found.wish_cost + TURN_PRICE < found.place_cost:
            return hold_for_slot(request, candidates, now, found.wish)
        if found.join is None:
            if found.place is not None:
                return hold_near(request, adapter, found, candidates, now) or self._pick(
                    found.place, "placed", prefix, found
                )
        elif found.place is None:
            if may_wait_to_spread(request, found, candidates, now):
                return HOLD_TO_SPREAD
            return self._pick(found.join, "joined", prefix, found)
        else:
            found.is_held = request.held_since is not None and is_near(found.place, adapter)
            cost = found.spread_cost(candidates.load())
            if cost < found.spare_cost:
                return self._pick(found.place, "spread", prefix, found)
            # A copy that drains is used again before the adapter takes a further slot.
            spare = found.spare if cost < found.join_base else None
            return self._pick(spare or found.join, "joined", prefix, found)
        if request.may_hold:
            return hold_for_slot(request, candidates, now)
        pod = pod_without_slot(request, candidates, now)
        if pod is None:
            return hold_for_slot(request, candidates, now)
        return Pick(pod, "no-slot-in-time", prefix.lacking(pod), without_slot=True)

    def _pick(self, pod: PodView, reason: str, prefix: Prefix, found: Survey) -> Pick:
        # A survey of very many pods, which only a filter can cause, is not kept.
        is_small = len(found.joins) + len(found.open_pods) <= FULL_LOOK
        notes = found if self._takes_notes and is_small else None
        return Pick(pod, reason, prefix.lacking(pod), False, notes)

    def _survey(
        self,
        request: InferenceRequest,
        adapter: str,
        candidates: Candidates,
        looked_at: Sequence[PodView],
        base: BaseCost,
    ) -> Survey:
        waiting = candidates.waiting
        closed = waiting.closed_to(adapter)
        held = waiting.held and waiting.held_of(candidates.base_models)
        found = Survey()
        found.looked_at, found.joins = looked_at, (joins := [])
        least = float("inf")
        open_pods = []
        in_order = looked_at
        if looked_at is candidates:
            in_order = candidates.in_order(adapter)
            found.is_in_order = True
        # Calls are counted: this is done for each pod.
        load_of, now, each = base.load_of, base.now, base.each
        lacking = base.prefix.costs
        takes_notes = self._takes_notes
        if takes_notes and base.prefix.best:
            found.prefixes = lacking
        for pod in in_order:
            beliefs = pod.beliefs
            if adapter in pod.in_flight_adapters or adapter in beliefs.foreign_adapters:
                if pod not in closed and adapter not in beliefs.peers.closed:
                    cost = load_of(pod, now, each)
                    costs = _consider_to_join(adapter, pod, cost, base, found, held)
                    if takes_notes:
                        joins.append(costs)
                else:
                    found.emptied += (pod,)
                continue
            room = beliefs.free_slots
            if room is None or room > 0:
                cost = load_of(pod, now, each)
                if lacking:
                    cost += lacking[pod]
                open_pods.append((cost, pod))
                if cost < least:  # noqa: PLR1730 -- a call for each pod
                    least = cost
        found.open_pods = open_pods
        # No price is negative. If no pod costs less than the pod to join, none is cheaper.
        if found.join is None and len(open_pods) > 1:
            open_pods = with_last_slots(open_pods, candidates, base)
        found.with_last = open_pods
        if least < found.join_base:
            self._find_place(adapter, open_pods, found, now, any_slot=not request.may_hold)
        return found

    def _find_place(
        self,
        adapter: str,
        open_pods: Sequence[tuple[float, PodView]],
        found: Survey,
        now: float,
        *,
        any_slot: bool,
    ) -> None:
        """Find the cheapest pod with a free slot.

        Also find a cheaper one whose free slots are in another router's allotment.
        """
        place_cost = found.place_cost
        price_of = self._adapter_load.of
        prices: list[float] | None = None
        if self._takes_notes:
            found.prices = prices = []
        for base, pod in open_pods:
            if base > place_cost:
                continue
            cost = base + price_of(pod, adapter, now)
            if prices is not None:
                prices.append(cost)
            if cost > place_cost or (
                cost == place_cost and not found.is_first(adapter, pod, found.place)
            ):
                continue
            beliefs = pod.beliefs
            if any_slot or beliefs.peers.allotment is None or beliefs.may_take_slot(adapter):
                found.place, found.place_base, place_cost = pod, base, cost
            else:
                found.allotted += (pod,)
                if cost < found.wish_cost:
                    found.wish, found.wish_cost = pod, cost
        found.place_cost = place_cost

    def terms(
        self,
        request: InferenceRequest,
        sights: Sequence[Sight],
        candidates: Candidates | None,
        now: float,
    ) -> Sequence[Cost]:
        """Return what each candidate costs by rules 1 to 4 (``Explains``).

        What a further slot costs depends on the whole fleet. It is not known of past decisions, and
        neither is what pods had of the prompt.
        """
        adapter = request.adapter
        base = self._base_of(request, sights, candidates, now)
        bases = [
            {"requests": float(sight.requests)}
            if base is None or sight.view is None
            else base.parts(sight.view)
            for sight in sights
        ]
        if adapter is None:
            return [Cost(each) for each in bases]
        waiting = NOBODY_WAITS if candidates is None else candidates.waiting
        closed = waiting.closed_to(adapter)
        held = 0 if candidates is None else waiting.held_of(candidates.base_models)
        joins = [
            sight
            for sight in sights
            if sight.place == PLACES[RUNNING] and not _is_closed(sight, adapter, closed)
        ]
        fleet = None if candidates is None or not joins else candidates.load()
        spare = min(joins, key=lambda sight: _load_of(sight, base), default=None)
        sharing = sum(in_flight(sight.view, adapter) for sight in joins if sight.view is not None)
        average = 0.0
        if candidates is not None and base is not None and not joins:
            average = candidates.load().average * base.each
        costs = []
        for sight, each in zip(sights, bases, strict=True):
            view = sight.view
            if sight.place == PLACES[RUNNING]:
                costs.append(_cost_to_join(sight, adapter, each, closed, held))
            elif sight.free_slots is not None and sight.free_slots <= 0:
                costs.append(Cost(excluded=NO_SLOT))
            elif request.may_hold and view is not None and not view.beliefs.may_take_slot(adapter):
                costs.append(Cost(excluded=ALLOTTED))
            else:
                where = _WHERE.get(sight.place, AWAY)
                price = self._adapter_load.at(where, view)
                if view is not None:
                    price += self._adapter_load.before(view, now)
                terms = {**each, LOAD: shared(price, sharing)}
                if fleet is not None and spare is not None:
                    load = _load_of(spare, base)
                    terms[SLOT] = slot_price(fleet, spare.view, load, view)
                if average and base is not None and view is not None:
                    last = last_slot_price(view, average - base.load(view))
                    terms |= {LAST: last} if last else {}
                costs.append(Cost(terms))
        return costs

    def _base_of(
        self,
        request: InferenceRequest,
        sights: Sequence[Sight],
        candidates: Candidates | None,
        now: float,
    ) -> BaseCost | None:
        """Return what pods cost a request apart from its adapter. ``None``: that is past."""
        views = [sight.view for sight in sights if sight.view is not None]
        if candidates is None or not views:
            return None
        prefix = Prefix(request, candidates, self._prefix_weight)
        return BaseCost(self._load, prefix, views, now)

    def _cheapest(self, pods: Sequence[PodView], base: BaseCost) -> Pick:
        """Return the pick of the lowest sum of load and prefix. Ties are random."""
        prefix = base.prefix
        costs = loads = [base.load(pod) for pod in pods]
        if prefix.best:
            costs = [load + prefix.cost(pod) for load, pod in zip(loads, pods, strict=True)]
        least = min(costs)
        ties = [pod for pod, cost in zip(pods, costs, strict=True) if cost == least]
        pod = ties[0] if len(ties) == 1 else self._random.choice(ties)
        notes = (pods, loads, costs) if self._takes_notes and len(loads) <= FULL_LOOK else None
        return Pick(pod, "base-model", prefix.lacking(pod), False, notes)

    def recall(self, notes: object) -> Iterable[Noted]:
        """Return what candidates of a past decision cost (``Recalls``)."""
        return noted(notes)


def _load_of(sight: Sight, base: BaseCost | None) -> float:
    if base is None or sight.view is None:
        return sight.requests
    return base.load(sight.view) / base.each


def _consider_to_join(
    adapter: str, pod: PodView, load: float, base: BaseCost, found: Survey, held: int
) -> tuple[PodView, float, float]:
    """Compare a pod that could be joined with those before it.

    Return it with what it costs, and what is left of that so that other copies drain.
    """
    requests = in_flight(pod, adapter)
    found.in_flight += requests
    cost = load
    if lacking := base.prefix.costs:
        cost += lacking[pod]
    load /= base.each
    if load < found.spare_load:  # noqa: PLR1730 -- a call for each pod
        found.spare_load = load
    if cost <= found.spare_cost and (
        cost < found.spare_cost or found.is_first(adapter, pod, found.spare)
    ):
        found.spare, found.spare_cost = pod, cost
    reduced = cost - reduction(requests) if drains_copies(pod, held) else cost
    if reduced <= found.join_cost and (
        reduced < found.join_cost or found.is_first(adapter, pod, found.join)
    ):
        found.join, found.join_base, found.join_cost = pod, cost, reduced
    return pod, cost, reduced


def _is_closed(sight: Sight, adapter: str, closed: Collection[PodView]) -> bool:
    """Return whether the pod's slot gets no further requests, for an adapter that waits."""
    view = sight.view
    return view is not None and (view in closed or adapter in view.beliefs.peers.closed)


def _cost_to_join(
    sight: Sight, adapter: str, base: dict[str, float], closed: Collection[PodView], held: int
) -> Cost:
    view = sight.view
    if _is_closed(sight, adapter, closed):
        return Cost(excluded=EMPTIED)
    drains = view is not None and drains_copies(view, held)
    reduced = reduction(in_flight(view, adapter)) if view is not None and drains else 0.0
    return Cost({**base, COPIES: -reduced} if reduced else base)
