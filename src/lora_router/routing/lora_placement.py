"""``lora-placement``: no pod juggles more adapters than it has slots; who finds none waits here.

A vLLM pod runs requests of at most ``max_lora`` adapters at once. One adapter more, and its
requests wait on the pod for whole generations of the others, where nobody can help them any more.
So the number of distinct adapters in flight on each pod is what this algorithm controls.

The rules, for a request and the pods that may take it:

1. A request for a base model needs no slot: the pod with the least load.
2. *Join*: a pod on which the adapter is in flight (by this router's ledger, or another's by the
   last scrape) takes it without a further slot. Of several, the one with the least load.
3. *Place*: a pod with a slot to spare takes it for a price, counted in requests of load: little if
   the adapter is resident there, more if it was used there before, most if it never was. Of
   several, the cheapest; ties go by rendezvous hashing, so that routers agree without talking.
   The longer the prompt, the less a load matters beside it, and the smaller the prices.
4. Both are possible: join, unless placing is cheaper even with the price of a slot, which grows as
   the fleet's free slots become few. So a hot adapter spreads as its load asks and room allows, and
   shrinks back, since what is not joined any more drains.
5. Neither is possible: *hold*. The request waits in the router and is asked for again whenever a
   request ends, first come first served.
6. An adapter that has been held for ``PATIENCE_SECONDS`` gets a slot freed: of all slots, the one
   with the fewest requests in flight is closed to further requests of the adapter that has it;
   these join elsewhere or wait their turn. So an adapter is kept from a slot for no longer than
   that time and the longest generation that is open in the slot, unless more adapters wait so than
   the fleet has slots: then for one more round of generations for each time that they fill it.
7. It may not be held any longer: where the adapter is in flight, else the pod with the least load.

Load is this router's requests in flight, and what the last scrape showed beyond them. A pod whose
slots are unknown has room. The prices were chosen with ``lora-router simulate`` on the scenarios
of ``bench/scenarios``.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lora_router.cache.state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, Hold, InferenceRequest, Pick
from lora_router.routing.rendezvous import rendezvous_order

PATIENCE_SECONDS = 6.0
"""Less: slots are closed for others sooner, and hot adapters load again and again. More: a rare
adapter waits longer while hot ones keep every slot."""
RESIDENT_PRICE = 1.0
USED_PRICE = 4.0
"""A load from host memory: some tens of milliseconds in which the whole batch stands still."""
COLD_PRICE = 8.0
"""A load from disk or from afar."""
SLOT_PRICE = 8.0
"""Price of a further slot for an adapter in flight, when half of the fleet's slots are in use.
Less: hot adapters take slots that others soon need. More: pods with popular adapters are busier."""
PROMPT_BYTES = 2048.0
"""A body of this length halves the prices: a long prompt stalls its pod more than a load does."""

_AS_LONG_AS_ALLOWED = 86400.0
_FORGOTTEN_SECONDS = 10.0
"""A held adapter that was not asked for during this time has no request waiting any more."""


@dataclass(slots=True)
class _Waiting:
    """An adapter whose requests are held."""

    since: float
    asked: float
    closed: tuple[PodView, str] | None = None
    """The pod and the adapter on it that gets no further requests, to free a slot."""


@dataclass(slots=True)
class _Survey:
    """What a look over the candidates found."""

    join: PodView | None = None
    join_load: float = float("inf")
    place: PodView | None = None
    place_cost: float = float("inf")
    last_resort: PodView | None = None
    slots: int = 0
    free: int = 0

    def slot_price(self) -> float:
        """Return the price of a further slot, which grows without bound as they become few."""
        used = self.slots - self.free
        return SLOT_PRICE * used / max(self.free, 1) if self.slots else 0.0


class LoraPlacement:
    """See the head of this file for its rules."""

    name = "lora-placement"

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random: random.Random = options.rng
        self._max_age = options.metrics_max_age
        self._waiting: dict[str, _Waiting] = {}
        self._pruned_at = 0.0

    def pick(
        self, request: InferenceRequest, candidates: Sequence[PodView], now: float
    ) -> Pick | Hold:
        """Choose, or hold."""
        adapter = request.adapter
        if adapter is None:
            return Pick(self._least_loaded(candidates, now), "base-model")
        weight = 1.0 / (1.0 + request.size / PROMPT_BYTES)
        found = self._survey(adapter, candidates, now, weight)
        if found.place is not None and (
            found.join is None or found.place_cost + weight * found.slot_price() < found.join_load
        ):
            pick = Pick(found.place, "spread" if found.join is not None else "placed")
        elif found.join is not None:
            pick = Pick(found.join, "joined")
        elif request.may_hold:
            self._hold(adapter, candidates, now)
            return Hold("no-slot", _AS_LONG_AS_ALLOWED)
        else:
            pod = found.last_resort or self._least_loaded(candidates, now)
            pick = Pick(pod, "no-slot-in-time")
        if self._waiting:
            self._waiting.pop(adapter, None)
        return pick

    # Looking

    def _survey(
        self, adapter: str, candidates: Sequence[PodView], now: float, weight: float
    ) -> _Survey:
        found = _Survey()
        closed = self._closed_to(adapter)
        last_resort_load = float("inf")
        for pod in rendezvous_order(adapter, candidates):
            own = pod.in_flight_adapters
            load = self._load(pod, now)
            foreign = self._foreign(pod, now)
            room = self._room(pod, foreign)
            if room is not None:
                found.slots += pod.beliefs.slots or 0
                found.free += max(0, room)
            if adapter in own or adapter in foreign:
                if load < last_resort_load:
                    found.last_resort, last_resort_load = pod, load
                if load < found.join_load and pod not in closed:
                    found.join, found.join_load = pod, load
            elif room is None or room > 0:
                cost = load + weight * self._price(pod, adapter)
                if cost < found.place_cost:
                    found.place, found.place_cost = pod, cost
        return found

    def _load(self, pod: PodView, now: float) -> int:
        """Return the requests on a pod, other routers' included."""
        foreign = pod.beliefs.foreign_requests
        if foreign and pod.fresh_metrics(now, self._max_age) is None:
            foreign = 0
        return pod.in_flight + foreign

    def _foreign(self, pod: PodView, now: float) -> frozenset[str]:
        """Return the adapters that others have in flight on a pod."""
        foreign = pod.beliefs.foreign_adapters
        if foreign and pod.fresh_metrics(now, self._max_age) is None:
            return frozenset()
        return foreign

    @staticmethod
    def _room(pod: PodView, foreign: frozenset[str]) -> int | None:
        """Return the slots to spare; ``None`` if nobody knows how many there are."""
        beliefs = pod.beliefs
        if beliefs.slots is None:
            return None
        own = pod.in_flight_adapters
        occupied = len(own.keys() | foreign) if foreign else len(own)
        # Adapters that wait on the pod show nowhere; that somebody does, shows.
        return 0 if beliefs.somebody_waits else beliefs.slots - occupied

    @staticmethod
    def _price(pod: PodView, adapter: str) -> float:
        if pod.beliefs.is_resident(adapter):
            return RESIDENT_PRICE
        return USED_PRICE if pod.beliefs.was_used(adapter) else COLD_PRICE

    def _least_loaded(self, candidates: Sequence[PodView], now: float) -> PodView:
        loads = [self._load(pod, now) for pod in candidates]
        least = min(loads)
        ties = [pod for pod, load in zip(candidates, loads, strict=True) if load == least]
        return ties[0] if len(ties) == 1 else self._random.choice(ties)

    # Waiting

    def _closed_to(self, adapter: str) -> Sequence[PodView]:
        """Return the pods that take no further requests of an adapter."""
        if not self._waiting:
            return ()
        closed = (waiting.closed for waiting in self._waiting.values())
        return [each[0] for each in closed if each is not None and each[1] == adapter]

    def _hold(self, adapter: str, candidates: Sequence[PodView], now: float) -> None:
        if now - self._pruned_at > 1.0:
            self._prune(now)
        waiting = self._waiting.setdefault(adapter, _Waiting(now, now))
        waiting.asked = now
        if now - waiting.since < PATIENCE_SECONDS:
            return
        closed = waiting.closed
        if (
            closed is None
            or closed[0] not in candidates
            or not closed[0].in_flight_adapters.get(closed[1])
        ):
            waiting.closed = self._choose_to_close(candidates)

    def _choose_to_close(self, candidates: Sequence[PodView]) -> tuple[PodView, str] | None:
        """Return the slot in which the fewest requests are, of those that are not closed yet."""
        taken = [waiting.closed for waiting in self._waiting.values() if waiting.closed]
        open_slots = [
            (requests, number, name)
            for number, pod in enumerate(candidates)
            for name, requests in pod.in_flight_adapters.items()
            if (pod, name) not in taken
        ]
        if not open_slots:
            return None
        _, number, name = min(open_slots)
        return candidates[number], name

    def _prune(self, now: float) -> None:
        """Forget the adapters whose held requests have left."""
        self._pruned_at = now
        for name, waiting in tuple(self._waiting.items()):
            if now - waiting.asked > _FORGOTTEN_SECONDS:
                del self._waiting[name]
