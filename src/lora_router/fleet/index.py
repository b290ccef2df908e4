"""Who has what, by adapter and by load: kept when something changes, so that nobody has to look.

A look at each of a thousand pods costs a millisecond, for each request. What algorithms ask about
is known when it changes: a reservation, a release, a scrape, a pod that comes or goes. The index
only finds the pods that are worth a look. What is true of them, their records say.
"""

from collections.abc import Collection

from lora_router.fleet.load_order import LoadOrder
from lora_router.fleet.pod_state import PodState

_USERS = 8
"""Pods remembered for an adapter as having used it last."""
_ADAPTERS = 65_536
"""Adapters remembered with their users, which bounds the memory."""
_PUT_OFF = 512
"""Changes that are noted at most before they are taken in."""
_NOBODY: dict[PodState, None] = {}


class FleetIndex:
    """Of the ready pods. Written by the cache and the ledger only.

    ``refresh`` first: requests that came and went since the last time are only noted. Before the
    first time nothing is kept at all, as small fleets are looked at in full and never ask.
    """

    __slots__ = (
        "_active",
        "_changes",
        "_early",
        "_kept",
        "_running",
        "_users",
        "by_load",
        "free",
        "slots",
        "with_room",
    )

    def __init__(self) -> None:
        self.by_load = LoadOrder()
        """All of them, by this router's requests in flight."""
        self.with_room = LoadOrder()
        """Those with a slot to spare, or nobody knows how many, by everyone's requests."""
        self.slots = 0
        """Of all pods that say how many they have."""
        self.free = 0
        """Of those, without an adapter in flight."""
        self._kept = False
        self._early: dict[PodState, None] = {}
        """The ready pods, until they are kept."""
        self._running: dict[str, dict[PodState, None]] = {}
        self._users: dict[str, dict[PodState, None]] = {}
        self._active: dict[PodState, tuple[frozenset[str], int, int]] = {}
        """What was last taken in of each pod: what it shows in flight, slots and free slots."""
        self._changes: dict[tuple[PodState, str | None], None] = {}
        """What changed and is not taken in, the last change last; most requests come and go
        before anybody asks."""

    def running(self, adapter: str) -> Collection[PodState]:
        """Return the pods on which an adapter is in flight, by ledgers or the last scrape."""
        return self._running.get(adapter, _NOBODY)

    def users(self, adapter: str) -> Collection[PodState]:
        """Return the pods that used an adapter last, which probably still have it."""
        return self._users.get(adapter, _NOBODY)

    # What the cache and the ledger tell

    def put(self, pod: PodState) -> None:
        """Take a ready pod in, or what a scrape or another router changed about it."""
        if not self._kept:
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
        if known is None:
            for adapter in pod.in_flight_adapters:
                self._runs(adapter, pod)
        self._moved(pod)

    def remove(self, pod: PodState) -> None:
        """Forget a pod that is gone, or not ready any more."""
        if not self._kept:
            self._early.pop(pod, None)
            return
        self.refresh()
        known = self._active.pop(pod, None)
        if known is None:
            return
        active, slots, free = known
        self.slots -= slots
        self.free -= free
        self.by_load.remove(pod)
        self.with_room.remove(pod)
        for adapter in (*active, *pod.in_flight_adapters):
            self._forget(self._running, adapter, pod)
        for adapter in tuple(self._users):
            self._forget(self._users, adapter, pod)

    def changed(self, pod: PodState, adapter: str | None) -> None:
        """Take note of one request more or less on a pod, for when somebody asks."""
        if not self._kept:
            return
        changes = self._changes
        change = (pod, adapter)
        if change in changes:
            del changes[change]
        changes[change] = None
        if len(changes) >= _PUT_OFF:
            self.refresh()

    def refresh(self) -> None:
        """Take in what changed since the last time."""
        if not self._kept:
            self._kept = True
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
        """Take in a pod's load and room."""
        beliefs = pod.beliefs
        active, slots, free = self._active[pod]
        self.by_load.put(pod, pod.in_flight)
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

    # By adapter

    def _runs(self, adapter: str, pod: PodState) -> None:
        running = self._running.get(adapter)
        if running is None:
            running = self._running[adapter] = {}
        running[pod] = None
        users = self._users.get(adapter)
        if users is None:
            if len(self._users) >= _ADAPTERS:
                del self._users[next(iter(self._users))]
            users = self._users[adapter] = {}
        users.pop(pod, None)
        users[pod] = None
        if len(users) > _USERS:
            del users[next(iter(users))]

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
