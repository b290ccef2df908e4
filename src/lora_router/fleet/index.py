"""An index of the ready pods by adapter and by load, updated when something changes.

Inspecting each of a thousand pods costs a millisecond per request. What algorithms ask changes only
with a reservation, a release, a scrape, a share of a peer, or a change of pods, so the index is
updated then. The index only finds the pods that are worth inspecting. The pods' records remain the
source of truth.
"""

from collections.abc import Callable, Collection, Iterable

from lora_router.fleet.base_totals import BaseTotals, Total
from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.idle_adapters import idle_on
from lora_router.fleet.load_order import LoadOrder
from lora_router.fleet.pod_state import PodState

_USERS = 8
"""How many pods are stored for an adapter as its most recent users."""
_ADAPTERS = 65_536
"""How many adapters have their users stored. It bounds the memory."""
_FORGOTTEN_AT_ONCE = 16
"""How many adapters of pods that left are forgotten at once."""
_MAX_PENDING = 512
"""How many changes may be pending before they are applied."""
_NO_PODS: dict[PodState, None] = {}


class FleetIndex:
    """The index of the ready pods. Only the fleet and the ledger write to it.

    Call ``refresh`` before you read it: requests that start or end are only recorded as pending
    changes. Before the first ``refresh`` the index is not built at all, because algorithms inspect
    all pods of a small fleet and never use it.
    """

    __slots__ = (
        "_active",
        "_built",
        "_by_base",
        "_changes",
        "_early",
        "_left",
        "_running",
        "_used",
        "_users",
        "by_load",
        "followers",
        "free",
        "slots",
        "with_room",
    )

    def __init__(self) -> None:
        self.by_load = LoadOrder()
        """All ready pods, by this router's requests in flight."""
        self.with_room = LoadOrder()
        """The ready pods that have a free slot or an unknown number of slots, by the requests of
        all senders."""
        self.slots = 0
        """The number of slots of all pods whose number of slots is known."""
        self.free = 0
        """The number of those slots without an adapter in flight."""
        self.followers: list[Callable[[PodState], None]] = []
        """Called with each pod whose load or slots were applied here."""
        self._by_base: BaseTotals | None = None
        """``None``: nobody has asked, as in a fleet with one base model."""
        self._built = False
        self._early: dict[PodState, None] = {}
        """The ready pods, until the index is built."""
        self._running: dict[str, dict[PodState, None]] = {}
        self._users: dict[str, dict[PodState, None]] = {}
        self._used: dict[PodState, set[str]] = {}
        """The reverse of ``_users``."""
        self._left: dict[PodState, None] = {}
        """Pods that left and still are in ``_users``. What they used is forgotten with the next
        scrapes, a part with each, because hundreds of pods may leave at once. What is not forgotten
        when a pod comes back counts again: its server most likely still has it."""
        self._active: dict[PodState, tuple[frozenset[str], int, int]] = {}
        """What was last applied for each pod: the adapters shown in flight, the slots, and the free
        slots."""
        self._changes: dict[tuple[PodState, str | None], None] = {}
        """Pending changes, the most recent one last. They are deferred because most requests start
        and end before anybody reads the index."""

    def running(self, adapter: str) -> Collection[PodState]:
        """Return the pods on which an adapter is in flight, by ledgers or the last scrape."""
        return self._running.get(adapter, _NO_PODS)

    def users(self, adapter: str) -> Collection[PodState]:
        """Return the most recent pods that used an adapter. They probably still have it loaded."""
        users = self._users.get(adapter, _NO_PODS)
        if self._left and users:
            return [pod for pod in users if pod not in self._left]
        return users

    def total_of(self, bases: BaseModels) -> Total:
        """Return the load and the slots of the ready pods that serve some base models."""
        totals = self._by_base
        if totals is None:
            totals = self._by_base = BaseTotals()
            for pod, (_, slots, free) in self._active.items():
                totals.count(pod, slots, free)
        return totals.of(bases)

    # Updates from the fleet and the ledger

    def put(self, pod: PodState) -> None:
        """Add a ready pod, or update it after a scrape or a peer's share."""
        if not self._built:
            self._early[pod] = None
            return
        self.refresh()
        active = pod.beliefs.shown
        known = self._active.get(pod)
        before = known[0] if known is not None else None
        if active is not before:
            self._active[pod] = active, *(known[1:] if known is not None else (0, 0))
            for adapter in before - active if before else ():
                self._stopped(adapter, pod)
            for adapter in active - before if before else active:
                self._runs(adapter, pod)
        if self._left:
            self._left.pop(pod, None)
            self._forget_left()
        if known is None:
            for adapter in pod.in_flight_adapters:
                self._runs(adapter, pod)
            self.used(pod, idle_on(pod.beliefs, 0.0))
        self._moved(pod)

    def remove(self, pod: PodState) -> None:
        """Remove a pod that has left or is not ready any more."""
        if not self._built:
            self._early.pop(pod, None)
            return
        self.refresh()
        known = self._active.pop(pod, None)
        if known is None:
            return
        active, slots, free = known
        if self._by_base is not None:
            self._by_base.remove(pod)
        self.slots -= slots
        self.free -= free
        self.by_load.remove(pod)
        self.with_room.remove(pod)
        for adapter in (*active, *pod.in_flight_adapters):
            self._forget(self._running, adapter, pod)
        if pod in self._used:
            self._left[pod] = None

    def changed(self, pod: PodState, adapter: str | None) -> None:
        """Record that one request more or less is on a pod.

        The change stays pending until ``refresh``.
        """
        if not self._built:
            return
        changes = self._changes
        change = (pod, adapter)
        if change in changes:
            del changes[change]
        changes[change] = None
        if len(changes) >= _MAX_PENDING:
            self.refresh()

    def used(self, pod: PodState, adapters: Iterable[str]) -> None:
        """Record that a pod has used adapters that may be in flight there no more."""
        if pod in self._active:
            for adapter in adapters:
                self._runs(adapter, pod)
                self._stopped(adapter, pod)

    def refresh(self) -> None:
        """Apply all pending changes."""
        if not self._built:
            self._built = True
            early, self._early = self._early, {}
            for pod in early:
                self.put(pod)
        changes = self._changes
        if not changes:
            return
        self._changes = {}
        for pod, adapter in changes:
            if adapter is not None and pod in self._active:
                self._runs(adapter, pod)
                self._stopped(adapter, pod)
        for pod in {pod: None for pod, _ in changes}:
            if pod in self._active:
                self._moved(pod)

    def _moved(self, pod: PodState) -> None:
        """Apply a pod's load and its free slots."""
        beliefs = pod.beliefs
        active, slots, free = self._active[pod]
        self.by_load.put(pod, pod.in_flight + beliefs.peers.requests)
        room = beliefs.free_slots
        now_slots, now_free = (0, 0) if room is None else (beliefs.slots or 0, max(0, room))
        if (now_slots, now_free) != (slots, free):
            self.slots += now_slots - slots
            self.free += now_free - free
            self._active[pod] = active, now_slots, now_free
        if room is None or room > 0:
            self.with_room.put(pod, pod.in_flight + beliefs.foreign_requests)
        else:
            self.with_room.remove(pod)
        if self._by_base is not None:
            self._by_base.count(pod, now_slots, now_free)
        for follow in self.followers:
            follow(pod)

    # By adapter

    def _runs(self, adapter: str, pod: PodState) -> None:
        running = self._running.get(adapter)
        if running is None:
            running = self._running[adapter] = {}
        running[pod] = None
        users = self._users.get(adapter)
        if users is None:
            if len(self._users) >= _ADAPTERS:
                self._forget_users(next(iter(self._users)))
            users = self._users[adapter] = {}
        if pod in users:
            del users[pod]
        else:
            used = self._used.get(pod)
            if used is None:
                used = self._used[pod] = set()
            used.add(adapter)
        users[pod] = None
        if len(users) > _USERS:
            oldest = next(iter(users))
            del users[oldest]
            self._no_longer_used(oldest, adapter)

    def _forget_left(self) -> None:
        """Forget some of what pods used that left."""
        for _ in range(_FORGOTTEN_AT_ONCE):
            pod = next(iter(self._left), None)
            if pod is None:
                return
            adapter = next(iter(self._used[pod]))
            self._no_longer_used(pod, adapter)
            self._forget(self._users, adapter, pod)

    def _forget_users(self, adapter: str) -> None:
        for pod in self._users.pop(adapter):
            self._no_longer_used(pod, adapter)

    def _no_longer_used(self, pod: PodState, adapter: str) -> None:
        used = self._used[pod]
        used.remove(adapter)
        if not used:
            del self._used[pod]
            self._left.pop(pod, None)

    def _stopped(self, adapter: str, pod: PodState) -> None:
        if adapter not in pod.in_flight_adapters and adapter not in pod.beliefs.shown:
            self._forget(self._running, adapter, pod)

    @staticmethod
    def _forget(index: dict[str, dict[PodState, None]], adapter: str, pod: PodState) -> None:
        pods = index.get(adapter)
        if pods is not None and pod in pods:
            del pods[pod]
            if not pods:
                del index[adapter]
