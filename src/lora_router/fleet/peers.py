"""What peers report: their last shares, and what follows from them for the pods.

The shares themselves are in ``peer_shares``. ``pod_allotments`` follows from them which free slots
this router may take.

A share may change every pod of a large fleet, so it is applied to ``AT_ONCE`` pods at a time:

- What a share says of a pod is a state and not a difference. So it may be applied at any time, and
  a newer share takes the place of the rest of an older one.
- A share counts as received, and is acknowledged, once it is applied to all pods. Until then the
  claims of the one before it stand. So a slot stays with the peer that claimed it, or took it.
- A peer that is forgotten claims nothing from then on. What it had in flight on a pod counts until
  it is forgotten there.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from lora_router.fleet.claims import Claims
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare, PodShare, SentShare
from lora_router.fleet.peer_shares import MISSED, QUIET, PeerShares, Received
from lora_router.fleet.pod_allotments import PodAllotments
from lora_router.fleet.pod_positions import Listing
from lora_router.fleet.pod_state import PodState
from lora_router.steps import Steps, no_steps

_OfPod = TypeVar("_OfPod", PodShare, SentShare)
Tell = Callable[[Collection[PodState]], None]
"""Receives the pods that a step changed, a few at a time."""

AT_ONCE = 128
"""To how many pods a share is applied in one step. With more, requests wait longer for a step. With
fewer, a share takes more turns of the event loop."""
_LOOKED_AT = 8 * AT_ONCE
"""How many pods are looked at in one step that changes fewer of them."""
_LONGEST_SECONDS = 0.5
"""After so long, the rest is applied in one step, so that a busy router falls behind no further."""


@dataclass(slots=True, eq=False)
class _Arriving:
    """A share that is being applied."""

    share: LedgerShare
    at: float
    """When it arrived."""
    own: int
    """The number of this router's own last share then."""
    since: float
    """When the first of the shares arrived that have not been applied to all pods."""
    left: dict[str, tuple[float, bool]]
    """The names of the pods to which it must be applied. For each one, when the share arrived that
    was applied there last, and whether what is new since then is being loaded now."""
    moved: dict[PodState, None]
    """The pods that changed, and of which the allotment is not known yet."""
    gone: set[PodState]
    """The pods on which what the peer reported before it was forgotten may still count."""


