"""Adapters for which requests wait because no pod has them: placed before the next plan.

Each of them gets the pod that can serve it soonest. They are loaded in the order in which they were
asked for, but names that clients chose come after all others. A plan does not move them. They move
when their pod cannot load them, and when its call takes longer than loads usually do.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from lora_router.adapters.adapter_place import Place
from lora_router.adapters.backoff import refused_until
from lora_router.adapters.demand import Demand
from lora_router.adapters.pod_loads import PodLoads
from lora_router.adapters.pod_search import KnowsSelections, PodSearch
from lora_router.adapters.proofs import Proofs
from lora_router.adapters.retirement import Retirement
from lora_router.adapters.slices import Slices, Work
from lora_router.adapters.wanted_adapter import may_be_on
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.routing.selection import Selection

MAX_NEW = 64
"""Adapters that are placed before the next plan because they were just declared."""
MAX_WAITING = 1024
"""Adapters that are placed out of turn."""
_PODS_AT_ONCE = 200
_NAMES_AT_ONCE = 16


class WaitsForAdapters(KnowsSelections, Protocol):
    """What holds requests for adapters that no pod lists (``first_use``)."""

    def failed(self, served: str, detail: str, seconds: float) -> None:
        """Refuse requests for an adapter for some time, because it cannot be loaded."""

    def loaded(self, served: str) -> None:
        """Note that an adapter has been loaded."""

    def failed_for(
        self, served: str, selections: Collection[Selection], detail: str, seconds: float
    ) -> None:
        """Refuse those of them that may go to some pods, none of which can load the adapter."""


@dataclass(slots=True)
class _Asked:
    """An adapter for which requests wait."""

    since: float
    """When it was asked for first."""
    pod: PodLoads | None = None
    """The pod that loads it; ``None``: none was found yet."""
    selections: Collection[Selection] | None = None
    """To which pods requests might go for which none was found; ``None``: the search goes on."""


class FirstPlaces:
    """Places adapters for which requests wait."""

    def __init__(
        self,
        fleet: Fleet,
        retirement: Retirement,
        proofs: Proofs,
        pods: Mapping[PodState, PodLoads],
        slices: Slices,
        waits: WaitsForAdapters | None,
        now: Callable[[], float],
        look_at: Callable[[PodLoads], None],
    ) -> None:
        """Create it without adapters.

        Args:
            fleet: The pods, and what they list.
            retirement: Knows the declared adapters.
            proofs: Knows what fails, and which adapters are known to load.
            pods: The records of all pods.
            slices: Does the work.
            waits: Is told what becomes of the adapters.
            now: Returns seconds, monotonic.
            look_at: Looks for the next step of a pod.
        """
        self._fleet = fleet
        self._retirement = retirement
        self._failures = proofs.failures
        self._pods = pods
        self._slices = slices
        self._waits = waits
        self._now = now
        self._look_at = look_at
        self._proofs = proofs
        self._slow: dict[PodLoads, float] = {}
        """Pods with calls that take long, and since when. Others load what waited there."""
        self.names: dict[str, _Asked] = {}
        """By served name."""

    def add(self, name: str) -> bool:
        """Note that requests wait for an adapter; return whether that is news, and of use."""
        asked = self.names.get(name)
        if asked is not None:
            return self._may_go_elsewhere(name, asked)
        if len(self.names) >= MAX_WAITING:
            return False
        if name not in self._retirement.declared or self._fleet.serving(name).pods:
            return False
        self.names[name] = _Asked(self._now())
        return True

    def _may_go_elsewhere(self, name: str, asked: _Asked) -> bool:
        """Return whether requests may go to other pods than those among which none was found."""
        known, waits = asked.selections, self._waits
        if asked.pod is not None or known is None or waits is None:
            return False
        return any(each not in known for each in waits.selections(name))

    def listed(self, names: Collection[str]) -> None:
        """Note what a pod lists."""
        for name in [name for name in self.names if name in names]:
            self._drop(name)

    def renew(self, before: Collection[str], demand: Demand) -> None:
        """Take in for which adapters requests wait.

        Args:
            before: Those that were known when the demand was measured.
            demand: The demand.
        """
        for name in before:
            if name not in demand.waiting:
                self._drop(name)
        for name in islice(demand.waiting, MAX_WAITING):
            self.add(name)

    def planned(self) -> Work:
        """Let adapters belong where they were placed, after a plan has moved them."""
        for number, name in enumerate(tuple(self.names), 1):
            if number % _NAMES_AT_ONCE == 0:
                yield
            asked, adapter = self.names.get(name), self._retirement.declared.get(name)
            if asked is None:
                continue
            pod = asked.pod
            if pod is None or not self._is_there(pod) or not pod.is_fit(self._now()):
                self.place(name)
            elif name in pod.wanted or adapter is None:
                continue
            elif adapter.pods.copies is not None:
                self.place(name)
            else:
                pod.put_first(Place(adapter, pod.state, "first-use"))

    def left(self, pod: PodLoads) -> None:
        """Find other places for the adapters of a pod that left."""
        for name in tuple(pod.first):
            self.place(name)

    def failed(self, pod: PodLoads, name: str) -> None:
        """Find another place for an adapter that a pod did not load.

        If the pod takes no loads at all, or did not answer, its other adapters get other places
        too.
        """
        if pod.blocked_until > self._now() or pod.silent_for:
            self.left(pod)
        elif name in self.names:
            self.place(name)

    def look_at_slow(self, running: Iterable[PodLoads]) -> None:
        """Find other places for adapters whose pods have calls that take long.

        Args:
            running: The pods with a call under way.
        """
        if not self.names:
            return
        now, before = self._now(), self._slow
        self._slow = {pod: pod.called_at for pod in running if pod.first and pod.is_slow(now)}
        for pod, since in self._slow.items():
            if before.get(pod) != since:
                for name in tuple(pod.first):
                    if self._may_move(name, pod, now):
                        self.place(name)

    def freed(self, pod: PodLoads) -> None:
        """Let a pod that has ended a call load what waits for a call that takes long.

        What waits for a usual call stays: to move it makes the slowest requests slower.
        """
        now = self._now()
        if not self.names or pod.first or pod.fails or not pod.is_fit(now):
            return
        found = ""
        for name, asked in self.names.items():
            adapter = self._retirement.declared.get(name)
            if (
                asked.pod is None
                or not asked.pod.is_slow(now)
                or adapter is None
                or (found and adapter.is_templated)
                or (adapter.pods.copies is not None and name not in pod.wanted)
                or not may_be_on(adapter, pod.state)
                or self._failures.get(pod.state, name) is not None
                or not self._may_move(name, asked.pod, now)
            ):
                continue
            found = name
            if not adapter.is_templated:
                break
        if found:
            self.place(found)

    def _may_move(self, name: str, pod: PodLoads, now: float) -> bool:
        """Return whether another pod may load an adapter that was to be loaded on a pod."""
        if pod.call is None or pod.call.name != name:
            return True
        adapter = self._retirement.declared.get(name)
        return adapter is not None and pod.is_slow(now) and self._proofs.may_hedge(adapter)

    def place(self, name: str) -> None:
        """Find a place for an adapter, in place of the one that it has."""
        self._assign(name, None)
        if name in self.names:
            self.names[name].selections = None
        self._slices.do(self._place(name))

    def place_new(self, names: Iterable[str]) -> None:
        """Find places with room for adapters that were just declared.

        For fleets that are so large that the next plan is far away. It finds better places.
        """
        for name in names:
            adapter = self._retirement.named(name)
            if adapter is not None:
                self._slices.do(self._place_new(adapter.served_name))

    def loaded(self, name: str) -> None:
        """Note that a pod has loaded an adapter."""
        if self._waits is not None:
            self._waits.loaded(name)

    def _place_new(self, name: str) -> Work:
        if not self._fleet.serving(name).pods:
            yield from self._place(name)

    def _place(self, name: str) -> Work:
        adapter = self._retirement.declared.get(name)
        asked = self.names.get(name)
        if adapter is None or (asked is not None and asked.pod is not None):
            return
        now, waits, is_waited_for = self._now(), self._waits, asked is not None
        failing = self._failures.of_adapter(name)
        until = refused_until(failing.values())
        if is_waited_for and until > now and waits is not None:
            waits.failed(name, "no pod can load it", until - now)
            return
        search = PodSearch(
            adapter, self._retirement, failing, waits, now, is_waited_for=is_waited_for
        )
        for number, pod in enumerate(tuple(self._pods.values()), 1):
            if number % _PODS_AT_ONCE == 0:
                yield
            search.look_at(pod)
        if asked is not None:
            asked.selections = search.selections
        best = search.best
        if best is not None and self._is_there(best):
            self._assign(name, best)
            reason = "first-use" if is_waited_for else "copies"
            best.put_first(Place(adapter, best.state, reason))
            self._look_at(best)
        if is_waited_for and waits is not None:
            if search.why_none:
                waits.failed(name, search.why_none, search.seconds)
            elif search.in_vain:
                why = "none of the pods that the request may go to can load it"
                waits.failed_for(name, tuple(search.in_vain), why, search.seconds)

    def _assign(self, name: str, pod: PodLoads | None) -> None:
        """Take note of the pod that loads an adapter, if requests wait for it."""
        asked = self.names.get(name)
        if asked is None:
            return
        if asked.pod is not None:
            del asked.pod.first[name]
        asked.pod = pod
        if pod is not None:
            pod.first[name] = asked.since

    def _is_there(self, pod: PodLoads) -> bool:
        return self._pods.get(pod.state) is pod

    def _drop(self, name: str) -> None:
        self._assign(name, None)
        self.names.pop(name, None)
