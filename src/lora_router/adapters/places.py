"""Where each adapter belongs: the pods in whose host memory it should be.

It has no state but what it is given, so that the simulator, the command ``lora-router adapters sync
--dry-run`` and the loader get the same answer.

Rules:

- No pod gets more adapters than its host memory holds, those that are not declared included.
- What is loaded stays, unless its place is worth much more to another adapter: a load costs time,
  and loads are estimates of the past. So the result depends on what is loaded now.
- Copies are added one by one, the one that is worth most first (``copies``). So each adapter gets
  its first copy, popular ones get as many as their load needs, and spare host memory is filled.
- A copy goes where the least is asked of the pod by the adapters that belong there: requests, and
  slots that are in use at the same time. An adapter whose other pods have few slots prefers a pod
  with many, because all of its slots are taken less often. Pods that are nearly alike are taken in
  the order of rendezvous hashing, in which routing takes them too.
- A pod without room gives up the idle adapter whose copy there is worth least. Pinned adapters keep
  one copy.
- An adapter that no pod has and that failed gets one place after all others. Nothing is evicted for
  it until some time after the failure (``proofs``).
- A new version takes the place of an older one only if nothing else is free (``older_copies``): the
  last older copy also stays if another adapter can be evicted for the new one.
- In a large fleet, an adapter is considered for its first pods in that order, and for as many
  further ones as it needs.
"""

import math
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import TypeAlias

from lora_router.adapters.adapter_place import Place
from lora_router.adapters.copies import FILL_SECONDS, SWAP_SECONDS, CopyWorth
from lora_router.adapters.declared import DeclaredAdapter, WantedPods
from lora_router.adapters.demand import Demand
from lora_router.adapters.older_copies import OlderCopies
from lora_router.adapters.pod_plan import PodPlan, Victim
from lora_router.adapters.swaps import SWAP, lower_rank, may_take, pays, rank_of
from lora_router.adapters.wanted_adapter import FitPods, WantedAdapter, may_be_on, why_kept
from lora_router.fleet.pod_state import PodState
from lora_router.steps import Steps

_CLEARLY = SWAP / 8
"""No copy is worth adding to a full fleet that is not worth so many times the cheapest one. Copies
that are added make others cheaper: therefore less than ``SWAP``."""
_ALIKE = 0.1
"""Pods of which the same is asked but for this share are alike."""
_AT_ONCE = 16
_NAMES_AT_ONCE = 2048
_LOOKS_ANYHOW = 10
_LOOKS_AT_ONCE = 600
_ROWS_AT_ONCE = 256

Queue: TypeAlias = list[tuple[tuple[bool, bool, float], int, WantedAdapter]]
"""A heap of adapters that may get a further copy, the most urgent one first."""


