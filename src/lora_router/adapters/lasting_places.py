"""Places that are kept from one plan to the next, so that a change costs what it concerns.

``renew`` looks again at

- adapters whose declaration changed, and those whose load changed by a share of ``CHANGED`` and by
  at least ``CHANGED_LOAD``,
- adapters for which requests wait and that have no place,
- pods that list something else than before, and the adapters that are gone there,
- adapters that begin to fail, and those that lost a copy that the operator wants.

All others stay where they belong. Their copies lose places to those that are worth more, as in a
search for all places (``places``). What such a search does beyond that (it fills spare memory anew,
and knows pods that come and go) waits for the next one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from lora_router.adapters.adapter_place import Place
from lora_router.adapters.copies import CopyWorth
from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.demand import Demand
from lora_router.adapters.places import PlaceSearch, Queue
from lora_router.adapters.pod_plan import PodPlan
from lora_router.adapters.wanted_adapter import WantedAdapter, may_be_on
from lora_router.fleet.pod_state import PodState
from lora_router.steps import Steps

CHANGED = 0.25
"""By which share the load of an adapter must differ from the last one that counted. A lower value
looks at more adapters that need nothing."""
CHANGED_LOAD = 0.1
"""By how many requests in flight, at least."""
_NAMES_AT_ONCE = 512
_PRICES_AT_ONCE = 128
_PODS_AT_ONCE = 8
_ADAPTERS_AT_ONCE = 8


class LastingPlaces(PlaceSearch):
    """Finds all places once (``steps``), and then again and again what changes (``renew``)."""

    def __init__(
        self,
        declared: Sequence[DeclaredAdapter],
        pods: Sequence[PodState],
        demand: Demand,
        min_copies: int = 1,
    ) -> None:
        """Prepare a search. The arguments are those of ``PlaceSearch``."""
        super().__init__(declared, pods, demand, min_copies)
        self._seen = [(state.pod, state.base_models) for state in pods]
        self._moved: dict[str, None] = {}
        self._touched: dict[PodPlan, None] = {}
        self._uncounted: dict[PodPlan, None] = {}
        """Pods of which it has to be found out what room they have."""
        self._short: dict[str, None] = {}
        """Adapters that lost a copy that the operator wants. They are looked at again when one
        fails for which others made room."""
        self._is_priced = False
        """Whether it is known what is lost with the copy that is worth least, copies that were
        added included."""
        self.looked_at = 0
        """The adapters that were looked at again in the last renewal."""

    def knows(self, pods: Sequence[PodState]) -> bool:
        """Return whether pods are those of the search, with the same descriptions."""
        return len(pods) == len(self._seen) and all(
            state is plan.state and state.pod is pod and state.base_models == base_models
            for state, plan, (pod, base_models) in zip(pods, self._plans, self._seen, strict=True)
        )

    def renew(self, declared: Mapping[str, DeclaredAdapter], demand: Demand) -> Steps[None]:
        """Look again at what changed. ``places`` are then the new ones.

        Args:
            declared: The adapters that should be served, by served name.
            demand: How much each adapter is asked for.
        """
        self._demand = demand
        self._worth = CopyWorth(demand, self._worth.pod_load)
        self.places = []
        self._moved, self._touched, self._uncounted = {}, {}, {}
        self._older.forget_declared()
        changed: dict[str, None] = {}
        for number, plan in enumerate(self._plans, 1):
            changed.update(dict.fromkeys(self._look_at_pod(plan)))
            if number % _PODS_AT_ONCE == 0:
                yield
        yield from self._find_changed(declared, changed)
        if any(map(self._begins_to_fail, changed)):
            short, self._short = self._short, {}
            changed.update(short)
        if not self._is_priced:
            yield from self._price()
        queue: Queue = []
        for number, name in enumerate(changed, 1):
            wanted = self._again(name, declared.get(name))
            if wanted is not None:
                self._line_up(queue, number, wanted)
            if number % _ADAPTERS_AT_ONCE == 0:
                yield
        self.looked_at = len(changed)
        yield from self._count(declared)
        yield from self._fill(queue)
        yield from self._shrink(tuple(self._touched))

    def moved(self) -> Iterable[tuple[str, list[PodState]]]:
        """Yield the adapters whose places changed in the last renewal, with all their pods."""
        for name in self._moved:
            wanted = self._wanted.get(name)
            yield name, [] if wanted is None else [plan.state for plan in wanted.pods]

    def changed_pods(
        self, before: Mapping[PodState, Mapping[str, Place]]
    ) -> Iterable[tuple[PodState, dict[str, Place]]]:
        """Yield the pods on which places changed in the last renewal, with all their places.

        Args:
            before: The places before, by pod and served name.
        """
        new: dict[PodState, dict[str, Place]] = {}
        for place in self.places:
            new.setdefault(place.state, {})[place.adapter.served_name] = place
        for plan in self._touched:
            state, belongs = plan.state, plan.adapters
            missing = {**before.get(state, {}), **new.get(state, {})}
            places = [
                place
                for name, place in missing.items()
                if name in belongs and name not in state.adapters
            ]
            places.sort(key=_urgency)
            places += self._kept_on(plan)
            yield state, {place.adapter.served_name: place for place in places}

    def _look_at_pod(self, plan: PodPlan) -> list[str]:
        """Take in what a pod lists now. Return the adapters that it lists no longer."""
        if plan.catalog is plan.state.catalog:
            return []
        loaded, unloaded = plan.look()
        for name in loaded:
            wanted = self._wanted.get(name)
            # It was loaded by somebody else, or for requests that wait.
            if wanted is not None and may_be_on(wanted.adapter, plan.state):
                self._change(wanted, plan, take=True)
                self._drop_surplus(wanted)
        self._uncounted[plan] = None
        return unloaded

    def _count(self, declared: Mapping[str, DeclaredAdapter]) -> Steps[None]:
        """Find out what room pods have that changed."""
        for number, plan in enumerate(tuple(self._uncounted), 1):
            self._older.count(plan, declared)
            if plan.room < 0:
                self._touched[plan] = None
            if number % _PODS_AT_ONCE == 0:
                yield

    def _find_changed(
        self, declared: Mapping[str, DeclaredAdapter], changed: dict[str, None]
    ) -> Steps[None]:
        known = 0
        for number, (name, adapter) in enumerate(tuple(declared.items()), 1):
            wanted = self._wanted.get(name)
            known += wanted is not None
            self._older.declare(adapter)
            if wanted is None or wanted.adapter is not adapter or self._needs_a_look(wanted):
                changed[name] = None
            if number % _NAMES_AT_ONCE == 0:
                yield
        if known < len(self._wanted):
            for number, name in enumerate(tuple(self._wanted), 1):
                if name not in declared:
                    changed[name] = None
                if number % _NAMES_AT_ONCE == 0:
                    yield

    def _needs_a_look(self, wanted: WantedAdapter) -> bool:
        """Return whether an adapter waits for a place, begins to fail, or its load changed."""
        if wanted.trouble != self._demand.trouble(wanted.name):
            return True
        load, before = self._worth.load_of(wanted.name), wanted.load
        return self._is_first_use(wanted) or abs(load - before) > max(
            CHANGED_LOAD, CHANGED * before
        )

    def _begins_to_fail(self, name: str) -> bool:
        """Return whether an adapter has failed for which others might make room until now."""
        wanted, trouble = self._wanted.get(name), self._demand.trouble(name)
        if wanted is None or trouble is None or not wanted.may_evict:
            return False
        return not trouble.may_evict

    def _price(self) -> Steps[None]:
        """Find out what is lost with the copy that is worth least."""
        least = math.inf
        for number, wanted in enumerate(tuple(self._wanted.values()), 1):
            for plan in wanted.pods:
                least = min(least, self._lost(wanted.name, plan))
            if number % _PRICES_AT_ONCE == 0:
                yield
        self._least_lost, self._is_priced = least, True

    def _again(self, name: str, adapter: DeclaredAdapter | None) -> WantedAdapter | None:
        """Begin again with an adapter, and with the pods that have it."""
        wanted = self._wanted.get(name)
        if wanted is None:
            if adapter is None:
                return None
            wanted = self._want(adapter)
            for plan in wanted.fits:
                if name in plan.state.adapters:
                    self._change(wanted, plan, take=True)
            self._drop_surplus(wanted)
            return wanted
        for plan in tuple(wanted.pods):
            state = plan.state
            if adapter is None or name not in state.adapters or not may_be_on(adapter, state):
                self._change(wanted, plan, take=False)
        wanted.weigh(-1.0)
        if adapter is None:
            del self._wanted[name]
            listing = [plan for plan in wanted.fits if name in plan.state.adapters]
            self._touched.update(dict.fromkeys(listing))
            self._uncounted.update(dict.fromkeys(listing))
            return None
        if wanted.adapter is adapter:
            wanted.trouble = self._demand.trouble(name)
            wanted.load = self._worth.load_of(name)
        else:
            pods, slots = wanted.pods, wanted.slots
            wanted = self._want(adapter)
            wanted.pods, wanted.slots = pods, slots
            for plan in pods:
                plan.adapters[name] = adapter
                self._touched[plan] = None
        wanted.weigh(1.0)
        self._drop_surplus(wanted)
        return wanted

    def _change(self, wanted: WantedAdapter, plan: PodPlan, *, take: bool) -> None:
        self._moved[wanted.name] = None
        self._touched[plan] = self._uncounted[plan] = None
        super()._change(wanted, plan, take=take)
        if not take and len(wanted.pods) < wanted.needed:
            self._short[wanted.name] = None


def _urgency(place: Place) -> tuple[bool, float]:
    return place.reason != "first-use", -place.saves
