"""The peers: the last share of each of them, and the allotment of free slots that follows."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare, PodShare
from lora_router.fleet.pod_peers import Allotment
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.slot_allotment import Claim, allotments_of, rotation

MISSED = 3
"""How many shares a router may miss before it is treated as gone."""
QUIET = 4
"""After how many of this router's own shares without one of a peer it is allotted no slot.

TCP needs less time to send a lost packet again.
"""
_NONE: frozenset[str] = frozenset()


class _Settled(NamedTuple):
    """What the allotment of a pod followed from, beside its position, when it was computed."""

    reported: frozenset[str]
    foreign: Collection[str]
    allotment: Allotment | None
    slots: int | None
    somebody_waits: bool
    is_ready: bool


@dataclass(frozen=True, slots=True)
class _Received:
    share: LedgerShare
    at: float


class Peers:
    """Stores the last share of each peer, and updates the beliefs about each pod from it.

    Times are seconds on this router's monotonic clock. No router needs to know another router's
    clock.
    """

    def __init__(self) -> None:
        self._received: dict[str, _Received] = {}
        """By the names of the peers."""
        self._faded: set[str] = set()
        """The peers whose shares are forgotten for some pods, because they are quiet."""
        self._own: _Received | None = None
        self.closed_slots = 0
        """How many slots peers have closed for adapters that wait."""
        self._claimed: dict[str, tuple[int, float]] = {}
        """The adapters that this router holds, each with the number and time of the first of its
        shares that reported it."""
        self._untouched: dict[PodState, tuple[int, float]] = {}
        """For each pod, the number of free slots that nobody claims, and since when it has been
        that number."""
        self._positions: Mapping[PodState, int] = {}
        """The positions of the pods in the last allotment of all slots."""
        self._place = 0
        """This router's position among all routers, as of that allotment."""
        self._routers = 1
        self._has_claims = False
        """Whether anybody claimed a slot then."""
        self._allotted_among: frozenset[str] = frozenset()
        """The peers of then."""
        self._allotted_states: dict[str, PodState] = {}
        """The pods of then, by name."""
        self._settled: dict[PodState, _Settled] = {}
        """What the allotment of each pod follows from, unless time changes it too."""
        self._shared: dict[str, PodState] = {}
        """The pods that have what peers reported, as of this router's last share."""

    def report(
        self,
        router: str,
        every: float,
        held: Mapping[str, HeldShare],
        states: Mapping[str, PodState],
        now: float,
        ejected: Mapping[str, tuple[str, str]] | None = None,
    ) -> tuple[LedgerShare, Collection[PodState]]:
        """Return this router's share and the pods that it changes. The caller must send the share.

        Peers that have missed more than ``MISSED`` shares are dropped. Pods that are new get what
        peers reported.
        """
        changed: dict[PodState, None] = {}
        for name, received in tuple(self._received.items()):
            if now - received.at > MISSED * received.share.every:
                del self._received[name]
                self._faded.discard(name)
                changed.update((state, None) for state in _forget(name, states.values()))
        changed.update((state, None) for state in self._apply_to_new(states))
        changed.update((state, None) for state in self._fade(states, now, every))
        before: Mapping[str, PodShare] = {} if self._own is None else self._own.share.pods
        pods = {}
        for state in states.values():
            if state.in_flight:
                pods[state.pod.name] = _share_of(state, before.get(state.pod.name))
            elif state.beliefs.peers.reported:
                state.beliefs.peers.reported = frozenset()
        number = 1 if self._own is None else self._own.share.number + 1
        heard = {name: received.share.number for name, received in self._received.items()}
        self._claimed = {name: self._claimed.get(name, (number, now)) for name in held}
        share = LedgerShare(router, number, every, pods, held, heard, ejected or {})
        self._own = _Received(share, now)
        changed.update((state, None) for state in self._allot(states, now))
        return share, changed

    def put(
        self, share: LedgerShare, states: Mapping[str, PodState], now: float
    ) -> Collection[PodState]:
        """Store a peer's share; return the pods that it changes.

        Args:
            share: The share.
            states: All pods, by name.
            now: The time.
        """
        router = share.router
        last = self._received.get(router)
        if last is not None and 1 < share.number <= last.share.number:
            return ()  # A newer share arrived first. Number 1 comes from a router that restarted.
        self._received[router] = _Received(share, now)
        last_at = float("-inf") if last is None else last.at
        before: Mapping[str, PodShare] = {} if last is None else last.share.pods
        changed: dict[PodState, None] = {}
        has_faded = router in self._faded
        self._faded.discard(router)
        for name in {**before, **share.pods} if has_faded else _differences(before, share.pods):
            state = states.get(name)
            if state is not None and _put_share(state, router, share, last_at):
                changed[state] = None
        changed.update((state, None) for state in self._allot_after(tuple(changed), states, now))
        return changed

    def forget(
        self, router: str, states: Mapping[str, PodState], now: float
    ) -> Collection[PodState]:
        """Forget a peer that stopped; return the pods that it changes."""
        if self._received.pop(router, None) is None:
            return ()
        self._faded.discard(router)
        changed = dict.fromkeys(_forget(router, states.values()))
        changed.update((state, None) for state in self._allot(states, now))
        return changed

    def _fade(self, states: Mapping[str, PodState], now: float, every: float) -> list[PodState]:
        """Forget the shares of quiet peers for the pods that were scraped since.

        Such a scrape shows the requests of the share that still run, and those that came later.
        """
        changed = []
        for name, received in self._received.items():
            quiet_at = received.at + QUIET * every
            if now > quiet_at:
                self._faded.add(name)
                scraped = (each for each in states.values() if each.beliefs.scraped_at > quiet_at)
                changed += _forget(name, scraped)
        return changed

    def _apply_to_new(self, states: Mapping[str, PodState]) -> list[PodState]:
        """Apply the shares to the pods that are new since this router's last share."""
        if self._shared == states:
            return []
        new = [each for name, each in states.items() if self._shared.get(name) is not each]
        self._shared = dict(states)
        return [
            state
            for state in new
            for router, received in self._received.items()
            if _put_share(state, router, received.share, received.at)
        ]

    def _allot_after(
        self, moved: Collection[PodState], states: Mapping[str, PodState], now: float
    ) -> list[PodState]:
        """Compute the allotment after a peer's share changed some pods; return the changed pods.

        A claim, another router or another pod changes what is allotted on other pods. So do scrapes
        and time, but it is soon enough to see these with this router's next share.
        """
        if (
            self._own is None
            or self._has_claims
            or (talking := self._talking(now)) != self._allotted_among
            or len(states) != len(self._positions)
            or self._somebody_holds(talking)
        ):
            return self._allot(states, now)
        return self._allot_unclaimed(moved, now)

    def _talking(self, now: float) -> frozenset[str]:
        """Return the peers that sent a share lately: only they can leave slots to others.

        A peer that is silent for longer may be gone, or not hear this router. What it has in flight
        still counts until it is forgotten, but no slot waits for it, and its claims do not count.
        """
        if self._own is None:
            return frozenset(self._received)
        longest = QUIET * self._own.share.every
        return frozenset(
            name for name, received in self._received.items() if now - received.at <= longest
        )

    def held(self) -> list[Mapping[str, HeldShare]]:
        """Return what each peer holds, by adapter, as of its last share."""
        return [received.share.held for received in self._received.values()]

    def _somebody_holds(self, talking: Collection[str]) -> bool:
        return bool(self._claimed) or any(self._received[each].share.held for each in talking)

    def _allot(self, states: Mapping[str, PodState], now: float) -> list[PodState]:
        """Compute this router's allotment and the closed slots; return the changed pods.

        Before this router has sent its first share, peers do not include it in their computation.
        Until then, or if there are no peers, it may take every free slot.
        """
        talking = self._talking(now)
        if self._own is None or not talking:
            self._allotted_among = talking
            self._untouched = {}
            self._positions = {}
            self._allotted_states = {}
            self._has_claims = False
            self.closed_slots = 0
            return [state for state in states.values() if _put(state, None, frozenset())]
        own = self._own.share
        if talking != self._allotted_among or self._allotted_states != states:
            self._put_in_order(own.router, talking, states)
        had_claims, self._has_claims = self._has_claims, self._somebody_holds(talking)
        if not self._has_claims and not had_claims:
            if len(self._untouched) > len(states):
                self._untouched = {}
            self.closed_slots = 0
            return self._allot_unclaimed(self._positions, now)
        in_order = list(self._positions)
        routers = sorted((own.router, *talking))
        closed: dict[str, set[str]] = {}
        for name in talking:
            for held in self._received[name].share.held.values():
                if held.closed is not None:
                    closed.setdefault(held.closed[0], set()).add(held.closed[1])
        self.closed_slots = sum(map(len, closed.values()))
        free = [state.beliefs.reported_free_slots() if state.pod.ready else 0 for state in in_order]
        positions = {state.pod.name: position for position, state in enumerate(in_order)}
        allotments = allotments_of(own.router, routers, free, self._claims(talking, positions, now))
        untouched = {}
        changed = []
        for state, allotted, unclaimed in zip(
            in_order, allotments.allotted, allotments.unclaimed, strict=True
        ):
            since = untouched[state] = self._unclaimed_since(state, unclaimed, now)
            allotment = Allotment.of(
                allotted, unclaimed, now - since[1], own.every, may_reuse=allotments.may_reuse
            )
            names = closed.get(state.pod.name)
            if _put(state, allotment, frozenset(names) if names else _NONE):
                changed.append(state)
        self._untouched = untouched
        return changed

    def _put_in_order(
        self, router: str, talking: frozenset[str], states: Mapping[str, PodState]
    ) -> None:
        """Find the positions of the pods and of this router, from which the allotment follows."""
        routers = sorted((router, *talking))
        self._allotted_among, self._allotted_states = talking, dict(states)
        self._place, self._routers = routers.index(router), len(routers)
        self._positions = {states[name]: position for position, name in enumerate(sorted(states))}
        self._settled = {}

    def _allot_unclaimed(self, states: Collection[PodState], now: float) -> list[PodState]:
        """Compute the allotment of some pods, while nobody claims or closes a slot.

        The slots of a pod are then allotted whatever is free on other pods. Most pods have not
        changed. A pod that is new is allotted with this router's next share.
        """
        assert self._own is not None  # noqa: S101 -- the caller has looked
        every = self._own.share.every
        positions, untouched, settled = self._positions, self._untouched, self._settled
        changed = []
        for state in states:
            position = positions.get(state)
            if position is None:
                continue
            beliefs = state.beliefs
            peers = beliefs.peers
            last = settled.get(state)
            if last is not None:
                reported, foreign, allotment, slots, somebody_waits, is_ready = last
                if (
                    reported is peers.reported
                    and foreign is beliefs.foreign_adapters
                    and allotment is peers.allotment
                    and slots == beliefs.slots
                    and somebody_waits is beliefs.somebody_waits
                    and is_ready is state.pod.ready
                ):
                    continue
            free = beliefs.reported_free_slots() if state.pod.ready else 0
            since = untouched.get(state)
            if since is None or since[0] != free:
                since = untouched[state] = free, now
            allotted = rotation(free, self._place, position, self._routers) if free else 0
            allotment = peers.allotment
            if (
                allotment is None
                or allotment.slots != allotted
                or allotment.slots_if_loaded < free
                or allotment.slots_if_loaded > max(free, allotted)
                or free == 1
            ):
                allotment = Allotment.of(allotted, free, now - since[1], every, may_reuse=True)
                if _put(state, allotment, _NONE):
                    changed.append(state)
            if free == 1:
                settled.pop(state, None)  # Time changes its allotment too.
            else:
                settled[state] = _Settled(
                    *(peers.reported, beliefs.foreign_adapters, peers.allotment),
                    *(beliefs.slots, beliefs.somebody_waits, state.pod.ready),
                )
        return changed

    def _unclaimed_since(self, state: PodState, unclaimed: int, now: float) -> tuple[int, float]:
        last = self._untouched.get(state)
        return last if last is not None and last[0] == unclaimed else (unclaimed, now)

    def _claims(
        self, talking: Collection[str], positions: Mapping[str, int], now: float
    ) -> Collection[Claim]:
        """Return one claim for each held adapter: that of the router that has held it longest."""
        claims: dict[str, Claim] = {}
        for received in (self._own, *(self._received[each] for each in sorted(talking))):
            if received is None:
                continue
            for adapter, held in received.share.held.items():
                if received.share.has_sent(adapter, held):
                    continue
                heard_by = self._acknowledged_by(adapter, now) if received is self._own else ()
                wanted = None if held.wanted is None else positions.get(held.wanted)
                since = received.at - held.seconds
                claim = Claim(since, received.share.router, adapter, wanted, heard_by)
                if adapter not in claims or since < claims[adapter].since:
                    claims[adapter] = claim
        return claims.values()

    def _acknowledged_by(self, adapter: str, now: float) -> Collection[str]:
        """Return the peers that have acknowledged that this router holds an adapter.

        After ``MISSED`` share intervals all peers are assumed to know it.
        """
        assert self._own is not None  # noqa: S101 -- claims come from shares
        own = self._own.share
        number, at = self._claimed[adapter]
        if now - at > MISSED * own.every:
            return self._received.keys()
        return [
            name
            for name, received in self._received.items()
            if received.share.heard.get(own.router, 0) >= number
        ]