class PlaceSearch:
    """Finds the places in steps, between which the event loop serves requests.

    A declared adapter that is loaded on a pod and has no place there may be unloaded.
    """

    def __init__(
        self,
        declared: Sequence[DeclaredAdapter],
        pods: Sequence[PodState],
        demand: Demand,
        min_copies: int = 1,
    ) -> None:
        """Prepare a search.

        Args:
            declared: The adapters that should be served.
            pods: The pods that take loads, of any base model.
            demand: How much each adapter is asked for.
            min_copies: How many copies adapters get at least whose declaration does not say it, if
                there is room.
        """
        self.places: list[Place] = []
        """The result, complete after the last step. What is loaded already is at the end."""
        self._declared = declared
        self._min_copies = min_copies
        self._demand = demand
        self._states = pods
        self._plans: list[PodPlan] = []
        self._wanted: dict[str, WantedAdapter] = {}
        self._fits: dict[tuple[str, WantedPods], FitPods] = {}
        self._older = OlderCopies()
        self._worth = CopyWorth(demand, 0.0)
        self._fleet_active = self._fleet_load = 0.0
        self._most_slots = 1.0
        """Slots of the pod that has most."""
        self._looks = 0
        """Work of this step, in pods that were looked at."""
        self._has_needed = False
        """Whether the operator wants several copies of some adapters."""
        self._with_room = 0
        """Pods with room."""
        self._least_lost = math.inf
        """What is lost with the copy that is worth least, before copies are added."""

    def steps(self) -> Steps[None]:
        """Search. Each step takes about a millisecond."""
        yield from self._survey()
        yield from self._keep()
        yield from self._add()
        yield from self._shrink(self._plans)
        for plan in self._plans:
            yield
            self.places += self._kept_on(plan)

    def _kept_on(self, plan: PodPlan) -> list[Place]:
        """Return the places of what stays on a pod. The last one is the first to go."""
        loaded = plan.state.adapters
        kept = [
            (self._lost(name, plan), each) for name, each in plan.adapters.items() if name in loaded
        ]
        kept.sort(key=lambda each: -each[0])
        return [
            Place(adapter, plan.state, why_kept(adapter), lost * SWAP_SECONDS)
            for lost, adapter in kept
        ]

    def _survey(self) -> Steps[None]:
        """Find out which pods each adapter may be on, and what is asked of the fleet."""
        names: set[str] = set()
        for number, adapter in enumerate(self._declared):
            names.add(adapter.served_name)
            self._older.declare(adapter)
            if number % _NAMES_AT_ONCE == _NAMES_AT_ONCE - 1:
                yield
        self._plans = plans = []
        for number, state in enumerate(self._states):
            plans.append(PodPlan(state, 0))
            self._older.count(plans[-1], names)
            if number % _AT_ONCE == 0:
                yield
        load = active = 0.0
        for number, adapter in enumerate(self._declared):
            wanted = self._want(adapter)
            load += wanted.load
            active += wanted.active
            if number % _ROWS_AT_ONCE == 0:
                yield
        if plans:
            self._most_slots = max(plan.slots for plan in plans)
            self._fleet_load = load / sum(plan.speed for plan in plans)
            self._fleet_active = active / sum(plan.slots * plan.speed for plan in plans)
            self._worth = CopyWorth(self._demand, load / len(plans))

    def _want(self, adapter: DeclaredAdapter) -> WantedAdapter:
        """Begin with an adapter."""
        pods = adapter.pods
        key = adapter.base_model, pods
        found = self._fits.get(key)
        if found is None:
            plans = self._plans
            found = FitPods(plan for plan in plans if may_be_on(adapter, plan.state))
            self._fits[key] = found
            self._looks += len(plans)
        most = len(found) if pods.copies is None else min(pods.copies, len(found))
        needed = most if pods.everywhere or pods.copies is not None else min(self._min_copies, most)
        name = adapter.served_name
        self._has_needed = self._has_needed or needed > 1
        load, trouble = self._worth.load_of(name), self._demand.trouble(name)
        wanted = WantedAdapter(adapter, found, needed, most, load, trouble)
        self._wanted[name] = wanted
        return wanted

    def _keep(self) -> Steps[None]:
        """Begin with what is loaded."""
        looks = 0
        for plan in self._plans:
            for name in plan.state.adapters:
                wanted = self._wanted.get(name)
                if wanted is not None and may_be_on(wanted.adapter, plan.state):
                    wanted.pods[plan] = None
                    wanted.slots += plan.slots
                    plan.put(wanted.adapter)
            looks += len(plan.state.adapters)
            if looks > _ROWS_AT_ONCE:
                looks = 0
                yield
        for number, wanted in enumerate(self._wanted.values()):
            wanted.weigh(1.0)
            self._drop_surplus(wanted)
            if number % _ROWS_AT_ONCE == 0:
                yield

    def _drop_surplus(self, wanted: WantedAdapter) -> None:
        """Give up copies beyond the number that the declaration states: the last of its pods."""
        if wanted.adapter.pods.copies is None or len(wanted.pods) <= wanted.most:
            return
        first = [plan for plan in wanted.order_of_pods() if plan in wanted.pods]
        others = [plan for plan in wanted.pods if plan not in first]
        for plan in (*first, *others)[wanted.most :]:
            self._change(wanted, plan, take=False)

    def _add(self) -> Steps[None]:
        """Add copies, the one that is worth most first."""
        queue: Queue = []
        for number, wanted in enumerate(self._wanted.values()):
            self._line_up(queue, number, wanted)
            if number % _ROWS_AT_ONCE == 0:
                yield
        yield
        yield from self._fill(queue)

    def _line_up(self, queue: Queue, number: int, wanted: WantedAdapter) -> None:
        """Take in what the copies of an adapter are worth, and queue it if it may get more."""
        for plan in wanted.pods:
            self._least_lost = min(self._least_lost, self._lost(wanted.name, plan))
        if not wanted.is_complete:
            heappush(queue, (self._urgency(wanted), number, wanted))

    def _fill(self, queue: Queue) -> Steps[None]:
        """Add copies of the adapters in a heap."""
        self._with_room = sum(plan.room > 0 for plan in self._plans)
        while queue:
            _, number, wanted = heappop(queue)
            self._looks += _LOOKS_ANYHOW
            yield from self._find_victims(wanted)
            if self._add_copy(wanted) and not wanted.is_complete:
                heappush(queue, (self._urgency(wanted), number, wanted))
            if self._looks > _LOOKS_AT_ONCE:
                self._looks = 0
                yield

    def _find_victims(self, wanted: WantedAdapter) -> Steps[None]:
        """Find out what each pod would give up for an adapter, so that it is known later."""
        if not (wanted.may_evict and self._is_worth_it(wanted)):
            return
        for plan in wanted.order_of_pods():
            if plan.room <= 0 and plan.looks > 1:
                self._looks += plan.looks
                plan.victim(self._lost)
                if self._looks > _LOOKS_AT_ONCE:
                    self._looks = 0
                    yield

    def _is_worth_it(self, wanted: WantedAdapter) -> bool:
        """Return whether a copy may be worth it.

        Most adapters need nothing. To find out for which pods they need nothing takes longer.
        """
        worth = self._worth_on(wanted, self._most_slots)
        is_worth_it = self._with_room > 0 or worth > _CLEARLY * self._least_lost
        is_worth_it = is_worth_it or (self._has_needed and len(wanted.pods) < wanted.needed)
        return is_worth_it or self._is_first_use(wanted) or bool(self._older.of(wanted.name))

    def _add_copy(self, wanted: WantedAdapter) -> bool:
        """Add a copy of an adapter where it fits best. Return whether it fits anywhere."""
        copies = len(wanted.pods)
        if not self._is_worth_it(wanted):
            return False
        self._looks += 10 * _LOOKS_ANYHOW + len(wanted.fits) // 4
        found = self._best(wanted, wanted.order_of_pods())
        if found is None and copies < wanted.needed and len(wanted.order) < len(wanted.fits):
            found = self._best(wanted, wanted.fits)
        found = self._or_older(wanted, found)
        if found is None:
            return False
        plan, victim = found
        worth = self._worth_on(wanted, plan.slots)
        if victim is not None:
            self._change(self._wanted[victim], plan, take=False)
        self._change(wanted, plan, take=True)
        if wanted.name not in plan.state.adapters:
            waits = wanted.name in self._demand.waiting
            reason = wanted.why(copies, waits=waits, swapped=victim is not None)
            is_second = copies == 1 and victim is None
            seconds = FILL_SECONDS if is_second else SWAP_SECONDS
            saves = worth * self._worth.asked_share(wanted.name) * seconds
            self.places.append(Place(wanted.adapter, plan.state, reason, saves))
        return True

    def _best(
        self, wanted: WantedAdapter, pods: Sequence[PodPlan]
    ) -> tuple[PodPlan, str | None] | None:
        """Return the best of some pods, and what has to be evicted there."""
        best: tuple[PodPlan, str | None] | None = None
        least = math.inf
        first_use = self._is_first_use(wanted)
        usual = self._worth_on(wanted, self._most_slots)
        by_slots: dict[float, tuple[float, float]] = {}
        for plan in wanted.without_failing(pods):
            if plan in wanted.pods:
                continue
            victim, lost = None, 0.0
            known = by_slots.get(plan.slots)
            if known is None:
                waits = self._worth.waits(wanted.name, wanted.slots + plan.slots)
                known = by_slots[plan.slots] = self._worth_on(wanted, plan.slots), waits
            worth, waits = known
            if plan.room <= 0:
                self._looks += plan.looks
                found = self._found(wanted, plan, worth)
                if found is None:
                    continue
                victim, lost = found
            elif not first_use and not pays(plan.state, worth):
                continue
            pressure = plan.pressure(self._fleet_active, self._fleet_load)
            price = lost + usual * pressure + waits
            if price < least * (1.0 - _ALIKE):
                best, least = (plan, victim), price
        return best

    def _or_older(
        self, wanted: WantedAdapter, found: tuple[PodPlan, str | None] | None
    ) -> tuple[PodPlan, str | None] | None:
        """Return a pod whose older copy makes way for an adapter, if what was found costs more."""
        older = self._older.of(wanted.name)
        if not older or (found is not None and (found[1] is None or len(older) < 2)):
            return found
        self._looks += len(older)
        pods = [plan for plan in older if plan.room <= 0 and wanted.may_get(plan)]
        pods = [each for each in pods if pays(each.state, self._worth_on(wanted, each.slots))]
        if not pods:
            return found
        best = min(pods, key=lambda plan: plan.pressure(self._fleet_active, self._fleet_load))
        self._older.give_way(best)
        return best, None

    def _found(self, wanted: WantedAdapter, plan: PodPlan, worth: float) -> Victim | None:
        """Return what an adapter may evict on a pod for one more copy."""
        if not wanted.may_evict:
            return None
        victim = plan.victim(self._lost)
        if victim is None or self._is_first_use(wanted):
            return victim
        rank, state = rank_of(len(wanted.pods) + 1, wanted.needed), plan.state
        if may_take(rank, self._rank(victim[0]), state, worth, victim[1]):
            return victim
        lower = lower_rank(rank)
        if lower is None or not self._has_needed or not pays(state, worth):
            return None
        self._looks += len(plan.adapters)
        return plan.victim_among(self._lost, lambda name: self._rank(name) == lower)

    def _rank(self, name: str) -> int:
        """Return the rank of the next copy that an adapter loses."""
        wanted = self._wanted[name]
        return rank_of(len(wanted.pods), wanted.needed)

    def _shrink(self, plans: Sequence[PodPlan]) -> Steps[None]:
        """Take adapters off pods that have more than fit."""
        for plan in plans:
            while plan.room < 0:
                found = plan.victim(self._lost)
                if found is None:
                    break
                self._change(self._wanted[found[0]], plan, take=False)
            yield

    def _worth_on(self, wanted: WantedAdapter, slots: float) -> float:
        """Return what a further copy saves on a pod with so many slots."""
        return self._worth.of(wanted.name, len(wanted.pods), wanted.slots, slots, wanted.needed)

    def _lost(self, name: str, plan: PodPlan) -> float:
        """Return what is lost with a copy of an adapter on a pod, in seconds."""
        wanted = self._wanted[name]
        copies = len(wanted.pods)
        if wanted.adapter.pinned and copies <= wanted.needed:
            return math.inf
        return self._worth.of(
            name, copies - 1, wanted.slots - plan.slots, plan.slots, wanted.needed
        )

    def _change(self, wanted: WantedAdapter, plan: PodPlan, *, take: bool) -> None:
        wanted.weigh(-1.0)
        if take:
            wanted.pods[plan] = None
            wanted.slots += plan.slots
            plan.put(wanted.adapter)
            self._with_room -= plan.room == 0
        else:
            del wanted.pods[plan]
            wanted.slots -= plan.slots
            plan.remove(wanted.name)
            self._with_room += plan.room == 1
        wanted.weigh(1.0)

    def _urgency(self, wanted: WantedAdapter) -> tuple[bool, bool, float]:
        """Return what orders adapters by how urgently they need their next copy."""
        is_first = self._is_first_use(wanted) or wanted.name in self._demand.replacing
        return wanted.comes_last, not is_first, -self._worth_on(wanted, self._most_slots)

    def _is_first_use(self, wanted: WantedAdapter) -> bool:
        return not wanted.pods and wanted.name in self._demand.waiting
