"""``lora-placement``: no pod juggles more adapters than it has slots; who finds none waits here.

A vLLM pod runs requests of at most ``max_lora`` adapters at once. One adapter more, and its
requests wait on the pod for whole generations of the others, where nobody can help them any more.
So the number of distinct adapters in flight on each pod is what this algorithm controls.

The rules, for a request and the pods that may take it:

1. A request for a base model needs no slot: the pod with the least load.
2. *Join*: a pod on which the adapter is in flight (by this router's ledger, another's, or the last
   scrape) takes it without a further slot. Of several, the one with the least load. But where
   routers tell each other of their ledgers, two may have placed it at once: there, the more of its
   requests a pod has, the rather, so that others drain.
3. *Place*: a pod with a slot to spare takes it for a price, counted in requests of load: nothing if
   the adapter is resident there, what a load costs (the pod's own word, or as configured) if it is
   in host memory, most if it never was there. Of several, the cheapest; ties go by rendezvous
   hashing, so that routers agree without talking. The longer the prompt, the less a load matters
   beside it, and the smaller the prices.
4. Both are possible: join, unless placing is cheaper even with the price of a slot, which grows as
   the fleet's free slots become few, unless the pod to join is overloaded. What the load costs is
   shared by the requests in flight. So a hot adapter spreads as its load asks and room allows, and
   shrinks back, since what is not joined any more drains.
5. Neither is possible: *hold*. The request waits in the router and is asked for again whenever a
   request ends, first come first served. So it does, for one or two tellings, where placing is much
   cheaper on a pod whose free slots are another router's to take (``fleet/slot_turns.py``).
6. An adapter that has been held for ``PATIENCE_SECONDS`` gets a slot freed (``slot_closing``): of
   all slots, the one with the fewest requests in flight is closed to further requests of the
   adapter that has it; these join elsewhere or wait their turn. So an adapter is kept from a slot
   for no longer than that time and the longest generation that is open in the slot, unless more
   adapters wait so than the fleet has slots: then for one more round of generations for each time
   that they fill it.
7. It may not be held any longer: where the adapter is in flight, else the pod with the least load.

Load is this router's requests in flight, and what other routers told or the last scrape showed
beyond them. A pod whose slots are unknown has room. The prices were chosen with ``lora-router
simulate`` on the scenarios that come with it.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lora_router.fleet.adapter_beliefs import IN_SLOT
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, Hold, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates, FleetLoad
from lora_router.routing.rendezvous import rendezvous_order
from lora_router.routing.slot_closing import hold_for_slot, in_flight

LOAD_SECONDS = 0.08
"""Of an adapter, from host memory into a slot, where neither the pod nor the option
``adapter_load_seconds`` says. The whole batch stands still meanwhile."""
LOAD_PRICE = 200.0
"""Price of a second of loading. Less: adapters wander between pods and are loaded again and again.
More: pods with popular adapters are busier."""
COLD_FACTOR = 4.0
"""An adapter that the pod never had may have to be fetched from disk or from afar first."""
HIGHEST_PRICE = 128.0
"""Of a load, however long: past it, nothing is too busy to be spared one."""
SHARED_BY = 8.0
"""So many requests in flight of an adapter halve the price of loading it once more: it is paid once
and serves them all. Less: hot adapters spread sooner, with more loads. More: their pods are busier.
"""
SLOT_PRICE = 24.0
"""Price of a further slot for an adapter in flight, when half of the fleet's slots are in use.
Less: hot adapters take slots that others soon need. More: pods with popular adapters are busier."""
OVERLOAD = 3.0
"""A pod with so many times the average load is past waiting for cheap slots. Less: hot adapters
take the last slots, and rare ones wait. More: near the fleet's capacity, pods with hot adapters
fall behind, keep their slots for longer, and fall further behind.
"""
_A_FEW = 8
"""Requests beyond that, so that an idle fleet's pods are not overloaded by their first ones."""
TURN_PRICE = 32.0
"""Price of waiting for this router's turn. Less: requests wait to be spared a load that takes no
longer. More: adapters are fetched from afar although a pod has them."""
TWIN_PRICE = 2.0
"""So much less load, for the choice of a pod to join, for each request of the adapter there, up to
``TWIN_REQUESTS``. Less: adapters that two routers placed at once keep two slots. More: their pods
are busier, and for longer."""
TWIN_REQUESTS = 12
PROMPT_BYTES = 2048.0
"""A body of this length halves the prices: a long prompt stalls its pod more than a load does."""


