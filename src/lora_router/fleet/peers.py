"""The peers: the last share of each of them, and the allotment of free slots that follows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare, PodShare
from lora_router.fleet.pod_peers import Turn
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.slot_turns import Claim, turns_of

MISSED = 3
"""How many shares a router may miss before it is treated as gone."""
UNTOUCHED = 20
"""If the free slots of a pod stay unchanged for this many shares, another router is unlikely to
take one of them before the next share. A lower value causes more conflicts between routers. A
higher value causes more loads."""


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
        self._own: _Received | None = None
        self._claimed: dict[str, tuple[int, float]] = {}
        """The adapters that this router holds, each with the number and time of the first of its
        shares that reported it."""
        self._untouched: dict[PodState, tuple[int, float]] = {}
        """For each pod, the number of free slots that nobody claims, and since when it has been
        that number."""

    def tell(
        self,
        router: str,
        every: float,
        held: Mapping[str, HeldShare],
        states: Collection[PodState],
        now: float,
    ) -> tuple[LedgerShare, Collection[PodState]]:
        """Return this router's share and the pods that it changes. The caller must send the share.

        Peers that have missed more than ``MISSED`` shares are dropped.
        """
        changed: dict[PodState, None] = {}
        for name, received in tuple(self._received.items()):
            if now - received.at > MISSED * received.share.every:
                del self._received[name]
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
        heard = {name: received.share.number for name, received in self._received.items()}
        self._claimed = {name: self._claimed.get(name, (number, now)) for name in held}
        share = LedgerShare(router, number, every, pods, held, heard)
        self._own = _Received(share, now)
        changed.update((state, None) for state in self._allot(states, now))
        return share, changed

    def put(
        self, share: LedgerShare, states: Collection[PodState], now: float
    ) -> Collection[PodState]:
        """Store a peer's share; return the pods that it changes."""
        last = self._received.get(share.router)
        if last is not None and 1 < share.number <= last.share.number:
            return ()  # A newer share arrived first. Number 1 comes from a router that restarted.
        self._received[share.router] = _Received(share, now)
        changed: dict[PodState, None] = {}
        for state in states:
            pod = state.pod
            found = share.pods.get(pod.name)
            if found is not None and found.server != (pod.address, pod.uid):
                found = None
            if state.beliefs.told(share.router, found):
                changed[state] = None
        changed.update((state, None) for state in self._allot(states, now))
        return changed

    def _allot(self, states: Collection[PodState], now: float) -> list[PodState]:
        """Compute this router's allotment and the closed slots; return the changed pods.

        Before this router has sent its first share, peers do not include it in their computation.
        Until then, or if there are no peers, it may take every free slot.
        """
        if self._own is None or not self._received:
            self._untouched = {}
            return [state for state in states if _put(state, None, frozenset())]
        own = self._own.share
        closed: dict[str, set[str]] = {}
        for received in self._received.values():
            for held in received.share.held.values():
                if held.closed is not None:
                    closed.setdefault(held.closed[0], set()).add(held.closed[1])
        in_order = sorted(states, key=lambda state: state.pod.name)
        free = [state.beliefs.told_free_slots() if state.pod.ready else 0 for state in in_order]
        routers = sorted((own.router, *self._received))
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
        """Return one claim for each held adapter: that of the router that has held it longest."""
        claims: dict[str, Claim] = {}
        for received in (self._own, *self._received.values()):
            if received is None:
                continue
            for adapter, held in received.share.held.items():
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


def _put(state: PodState, turn: Turn | None, closed: frozenset[str]) -> bool:
    """Store a pod's allotment and closed slots; return whether they changed."""
    peers = state.beliefs.peers
    if (peers.turn, peers.closed) == (turn, closed):
        return False
    peers.turn, peers.closed = turn, closed
    return True
