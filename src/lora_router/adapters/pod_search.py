"""The search for the pod that can serve an adapter soonest for which requests wait.

Clients' filters and the gateway's subset exclude pods for some of these requests. The best pod is
one to which the requests that came first may go, and as many of the others as possible. Requests
wait in vain if none of the pods to which they may go can load the adapter.
"""

from collections.abc import Collection, Mapping
from typing import Protocol, TypeAlias

from lora_router.adapters.backoff import Failure
from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.pod_loads import PodLoads
from lora_router.adapters.retirement import Retirement
from lora_router.adapters.wanted_adapter import may_be_on
from lora_router.fleet.pod_state import PodState
from lora_router.routing.selection import EVERY_POD, Selection

_NO_POD_SECONDS = 5.0
"""After which it is looked again whether some pod may have an adapter that none may have."""

_Key: TypeAlias = tuple[float, ...]
"""By which the best of several pods is first."""


class KnowsSelections(Protocol):
    """What knows to which pods requests may go that wait."""

    def selections(self, served: str) -> Collection[Selection]:
        """Return to which pods requests for an adapter may go that wait, in the order they came."""

    def selects(self, selection: Selection, state: PodState) -> bool:
        """Return whether requests may go to a pod."""


class PodSearch:
    """One search, to which pods are shown one after the other."""

    def __init__(
        self,
        adapter: DeclaredAdapter,
        retirement: Retirement,
        failing: Mapping[PodState, Failure],
        waits: KnowsSelections | None,
        now: float,
        *,
        is_waited_for: bool,
    ) -> None:
        """Begin without pods.

        Args:
            adapter: The adapter.
            retirement: Knows what may be unloaded.
            failing: The pods that failed to load it.
            waits: Knows to which pods requests may go; ``None``: to all.
            now: Seconds, monotonic.
            is_waited_for: Whether requests wait, so that others make room.
        """
        self._adapter = adapter
        self._retirement = retirement
        self._failing = failing
        self._waits = waits
        self._now = now
        self._is_waited_for = is_waited_for
        self.selections = (
            (EVERY_POD,) if waits is None else tuple(waits.selections(adapter.served_name))
        )
        self.in_vain = dict.fromkeys(self.selections)
        """Those to which pods no pod can load it that was looked at."""
        self.best: PodLoads | None = None
        """The pod that can serve it soonest."""
        self._best_key: _Key = ()
        self._may_load = self._fails = self._full = 0
        self._next_at = now + _NO_POD_SECONDS

    @property
    def seconds(self) -> float:
        """In how many seconds another search may find more."""
        return max(0.0, self._next_at - self._now)

    @property
    def why_none(self) -> str:
        """Why none of the pods can load it; empty: some can, or may later."""
        if self._may_load:
            return ""
        return "no pod has room for it" if self._full and not self._fails else "no pod can load it"

    def look_at(self, pod: PodLoads) -> None:
        """Look at a pod."""
        if not may_be_on(self._adapter, pod.state):
            return
        failure, now = self._failing.get(pod.state), self._now
        if (failure is not None and failure.next_at > now) or pod.blocked_until > now:
            until = max(pod.blocked_until, now if failure is None else failure.next_at)
            self._next_at = min(self._next_at, until) if self._fails else until
            self._fails += 1
        elif pod.is_fit(now) and self._stays_full(pod):
            self._full += 1
        else:
            self._may_load += 1
            self._compare(pod)

    def _compare(self, pod: PodLoads) -> None:
        excluded = []
        for selection in self.selections:
            is_excluded = self._waits is not None and not self._waits.selects(selection, pod.state)
            excluded.append(is_excluded)
            if not is_excluded:
                self.in_vain.pop(selection, None)
        has_room = self._is_waited_for or pod.free > len(pod.missing)
        if not all(excluded) and has_room and pod.is_fit(self._now):
            key = (*excluded, *_preference(pod, self._adapter, self._now))
            if self.best is None or key < self._best_key:
                self.best, self._best_key = pod, key

    def _stays_full(self, pod: PodLoads) -> bool:
        """Return whether nothing that the pod lists may leave for another adapter."""
        if pod.free > 0 or pod.leaving is not None or pod.lost:
            return False
        return not any(map(self._retirement.may_make_room, pod.state.adapters))


def _preference(pod: PodLoads, adapter: DeclaredAdapter, now: float) -> _Key:
    """Return a key by which the pod is first that can serve an adapter soonest.

    It has a slot for it, and the fewest loads to do before. Of several, it is one on which the
    adapter belongs, and then the one with the fewest requests for each slot. An adapter with a
    declared number of copies goes where it belongs, because it may not stay anywhere else. A pod
    whose last call failed, or whose call takes long, comes last.
    """
    is_elsewhere = adapter.served_name not in pod.wanted
    is_bound = adapter.pods.copies is not None
    beliefs, before = pod.state.beliefs, len(pod.first)
    has_slot = beliefs.free_slots is None or beliefs.free_slots > before
    loads = max(before, pod.call is not None)
    requests = pod.requests / (beliefs.slots or 1)
    fails, is_excluded = pod.fails or pod.is_slow(now), is_bound and is_elsewhere
    return fails, is_excluded, not has_slot, loads, is_elsewhere, pod.free <= 0, requests
