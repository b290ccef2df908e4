"""Which free slots of each pod this router may take, kept up to date as shares arrive.

``slot_allotment`` has the rules. This module applies them to the pods, and computes as little as
the last shares require:

- While nobody claims a slot, it computes only the pods that changed.
- Otherwise a share may change what is allotted on every pod. So all of it is computed with each
  share of this router, and between two of these only after some time, which is longer the more
  there is to compute (``REST_SECONDS``). Until then, this router may take no slot more on the pods
  that changed, and none that a peer took.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.claims import Claims
from lora_router.fleet.free_slots import FreeSlots, free_slots
from lora_router.fleet.peer_shares import PeerShares, Received
from lora_router.fleet.pod_peers import UNTOUCHED, Allotment
from lora_router.fleet.pod_positions import Listing, PodPositions
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.slot_allotment import Allotments, Claim, allotments_of, rotation
from lora_router.fleet.waiting_at_peers import WaitingAtPeers
from lora_router.steps import Steps, no_steps

REST_SECONDS = 20e-6
"""For each pod and each claim, the time from one computation of all to the next. Each of them costs
about a microsecond, so that all of it takes a twentieth of the time."""
_NONE: frozenset[str] = frozenset()


class _Settled(NamedTuple):
    """What the allotment of a pod followed from, beside its position, when it was computed."""

    reported: frozenset[str]
    foreign: Collection[str]
    allotment: Allotment | None
    slots: int | None
    somebody_waits: bool
    is_ready: bool


class _Outcome(NamedTuple):
    """What was computed for a pod while somebody claimed slots."""

    allotted: int
    unclaimed: int
    may_reuse: bool
    is_untouched: bool
    """Whether the only slot that nobody claims has been free for long."""
    closed: frozenset[str]


class PodAllotments:
    """The allotment of each pod's free slots to this router, and the slots that peers closed."""

    def __init__(
        self,
        shares: PeerShares,
        claims: Claims,
        listing: Listing,
    ) -> None:
        """Allot nothing yet.

        Args:
            shares: The last share of each router.
            claims: Which held adapters claim slots.
            listing: Which pods list which adapters.
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
        self._positions = PodPositions(listing, claims.forget_made)
        """The positions of the pods in the last allotment of all slots."""
        self._place = 0
        """This router's position among all routers, as of that allotment."""
        self._routers = 1
        self._has_claims = False
        """Whether anybody claimed a slot then."""
        self._among: frozenset[str] = frozenset()
        """The peers of then."""
        self._renewed_at = float("-inf")
        """When all of it was computed last."""
        self._free = FreeSlots()
        self._outcomes: dict[PodState, _Outcome] = {}
        """What was computed last, while somebody claims slots."""
        self._last: tuple[Sequence[int], Allotments] | None = None
        """The free slots of all pods then, and what followed from them."""
        self._settled: dict[PodState, _Settled] = {}
        """What the allotment of each pod follows from, unless time changes it too."""

    def prepare(self, received: Received) -> Steps[None]:
        """Return the steps that make the claims of a peer, whose share is about to be received."""
        positions = self._positions
        if not received.share.held or not positions.in_order:
            return no_steps()
        positions.refresh()
        return self._claims.make(received, positions.by_name, positions.fits_of)

    def renew_after(
        self, moved: Collection[PodState], states: Mapping[str, PodState], now: float
    ) -> tuple[list[PodState], float]:
        """Compute the allotment after a peer's share changed some pods.

        A claim, another router or another pod changes what is allotted on other pods. So do scrapes
        and time, but it is soon enough to see these with this router's next share.

        Returns:
            The pods that changed; and after how many seconds to call ``renew``, if it is not 0.
        """
        changed = self.renew_only(moved, states, now)
        if changed is not None:
            return changed, 0.0
        size = len(self._positions.in_order) + self._claims.rows
        wait = self._renewed_at + REST_SECONDS * size - now
        if wait <= 0 or not self._has_claims or self._is_outdated(states, now):
            return self.renew(states, now), 0.0
        return self._renew_claimed(moved, now), wait

    def _is_outdated(self, states: Mapping[str, PodState], now: float) -> bool:
        """Return whether there are other routers or pods than in the last allotment of all."""
        talking = self._shares.talking(now)
        return talking != self._among or len(states) != len(self._positions.in_order)

    def renew_only(
        self, moved: Collection[PodState], states: Mapping[str, PodState], now: float
    ) -> list[PodState] | None:
        """Compute the allotment of some pods; ``None``: that of all pods must be computed."""
        if (
            self._shares.own is None
            or self._has_claims
            or self._is_outdated(states, now)
            or self._claims.somebody_holds(self._among)
        ):
            return None
        return self._renew_unclaimed(moved, now)

    def renew(self, states: Mapping[str, PodState], now: float) -> list[PodState]:
        """Compute this router's allotment and the closed slots; return the changed pods.

        Before this router has sent its first share, peers do not include it in their computation.
        Until then, or if there are no peers, it may take every free slot.
        """
        talking = self._shares.talking(now)
        self._renewed_at = now
        if self._shares.own is None or not talking:
            self._among = talking
            self._untouched = {}
            self._positions.put({})
            self._outcomes = {}
            self._has_claims = False
            self.closed_slots = {}
            self._places = {}
            self._note_waiting((), frozenset())
            return [state for state in states.values() if _put(state, None, _NONE, now)]
        own = self._shares.own.share
        self._put_in_order(own.router, talking, states)
        had_claims, self._has_claims = self._has_claims, self._claims.somebody_holds(talking)
        if not self._has_claims and not had_claims:
            if len(self._untouched) > len(states):
                self._untouched = {}
            self.closed_slots = {}
            self._note_waiting((), talking)
            self._places = {}
            self._outcomes = {}
            return self._renew_unclaimed(self._positions.in_order, now)
        positions = self._positions
        in_order = positions.in_order
        routers = sorted((own.router, *talking))
        closed: dict[str, set[str]] = {}
        for name in talking:
            for held in self._shares.received[name].share.held.values():
                if held.closed is not None:
                    closed.setdefault(held.closed[0], set()).add(held.closed[1])
        self.closed_slots = _by_base(closed, states)
        free = self._free.of(in_order)
        positions.refresh()
        claims = self._claims.of(talking, positions.by_name, positions.fits_of, now)
        before = {
            adapter: place
            for adapter, state in self._places.items()
            if adapter in state.adapters and (place := positions.of.get(state)) is not None
        }
        allotments = allotments_of(own.router, routers, free, claims, before)
        self._note_waiting(allotments.claims, talking)
        self._places = {name: in_order[place] for name, place in allotments.places.items()}
        self._last = free, allotments
        return self._put_all(allotments, closed, now)

    def _put_all(
        self, allotments: Allotments, closed: Mapping[str, Collection[str]], now: float
    ) -> list[PodState]:
        """Store what is allotted on all pods; return those of which it changed."""
        changed = []
        outcomes = self._outcomes
        for state, allotted, unclaimed, may_reuse in zip(
            self._positions.in_order,
            allotments.allotted,
            allotments.unclaimed,
            allotments.may_reuse,
            strict=True,
        ):
            last = outcomes.get(state)
            if (
                last is not None
                and last[0] == allotted
                and last[1] == unclaimed != 1
                and last[2] is may_reuse
                and last[4] == closed.get(state.pod.name, _NONE)
            ):
                continue
            names = frozenset(closed.get(state.pod.name, _NONE))
            if self._put_one(state, allotted, unclaimed, names, now, may_reuse=may_reuse):
                changed.append(state)
        return changed

    def _put_one(
        self,
        state: PodState,
        allotted: int,
        unclaimed: int,
        closed: frozenset[str],
        now: float,
        *,
        may_reuse: bool,
    ) -> bool:
        """Store what is allotted on a pod; return whether it changed."""
        since = self._untouched.get(state)
        if since is None or since[0] != unclaimed:
            since = self._untouched[state] = unclaimed, now
        assert self._shares.own is not None  # noqa: S101 -- the callers have looked
        every, untouched = self._shares.own.share.every, now - since[1]
        is_untouched = unclaimed == 1 and untouched >= UNTOUCHED * every
        outcome = _Outcome(allotted, unclaimed, may_reuse, is_untouched, closed)
        if outcome == self._outcomes.get(state):
            return False
        self._outcomes[state] = outcome
        allotment = Allotment.of(allotted, unclaimed, untouched, every, may_reuse=may_reuse)
        return _put(state, allotment, closed, now)

    def _renew_claimed(self, moved: Collection[PodState], now: float) -> list[PodState]:
        """Compute the allotment of some pods, until that of all pods is computed.

        It only becomes smaller. A slot that is free since then may be that of any claim. Where the
        number of free slots is another, another router has to acknowledge this router's claim.
        """
        if self._last is None:
            return []
        last_free, last = self._last
        changed = []
        for state in moved:
            position, outcome = self._positions.of.get(state), self._outcomes.get(state)
            if position is None or outcome is None:
                continue
            free, unclaimed = free_slots(state), last.unclaimed[position]
            allotted = last.allotted[position]
            if free != last_free[position]:
                claimed = last_free[position] - unclaimed
                unclaimed = max(0, min(unclaimed, free - claimed))
                allotted = rotation(unclaimed, self._place, position, self._routers)
            closed, may_reuse = outcome.closed, outcome.may_reuse
            if self._put_one(state, allotted, unclaimed, closed, now, may_reuse=may_reuse):
                changed.append(state)
        return changed

    def _note_waiting(self, claims: Sequence[Claim], talking: frozenset[str]) -> None:
        own = self._shares.own
        held = () if own is None else own.share.held.keys()
        self.waiting.put(claims, held, talking, self.bases_of)

    def bases_of(self, adapter: str) -> BaseModels:
        """Return the base models of the pods that list an adapter."""
        return next((pod.base_models for pod in self._listing.pods_of(adapter)), frozenset())

    def _put_in_order(
        self, router: str, talking: frozenset[str], states: Mapping[str, PodState]
    ) -> None:
        """Find the positions of the pods and of this router, from which the allotment follows."""
        if not self._positions.put(states) and talking == self._among:
            return
        routers = sorted((router, *talking))
        self._among = talking
        self._place, self._routers = routers.index(router), len(routers)
        self._settled, self._outcomes = {}, {}

    def _renew_unclaimed(self, states: Collection[PodState], now: float) -> list[PodState]:
        """Compute the allotment of some pods, while nobody claims or closes a slot.

        The slots of a pod are then allotted whatever is free on other pods. Most pods have not
        changed. A pod that is new is allotted with this router's next share.
        """
        assert self._shares.own is not None  # noqa: S101 -- the caller has looked
        every = self._shares.own.share.every
        positions, untouched, settled = self._positions.of, self._untouched, self._settled
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
            free = free_slots(state)
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
