"""What peers report: their last shares, and what follows from them for the pods.

The shares themselves are in ``peer_shares``. ``pod_allotments`` follows from them which free slots
this router may take.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

from lora_router.fleet.claims import Claims
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare, PodShare, SentShare
from lora_router.fleet.peer_shares import MISSED, QUIET, PeerShares, Received
from lora_router.fleet.pod_allotments import PodAllotments
from lora_router.fleet.pod_state import PodState

_OfPod = TypeVar("_OfPod", PodShare, SentShare)


class Peers:
    """Stores the last share of each peer, and updates the beliefs about each pod from it.

    Times are seconds on this router's monotonic clock. No router needs to know another router's
    clock.
    """

    def __init__(self, listing: Callable[[str], Collection[PodState]]) -> None:
        """Create the state of a router that has neither sent nor received a share.

        Args:
            listing: Returns the pods that list an adapter (``PodAllotments``).
        """
        self._shares = PeerShares()
        self._claims = Claims(self._shares)
        self.allotments = PodAllotments(self._shares, self._claims, listing)
        """The free slots that this router may take."""
        self._faded: set[str] = set()
        """The peers whose shares are forgotten for some pods, because they are quiet."""
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
        shares = self._shares
        changed: dict[PodState, None] = {}
        for name, received in tuple(shares.received.items()):
            if now - received.at > MISSED * received.share.every:
                del shares.received[name]
                self._faded.discard(name)
                changed.update((state, None) for state in _forget(name, states.values()))
        changed.update((state, None) for state in self._apply_to_new(states))
        changed.update((state, None) for state in self._fade(states, now, every))
        before: Mapping[str, PodShare] = {} if shares.own is None else shares.own.share.pods
        pods: dict[str, PodShare] = {}
        sent: dict[str, SentShare] = {}
        for state in states.values():
            if state.in_flight:
                pods[state.pod.name] = of_pod = _share_of(state, before.get(state.pod.name))
                if seconds := state.work.take_untold(now):
                    sent[state.pod.name] = SentShare(of_pod.server, seconds)
            elif state.beliefs.peers.reported:
                state.beliefs.peers.reported = frozenset()
        number = 1 if shares.own is None else shares.own.share.number + 1
        heard = {name: received.share.number for name, received in shares.received.items()}
        self._claims.report(held, number, now)
        share = LedgerShare(router, number, every, pods, held, heard, ejected or {}, sent=sent)
        shares.own = Received(share, now)
        changed.update((state, None) for state in self.allotments.renew(states, now))
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
        last = self._shares.received.get(router)
        if last is not None and 1 < share.number <= last.share.number:
            return ()  # A newer share arrived first. Number 1 comes from a router that restarted.
        own = self._shares.own
        self._shares.received[router] = Received(share, now, 0 if own is None else own.share.number)
        last_at = float("-inf") if last is None else last.at
        before: Mapping[str, PodShare] = {} if last is None else last.share.pods
        changed: dict[PodState, None] = {}
        has_faded = router in self._faded
        self._faded.discard(router)
        for name in {**before, **share.pods} if has_faded else _differences(before, share.pods):
            state = states.get(name)
            if state is None:
                continue
            found = _share_on(state, share.pods)
            begun = 0.0 if last is None or has_faded else _begun_loads(state, router, found)
            if state.beliefs.put_share(router, found, last_at):
                changed[state] = None
            if begun:
                state.work.begin_load(begun, now)
        for name in share.sent:
            state = states.get(name)
            if state is not None and (sent := _share_on(state, share.sent)) is not None:
                state.work.hear(sent.seconds, now)
        allotted = self.allotments.renew_after(tuple(changed), states, now)
        changed.update((state, None) for state in allotted)
        return changed

    def forget(
        self, router: str, states: Mapping[str, PodState], now: float
    ) -> Collection[PodState]:
        """Forget a peer that stopped; return the pods that it changes."""
        if self._shares.received.pop(router, None) is None:
            return ()
        self._faded.discard(router)
        changed = dict.fromkeys(_forget(router, states.values()))
        changed.update((state, None) for state in self.allotments.renew(states, now))
        return changed

    def held(self) -> list[Mapping[str, HeldShare]]:
        """Return what each peer holds, by adapter, as of its last share."""
        return [received.share.held for received in self._shares.received.values()]

    def _fade(self, states: Mapping[str, PodState], now: float, every: float) -> list[PodState]:
        """Forget the shares of quiet peers for the pods that were scraped since.

        Such a scrape shows the requests of the share that still run, and those that came later.
        """
        changed = []
        for name, received in self._shares.received.items():
            if self._shares.is_quiet(received, now):
                quiet_at = received.at + QUIET * every
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
            for router, received in self._shares.received.items()
            if state.beliefs.put_share(router, _share_on(state, received.share.pods), received.at)
        ]


def _differences(before: Mapping[str, PodShare], after: Mapping[str, PodShare]) -> Collection[str]:
    """Return the names of the pods on which two shares differ.

    Most pods of most shares have not changed, and are the same objects.
    """
    differences = [name for name, share in after.items() if before.get(name) is not share]
    differences += before.keys() - after.keys()
    return differences


def _share_on(state: PodState, shares: Mapping[str, _OfPod]) -> _OfPod | None:
    """Return what shares have for a pod; ``None``: nothing, or it is about another server.

    Args:
        state: The pod.
        shares: A part of a peer's share, by pod name.
    """
    pod = state.pod
    found = shares.get(pod.name)
    return found if found is not None and found.server == (pod.address, pod.uid) else None


def _begun_loads(state: PodState, router: str, found: PodShare | None) -> float:
    """Return how long a pod loads what a peer has brought there since its last share, in seconds.

    Call it before the share is applied: then it is known where the adapters were.
    """
    if found is None:
        return 0.0
    beliefs = state.beliefs
    before = beliefs.peers.share_of(router)
    known = () if before is None else before.adapters
    return sum(
        beliefs.seconds_to_load(adapter)
        for adapter in found.adapters
        if adapter not in known
        and adapter not in beliefs.foreign_adapters
        and adapter not in state.in_flight_adapters
    )


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