@dataclass(slots=True)
class _Survey:
    """What a look over the candidates found."""

    join: PodView | None = None
    join_load: float = float("inf")
    join_cost: float = float("inf")
    """The load, less what speaks for draining the others."""
    place: PodView | None = None
    place_cost: float = float("inf")
    place_load: int = 0
    in_flight: int = 0
    """Requests of the adapter on the pods that it could join, of all routers that tell."""
    wish: PodView | None = None
    """A pod that is cheaper than ``place``, but whose free slots are other routers' to take."""
    wish_cost: float = float("inf")
    last_resort: PodView | None = None

    def spread_cost(self, weight: float, fleet: FleetLoad) -> float:
        """Return what a further slot for an adapter in flight costs, with the load it finds there.

        The load is shared by the requests that it will serve, as many as are in flight now. The
        slot costs the more the fewer are left.
        """
        load = (self.place_cost - self.place_load) / (1.0 + self.in_flight / SHARED_BY)
        used = fleet.slots - fleet.free_slots
        slot = SLOT_PRICE * used / max(fleet.free_slots, 1)
        if self.join_load > OVERLOAD * fleet.in_flight / fleet.pods + _A_FEW:
            slot = 0.0
        return self.place_load + load + weight * slot


def _prices(load_seconds: float) -> tuple[float, float, float]:
    """Return what loading costs, by where the adapter is."""
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
    """See the head of this file for its rules."""

    name = "lora-placement"
    option_names = ("adapter_load_seconds",)

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random: random.Random = options.rng
        self._prices = _prices(_load_seconds(options.extra))

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick | Hold:
        """Choose, or hold."""
        adapter = request.adapter
        if adapter is None:
            pods = candidates.shortlist(None, self._random)
            return Pick(self._least_loaded(pods), "base-model")
        if candidates.waiting.held and request.may_hold and candidates.is_full_for(adapter):
            return hold_for_slot(request, candidates, now)
        weight = 1.0 / (1.0 + request.size / PROMPT_BYTES)
        found = self._survey(adapter, candidates, weight, any_slot=not request.may_hold)
        if found.join is None and found.wish_cost + weight * TURN_PRICE < found.place_cost:
            return hold_for_slot(request, candidates, now, found.wish)
        if found.place is not None and (
            found.join is None or found.spread_cost(weight, candidates.load()) < found.join_load
        ):
            return Pick(found.place, "spread" if found.join is not None else "placed")
        if found.join is not None:
            return Pick(found.join, "joined")
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
                    self._consider_to_join(adapter, pod, load, found)
                continue
            room = beliefs.free_slots
            if room is None or room > 0:
                open_pods.append((load, pod))
                if load < least:  # noqa: PLR1730 -- a call for each pod
                    least = load
        # No price is negative: where all have as much load as the pod to join, none is cheaper.
        if least < found.join_load:
            self._find_place(adapter, open_pods, weight, found, any_slot=any_slot)
        return found

    @staticmethod
    def _consider_to_join(adapter: str, pod: PodView, load: int, found: _Survey) -> None:
        here = in_flight(pod, adapter)
        found.in_flight += here
        cost: float = load
        if pod.beliefs.peers.turn is not None:
            cost -= TWIN_PRICE * min(here, TWIN_REQUESTS)
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
        """Find the cheapest of the pods with a slot to spare, and one that is cheaper in turn."""
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
            if any_slot or beliefs.peers.turn is None or beliefs.may_take_slot(adapter):
                found.place, found.place_load, place_cost = pod, load, cost
            elif cost < found.wish_cost:
                found.wish, found.wish_cost = pod, cost
        found.place_cost = place_cost

    def _least_loaded(self, candidates: Sequence[PodView]) -> PodView:
        loads = [pod.in_flight + pod.beliefs.foreign_requests for pod in candidates]
        least = min(loads)
        ties = [pod for pod, load in zip(candidates, loads, strict=True) if load == least]
        return ties[0] if len(ties) == 1 else self._random.choice(ties)
