"""The other routers of the fleet, as they have told of themselves."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare, PodShare
from lora_router.fleet.pod_peers import Turn
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.slot_turns import Claim, turns_of

MISSED = 3
"""Tellings that a router may miss before it is taken for gone."""
UNTOUCHED = 20
"""Tellings during which nobody touched a pod's free slots, after which nobody is likely to before
the next one. Less: more clashes. More: more loads."""


@dataclass(frozen=True, slots=True)
class _Told:
    share: LedgerShare
    at: float


class Peers:
    """Remembers what each router told last, and keeps each pod's beliefs in step with it.

    Times are seconds of this router's monotonic clock. No router needs to know another's.
    """

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}
        """By the other routers' names."""
        self._own: _Told | None = None
        self._claimed: dict[str, tuple[int, float]] = {}
        """Adapters that this router holds: which of its tellings said so first, and when."""
        self._untouched: dict[PodState, tuple[int, float]] = {}
        """How many free slots of a pod nobody claims, and since when there are so many."""

    def tell(
        self,
        router: str,
        every: float,
        held: Mapping[str, HeldShare],
        states: Collection[PodState],
        now: float,
    ) -> tuple[LedgerShare, Collection[PodState]]:
        """Return what there is to tell, which is taken for told, and the pods that it changes."""
        changed: dict[PodState, None] = {}
        for name, told in tuple(self._told.items()):
            if now - told.at > MISSED * told.share.every:
                del self._told[name]
                changed.update((state, None) for state in states if state.beliefs.told(name, None))
        pods = {}
        for state in states:
            state.beliefs.peers.told = frozenset(state.in_flight_adapters)
            if state.in_flight:
                pod = state.pod
                pods[pod.name] = PodShare(
                    (pod.address, pod.uid), state.in_flight, dict(state.in_flight_adapters)
                )
        number = 1 if self._own is None else self._own.share.number + 1
        heard = {name: told.share.number for name, told in self._told.items()}
        self._claimed = {name: self._claimed.get(name, (number, now)) for name in held}
        share = LedgerShare(router, number, every, pods, held, heard)
        self._own = _Told(share, now)
        changed.update((state, None) for state in self._share_out(states, now))
        return share, changed

    def put(
        self, share: LedgerShare, states: Collection[PodState], now: float
    ) -> Collection[PodState]:
        """Take what another router told; return the pods that it changes."""
        last = self._told.get(share.router)
        if last is not None and 1 < share.number <= last.share.number:
            return ()  # Overtaken on its way. Number 1 is of a router that has begun anew.
        self._told[share.router] = _Told(share, now)
        changed: dict[PodState, None] = {}
        for state in states:
            pod = state.pod
            found = share.pods.get(pod.name)
            if found is not None and found.server != (pod.address, pod.uid):
                found = None
            if state.beliefs.told(share.router, found):
                changed[state] = None
        changed.update((state, None) for state in self._share_out(states, now))
        return changed

    def _share_out(self, states: Collection[PodState], now: float) -> list[PodState]:
        """Work out which free slots are this router's, and which are closed; say where it differs.

        Before this router has told of itself, the others do not count with it.
        """
        if self._own is None or not self._told:
            self._untouched = {}
            return [state for state in states if _put(state, None, frozenset())]
        own = self._own.share
        closed: dict[str, set[str]] = {}
        for told in self._told.values():
            for held in told.share.held.values():
                if held.closed is not None:
                    closed.setdefault(held.closed[0], set()).add(held.closed[1])
        in_order = sorted(states, key=lambda state: state.pod.name)
        free = [state.beliefs.told_free_slots() if state.pod.ready else 0 for state in in_order]
        routers = sorted((own.router, *self._told))
        positions = {state.pod.name: position for position, state in enumerate(in_order)}
        turns = turns_of(own.router, routers, free, self._claims(positions, now))
        untouched = {}
        changed = []
        for state, allotted, unclaimed in zip(
            in_order, turns.allotted, turns.unclaimed, strict=True
        ):
            last = self._untouched.get(state)
            since = last[1] if last is not None and last[0] == unclaimed else now
            untouched[state] = unclaimed, since
            spare = unclaimed > 1 or now - since >= UNTOUCHED * own.every
            if_loaded = max(allotted, unclaimed) if spare else allotted
            turn = Turn(allotted, if_loaded, turns.may_reuse)
            if _put(state, turn, frozenset(closed.get(state.pod.name, ()))):
                changed.append(state)
        self._untouched = untouched
        return changed

    def _claims(self, positions: Mapping[str, int], now: float) -> Collection[Claim]:
        """Return each held adapter's claim, by the router that has held it for longest."""
        claims: dict[str, Claim] = {}
        for told in (self._own, *self._told.values()):
            if told is None:
                continue
            for adapter, held in told.share.held.items():
                heard_by = self._heard_of(adapter, now) if told is self._own else ()
                wanted = None if held.wanted is None else positions.get(held.wanted)
                since = told.at - held.seconds
                claim = Claim(since, told.share.router, adapter, wanted, heard_by)
                if adapter not in claims or since < claims[adapter].since:
                    claims[adapter] = claim
        return claims.values()

    def _heard_of(self, adapter: str, now: float) -> Collection[str]:
        """Return the routers that know that this one holds an adapter, or should have for long."""
        assert self._own is not None  # noqa: S101 -- what is claimed was told
        own = self._own.share
        number, at = self._claimed[adapter]
        if now - at > MISSED * own.every:
            return self._told.keys()
        return [
            name
            for name, told in self._told.items()
            if told.share.heard.get(own.router, 0) >= number
        ]


def _put(state: PodState, turn: Turn | None, closed: frozenset[str]) -> bool:
    """Write what was worked out for a pod; say whether it is new."""
    peers = state.beliefs.peers
    if (peers.turn, peers.closed) == (turn, closed):
        return False
    peers.turn, peers.closed = turn, closed
    return True