class Peers:
    """Stores the last share of each peer, and updates the beliefs about each pod from it.

    Times are seconds on this router's monotonic clock. No router needs to know another router's
    clock.
    """

    def __init__(self, states: Mapping[str, PodState], listing: Listing, tell: Tell) -> None:
        """Create the state of a router that has neither sent nor received a share.

        Args:
            states: All pods, by name, as they are at any time.
            listing: Which pods list which adapters.
            tell: Called with the pods that a step changed.
        """
        self._states = states
        self._tell = tell
        self._shares = PeerShares()
        self._claims = Claims(self._shares)
        self.allotments = PodAllotments(self._shares, self._claims, listing)
        """The free slots that this router may take."""
        self._faded: set[str] = set()
        """The peers whose shares are forgotten for some pods, because they are quiet."""
        self._fading: Iterator[list[PodState]] | None = None
        """Forgets them for a few pods, and yields these. ``None``: all of it is done."""
        self._arriving: dict[str, _Arriving] = {}
        """The share of each peer that is being applied."""
        self._leaving: dict[str, list[PodState]] = {}
        """For each peer that is being forgotten, the pods on which it still counts."""
        self._is_due = False
        """Whether the allotment of all pods was put off."""
        self.on_due: Callable[[float], None] = lambda _seconds: None
        """Called with the seconds after which to call ``renew``."""
        self._untold: dict[PodState, None] = {}
        """The pods that changed, and of which nobody was told yet."""
        self._shared: dict[str, PodState] = {}
        """The pods that have what peers reported, as of this router's last share."""

    def report(
        self,
        router: str,
        every: float,
        held: Mapping[str, HeldShare],
        now: float,
        ejected: Mapping[str, tuple[str, str]] | None = None,
    ) -> tuple[LedgerShare, Collection[PodState]]:
        """Return this router's share and the pods that it changes. The caller must send the share.

        Peers that have missed more than ``MISSED`` shares are dropped. Pods that are new get what
        peers reported. The caller must also do the steps of ``fade``.
        """
        shares = self._shares
        changed: dict[PodState, None] = {}
        for name, received in tuple(shares.received.items()):
            is_gone = now - received.at > MISSED * received.share.every
            if is_gone and name not in self._arriving:
                del shares.received[name]
                self._faded.discard(name)
                changed.update((state, None) for state in _forget(name, self._states.values()))
        changed.update((state, None) for state in self._apply_to_new())
        faded = self._fade_some()
        if self._fading is None:
            self._fading = self._fade(now, every)
            faded += self._fade_some()
        changed.update((state, None) for state in faded)
        before: Mapping[str, PodShare] = {} if shares.own is None else shares.own.share.pods
        pods: dict[str, PodShare] = {}
        sent: dict[str, SentShare] = {}
        for state in self._states.values():
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
        self._is_due = False
        changed.update((state, None) for state in self.allotments.renew(self._states, now))
        return share, changed

    def put(self, share: LedgerShare, now: float) -> Steps[None]:
        """Store a peer's share, and return the steps that apply it.

        Args:
            share: The share.
            now: The time.
        """
        router = share.router
        newest = self._newest(router)
        if newest is not None and 1 < share.number <= newest.number:
            return no_steps()  # A newer share arrived first. Number 1: the router restarted.
        last, before = self._shares.received.get(router), self._arriving.get(router)
        own = self._shares.own
        number = 0 if own is None else own.share.number
        arriving = _Arriving(share, now, number, now, {}, {}, set())
        last_at = float("-inf") if last is None else last.at
        has_faded = router in self._faded
        self._faded.discard(router)
        if before is not None:
            arriving.since, arriving.left, arriving.moved = before.since, before.left, before.moved
            arriving.gone, last_at = before.gone, before.at
        known: Mapping[str, PodShare] = {} if newest is None else newest.pods
        loads = newest is not None and not has_faded
        for name in {**known, **share.pods} if has_faded else _differences(known, share.pods):
            arriving.left.setdefault(name, (last_at, loads))
        self._arriving[router] = arriving
        for name in share.sent:
            state = self._states.get(name)
            if state is not None and (sent := _share_on(state, share.sent)) is not None:
                state.work.hear(sent.seconds, now)
        if forgotten := self._leaving.pop(router, None):
            # It is there again before all of it was forgotten.
            arriving.gone = set(forgotten)
            for state in forgotten:
                arriving.left.setdefault(state.pod.name, (last_at, False))
        return self._apply(arriving, now)

    def _apply(self, arriving: _Arriving, now: float) -> Steps[None]:
        share, left = arriving.share, arriving.left
        router = share.router
        is_late = now - arriving.since > _LONGEST_SECONDS
        while self._arriving.get(router) is arriving:
            changed = []
            for name, (last_at, loads) in list(islice(left.items(), None if is_late else AT_ONCE)):
                del left[name]
                state = self._states.get(name)
                if state is None:
                    continue
                was_forgotten = state in arriving.gone and state.beliefs.forget_peer(router)
                arriving.gone.discard(state)
                found = _share_on(state, share.pods)
                begun = _begun_loads(state, router, found) if loads else 0.0
                if state.beliefs.put_share(router, found, last_at) or was_forgotten:
                    changed.append(state)
                if begun:
                    state.work.begin_load(begun, now)
            allotted = self.allotments.renew_only(changed, self._states, now)
            if allotted is None:
                arriving.moved.update(dict.fromkeys(changed))
            if left:
                self._tell(changed)
                yield
                continue
            received = Received(share, arriving.at, arriving.own)
            if not is_late:
                yield from self.allotments.prepare(received)
            if self._arriving.get(router) is not arriving:
                return
            del self._arriving[router]
            self._shares.received[router] = received
            moved = tuple(arriving.moved)
            allotted, wait = self.allotments.renew_after(moved, self._states, now)
            if wait and not self._is_due:
                self._is_due = True
                self.on_due(wait)
            self._untold.update(dict.fromkeys((*changed, *allotted)))
            yield from self._tell_in_parts()

    def forget(self, router: str, now: float) -> Steps[None]:
        """Forget a peer that stopped, and return the steps that do it.

        The arguments are those of ``put``.
        """
        arriving = self._arriving.pop(router, None)
        if self._shares.received.pop(router, None) is None and arriving is None:
            return no_steps()
        self._faded.discard(router)
        on = [
            each
            for each in self._states.values()
            if each.beliefs.peers.share_of(router) is not None
        ]
        self._leaving[router] = on
        return self._forget_in_steps(router, on, now)

    def _forget_in_steps(
        self,
        router: str,
        on: list[PodState],
        now: float,
    ) -> Steps[None]:
        while on and self._leaving.get(router) is on:
            some = on[:AT_ONCE]
            del on[:AT_ONCE]
            self._tell(_forget(router, some))
            if on:
                yield
        if self._leaving.get(router) is on:
            del self._leaving[router]
            self._untold.update(dict.fromkeys(self.allotments.renew(self._states, now)))
        yield from self._tell_in_parts()

    def _tell_in_parts(self) -> Steps[None]:
        """Tell of pods, a few in each step. Steps for another peer may tell of the same ones."""
        while self._untold:
            some = list(islice(self._untold, AT_ONCE))
            for state in some:
                del self._untold[state]
            self._tell(some)
            if self._untold:
                yield

    def renew(self, now: float) -> None:
        """Compute the allotment of all pods, if that was put off."""
        if self._is_due:
            self._is_due = False
            self._tell(self.allotments.renew(self._states, now))

    def _newest(self, router: str) -> LedgerShare | None:
        """Return the last share of a peer, whether it is applied or not."""
        arriving, received = self._arriving.get(router), self._shares.received.get(router)
        if arriving is not None:
            return arriving.share
        return None if received is None else received.share

    def held(self) -> list[Mapping[str, HeldShare]]:
        """Return what each peer holds, by adapter, as of its last share."""
        return [received.share.held for received in self._shares.received.values()]

    def fade(self) -> Steps[None]:
        """Return the steps that forget what quiet peers reported, which a report has begun."""
        while self._fading is not None:
            self._tell(self._fade_some())
            yield

    def _fade_some(self) -> list[PodState]:
        changed = None if self._fading is None else next(self._fading, None)
        if changed is None:
            self._fading = None
            return []
        return changed

    def _fade(self, now: float, every: float) -> Iterator[list[PodState]]:
        """Forget the shares of quiet peers for the pods that were scraped since.

        Such a scrape shows the requests of the share that still run, and those that came later.
        """
        changed: list[PodState] = []
        seen = 0
        for name, received in tuple(self._shares.received.items()):
            if not self._is_last(name, received) or not self._shares.is_quiet(received, now):
                continue
            quiet_at = received.at + QUIET * every
            self._faded.add(name)
            left = iter(tuple(self._states.values()))
            while self._is_last(name, received) and (some := tuple(islice(left, AT_ONCE))):
                seen += len(some)
                changed += _forget(name, (x for x in some if x.beliefs.scraped_at > quiet_at))
                if len(changed) >= AT_ONCE or seen >= _LOOKED_AT:
                    yield changed
                    changed, seen = [], 0
        if changed:
            yield changed

    def _is_last(self, peer: str, received: Received) -> bool:
        """Return whether no later share of a peer arrived, and the peer is not forgotten."""
        return self._shares.received.get(peer) is received and peer not in self._arriving

    def _apply_to_new(self) -> list[PodState]:
        """Apply the shares to the pods that are new since this router's last share."""
        if self._shared == self._states:
            return []
        new = [each for name, each in self._states.items() if self._shared.get(name) is not each]
        self._shared = dict(self._states)
        changed: list[PodState] = []
        for router in {**self._shares.received, **self._arriving}:
            last = self._arriving.get(router) or self._shares.received[router]
            changed += [
                state
                for state in new
                if state.beliefs.put_share(router, _share_on(state, last.share.pods), last.at)
            ]
        return changed


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