def _differences(before: Mapping[str, PodShare], after: Mapping[str, PodShare]) -> Collection[str]:
    """Return the names of the pods on which two shares differ.

    Most pods of most shares have not changed, and are the same objects.
    """
    differences = [name for name, share in after.items() if before.get(name) is not share]
    differences += before.keys() - after.keys()
    return differences


def _put_share(state: PodState, router: str, share: LedgerShare, last_at: float) -> bool:
    """Apply a peer's share to one pod; return whether that changed anything."""
    pod = state.pod
    found = share.pods.get(pod.name)
    if found is not None and found.server != (pod.address, pod.uid):
        found = None
    return state.beliefs.put_share(router, found, last_at)


def _forget(router: str, states: Iterable[PodState]) -> list[PodState]:
    """Forget a peer's share for some pods; return the pods that this changes."""
    return [state for state in states if state.beliefs.forget_peer(router)]


def _share_of(state: PodState, before: PodShare | None) -> PodShare:
    """Return what this router has in flight on a pod: the same object while it is the same."""
    pod, requests = state.pod, state.in_flight
    if (
        before is not None
        and before.requests == requests
        and before.adapters == state.in_flight_adapters
        and before.server == (pod.address, pod.uid)
        and len(before.adapters) == len(state.beliefs.peers.reported)
    ):
        return before
    state.beliefs.peers.reported = frozenset(state.in_flight_adapters)
    return PodShare((pod.address, pod.uid), requests, dict(state.in_flight_adapters))


def _put(state: PodState, allotment: Allotment | None, closed: frozenset[str]) -> bool:
    """Store a pod's allotment and closed slots; return whether they changed."""
    peers = state.beliefs.peers
    if (peers.allotment, peers.closed) == (allotment, closed):
        return False
    peers.allotment, peers.closed = allotment, closed
    return True
