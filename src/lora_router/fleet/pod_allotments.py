"""Which free slots of each pod this router may take, kept up to date as shares arrive.

``slot_allotment`` has the rules. This module applies them to the pods, and computes as little as
the last shares require: while nobody claims a slot, only the pods that changed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.claims import Claims
from lora_router.fleet.peer_shares import PeerShares
from lora_router.fleet.pod_peers import Allotment
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.slot_allotment import Claim, allotments_of, rotation
from lora_router.fleet.waiting_at_peers import WaitingAtPeers

_NONE: frozenset[str] = frozenset()


class _Settled(NamedTuple):
    """What the allotment of a pod followed from, beside its position, when it was computed."""

    reported: frozenset[str]
    foreign: Collection[str]
    allotment: Allotment | None
    slots: int | None
    somebody_waits: bool
    is_ready: bool


class PodAllotments:
    """The allotment of each pod's free slots to this router, and the slots that peers closed."""

    def __init__(
        self,
        shares: PeerShares,
        claims: Claims,
        listing: Callable[[str], Collection[PodState]],
    ) -> None:
        """Allot nothing yet.

        Args:
            shares: The last share of each router.
            claims: Which held adapters claim slots.
            listing: Returns the pods that list an adapter: the same object for those that the same
                pods list.
        """
        self._shares = shares
        self._claims = claims
        self._listing = listing
        self.closed_slots: dict[BaseModels, int] = {}
        """How many slots peers have closed for adapters that wait, by the pods' base models."""
        self.waiting = WaitingAtPeers()
        """The adapters that wait for slots at peers."""
        self._untouched: dict[PodState, tuple[int, float]] = {}
        """For each pod, the number of free slots that nobody claims, and since when it has been
        that number."""
        self._places: dict[str, PodState] = {}
        """By adapter, the pods on which claims got slots."""
        self._positions: Mapping[PodState, int] = {}
        """The positions of the pods in the last allotment of all slots."""
        self._place = 0
        """This router's position among all routers, as of that allotment."""
        self._routers = 1
        self._has_claims = False
        """Whether anybody claimed a slot then."""
        self._among: frozenset[str] = frozenset()
        """The peers of then."""
        self._states: dict[str, PodState] = {}
        """The pods of then, by name."""
        self._settled: dict[PodState, _Settled] = {}
        """What the allotment of each pod follows from, unless time changes it too."""

    def renew_after(
        self, moved: Collection[PodState], states: Mapping[str, PodState], now: float
    ) -> list[PodState]:
        """Compute the allotment after a peer's share changed some pods; return the changed pods.

        A claim, another router or another pod changes what is allotted on other pods. So do scrapes
        and time, but it is soon enough to see these with this router's next share.
        """
        changed = self.renew_only(moved, states, now)
        return self.renew(states, now) if changed is None else changed

    def renew_only(
        self, moved: Collection[PodState], states: Mapping[str, PodState], now: float
    ) -> list[PodState] | None:
        """Compute the allotment of some pods; ``None``: that of all pods must be computed."""
        if (
            self._shares.own is None
            or self._has_claims
            or (talking := self._shares.talking(now)) != self._among
            or len(states) != len(self._positions)
            or self._claims.somebody_holds(talking)
        ):
            return None
        return self._renew_unclaimed(moved, now)

    def renew(self, states: Mapping[str, PodState], now: float) -> list[PodState]:
        """Compute this router's allotment and the closed slots; return the changed pods.

        Before this router has sent its first share, peers do not include it in their computation.
        Until then, or if there are no peers, it may take every free slot.
        """
        talking = self._shares.talking(now)
        if self._shares.own is None or not talking:
            self._among = talking
            self._untouched = {}
            self._positions = {}
            self._states = {}
            self._has_claims = False
            self.closed_slots = {}
            self._places = {}
            self._note_waiting((), frozenset())
            return [state for state in states.values() if _put(state, None, _NONE, now)]
        own = self._shares.own.share
        if talking != self._among or self._states != states:
            self._put_in_order(own.router, talking, states)
        had_claims, self._has_claims = self._has_claims, self._claims.somebody_holds(talking)
        if not self._has_claims and not had_claims:
            if len(self._untouched) > len(states):
                self._untouched = {}
            self.closed_slots = {}
            self._note_waiting((), talking)
            self._places = {}
            return self._renew_unclaimed(self._positions, now)
        in_order = list(self._positions)
        routers = sorted((own.router, *talking))
        closed: dict[str, set[str]] = {}
        for name in talking:
            for held in self._shares.received[name].share.held.values():
                if held.closed is not None:
                    closed.setdefault(held.closed[0], set()).add(held.closed[1])
        self.closed_slots = _by_base(closed, states)
        free = [_reported_free(state) for state in in_order]
        positions = {state.pod.name: position for position, state in enumerate(in_order)}
        claims = self._claims.of(talking, positions, self._fits(), now)
        before = {
            adapter: place
            for adapter, state in self._places.items()
            if adapter in state.adapters and (place := self._positions.get(state)) is not None
        }
        allotments = allotments_of(own.router, routers, free, claims, before)
        self._note_waiting(allotments.claims, talking)
        self._places = {name: in_order[place] for name, place in allotments.places.items()}
        untouched = {}
        changed = []
        for state, allotted, unclaimed, may_reuse in zip(
            in_order,
            allotments.allotted,
            allotments.unclaimed,
            allotments.may_reuse,
            strict=True,
        ):
            since = untouched[state] = self._unclaimed_since(state, unclaimed, now)
            allotment = Allotment.of(
                allotted, unclaimed, now - since[1], own.every, may_reuse=may_reuse
            )
            names = closed.get(state.pod.name)
            if _put(state, allotment, frozenset(names) if names else _NONE, now):
                changed.append(state)
        self._untouched = untouched
        return changed

    def _note_waiting(self, claims: Sequence[Claim], talking: frozenset[str]) -> None:
        own = self._shares.own
        held = () if own is None else own.share.held.keys()
        self.waiting.put(claims, held, talking, self.bases_of)

    def bases_of(self, adapter: str) -> BaseModels:
        """Return the base models of the pods that list an adapter."""
        return next((pod.base_models for pod in self._listing(adapter)), frozenset())

    def _fits(self) -> Callable[[str], Sequence[int] | None]:
        """Make a function that returns the positions of the pods that list an adapter.

        It returns ``None`` for all pods, and the same object for all adapters on the same pods.
        """
        positions, listing = self._positions, self._listing
        known: dict[int, tuple[Collection[PodState], Sequence[int] | None]] = {}

        def fits_of(adapter: str) -> Sequence[int] | None:
            pods = listing(adapter)
            found = known.get(id(pods))
            if found is None:
                fits = [positions[pod] for pod in pods if pod in positions]
                found = known[id(pods)] = pods, None if len(fits) == len(positions) else fits
            return found[1]

        return fits_of

    def _put_in_order(
        self, router: str, talking: frozenset[str], states: Mapping[str, PodState]
    ) -> None:
        """Find the positions of the pods and of this router, from which the allotment follows."""
        routers = sorted((router, *talking))
        self._among, self._states = talking, dict(states)
        self._place, self._routers = routers.index(router), len(routers)
        self._positions = {states[name]: position for position, name in enumerate(sorted(states))}
        self._settled = {}

    def _renew_unclaimed(self, states: Collection[PodState], now: float) -> list[PodState]:
        """Compute the allotment of some pods, while nobody claims or closes a slot.

        The slots of a pod are then allotted whatever is free on other pods. Most pods have not
        changed. A pod that is new is allotted with this router's next share.
        """
        assert self._shares.own is not None  # noqa: S101 -- the caller has looked
        every = self._shares.own.share.every
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
            free = _reported_free(state)
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
                if _put(state, allotment, _NONE, now):
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


def _reported_free(state: PodState) -> int:
    """Return a pod's free slots according to all shares, including this router's own."""
    beliefs = state.beliefs
    if not state.pod.ready or beliefs.slots is None or beliefs.somebody_waits:
        return 0
    return max(0, beliefs.slots - len(beliefs.peers.reported | beliefs.foreign_adapters))


def _by_base(
    closed: Mapping[str, Collection[str]], states: Mapping[str, PodState]
) -> dict[BaseModels, int]:
    """Count closed slots by the base models of their pods.

    Args:
        closed: The adapters in them, by pod name.
        states: The pods.
    """
    counts: dict[BaseModels, int] = {}
    for name, adapters in closed.items():
        state = states.get(name)
        if state is not None:
            bases = state.base_models
            counts[bases] = counts.get(bases, 0) + len(adapters)
    return counts


def _put(state: PodState, allotment: Allotment | None, closed: frozenset[str], now: float) -> bool:
    """Store a pod's allotment and closed slots; return whether they changed."""
    peers = state.beliefs.peers
    if (peers.allotment, peers.closed) == (allotment, closed):
        return False
    peers.allotment, peers.closed = allotment, closed
    before = peers.closed_since
    if closed or before:
        peers.closed_since = {name: before.get(name, now) for name in closed}
    return True
