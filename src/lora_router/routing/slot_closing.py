"""Chooses the slot to close for an adapter that has waited too long for one.

A slot is free only when every request of its adapter has ended (measured on vLLM 0.32.0). With
popular adapters this never happens by itself. So the slot with the fewest requests in flight is
closed to further requests of the adapter in it. Those requests join elsewhere or wait.

Rules:

1. A slot is closed for an adapter whose requests have been held for ``Waiting.patience_seconds``:
   ``overload.PATIENCE_SECONDS``, or half of the longest hold, if that is less. It is closed after
   ``CROWDED_PATIENCE_SECONDS`` already if each slot has so many requests in flight that none will
   be empty by itself (``CROWD``). These slots also take longest to be empty.
2. A slot is closed at once if the adapter in it has a place on another pod: it is in flight there,
   or a slot is free. That pod does not have the adapter that waits. So where pods have different
   adapters, those that could be elsewhere leave a full pod to those that could not.
3. A request that may not be held (any longer) goes to a pod that has no slot for its adapter. A
   slot of that pod is closed for it soon (``misplaced``).
4. On the pods of one base model, as many slots may be closed at the same time as a share of those
   that the request could get, by all routers that are peers (``Overload.closed_slots_share``). Each
   closed slot runs fewer requests while it drains, and the adapter in it has to be loaded again
   elsewhere, so a fleet that closes many slots is slower for everybody. The others wait until a
   slot is open again, in the order in which they became impatient.
5. A large fleet is not searched in full: ``LOOKED_AT`` pods represent it, a different run of them
   each time, so that the search costs the same in every fleet.
"""

from collections.abc import Callable, Iterable, Sequence

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Hold, InferenceRequest, WakesOn
from lora_router.routing.candidates import Candidates
from lora_router.routing.overload import AS_LONG_AS_ALLOWED, DRAIN_SECONDS
from lora_router.routing.overrun import COLD_SECONDS

LOOKED_AT = 16
"""The number of pods among which the slot to close is chosen."""
CROWD = 8
"""From this many requests in flight on, a slot will not be empty by itself. A lower value closes
slots that would be. With a higher value, rare adapters wait longer on small fleets."""
CROWDED_PATIENCE_SECONDS = 4.0
"""How long an adapter waits before one of these is closed for it. A lower value closes them more
often, and their adapters wait in turn. A higher value makes rare adapters wait longer."""
_NONE_TO_CLOSE_SECONDS = 2.0
"""How long to wait before looking again for a slot to close, if no further slot may be closed."""


def hold_for_slot(
    request: InferenceRequest,
    candidates: Candidates,
    now: float,
    wanted: PodView | None = None,
) -> Hold:
    """Return a hold until the request gets a slot, and close a slot for it if that is due.

    Args:
        request: The request, for an adapter.
        candidates: The pods that may take it.
        now: Seconds, monotonic.
        wanted: A pod with a free slot that is in a peer's allotment now.
    """
    waited = 0.0 if request.held_since is None else now - request.held_since
    closing = request.closing
    patience_seconds = candidates.waiting.patience_seconds
    if waited < patience_seconds:
        if closing is None:
            closing = _choose_movable(request.adapter or "", candidates, now)
        if waited < CROWDED_PATIENCE_SECONDS:
            soon = min(patience_seconds, CROWDED_PATIENCE_SECONDS)
            return _hold(wanted, closing, soon - waited)
        if closing is None:
            closing = _choose(candidates, now, has_one=False)
            if closing is not None and in_flight(*closing) < CROWD:
                closing = None
        return _hold(wanted, closing, patience_seconds - waited)
    if closing is None or closing[0] not in candidates or not in_flight(*closing):
        closing = _choose(candidates, now, has_one=closing is not None)
    return _hold(wanted, closing, _NONE_TO_CLOSE_SECONDS if closing is None else None)


def pod_without_slot(
    request: InferenceRequest, candidates: Candidates, now: float
) -> PodView | None:
    """Return the pod for a request that may not be held, and for which no pod has a slot.

    It is the pod on which the adapter waits already, or the one with the slot that is being emptied
    for the request, or the one on which the fewest adapters wait. A pod on which the adapter's own
    slot is being emptied, for this router or a peer, would give the request that slot at once, and
    the slot would never be empty. If that is so on all pods, return ``None``, so that the request
    is refused, unless the slot should be empty by now (``overload.DRAIN_SECONDS``).

    Args:
        request: The request, for an adapter.
        candidates: The pods that may take it.
        now: Seconds, monotonic.
    """
    adapter = request.adapter or ""
    waiting, closing, members = candidates.waiting, request.closing, candidates.members
    pod = next((pod for pod in waiting.waits_on(adapter) if pod in members), None)
    if pod is not None:
        return pod
    if closing is not None and closing[0] in members:
        return closing[0]
    pods = some(candidates, now)
    closed = waiting.closed_to(adapter)
    by_peers = [each for each in pods if adapter in each.beliefs.peers.closed]
    others = [each for each in pods if each not in closed and each not in by_peers]
    if not others and (waiting.drains(adapter) or _drains_for_peers(adapter, by_peers, now)):
        return None
    return min(others or pods, key=_crowd)


def _drains_for_peers(adapter: str, pods: Iterable[PodView], now: float) -> bool:
    """Return whether peers have a slot of an adapter emptied on some pods, and not for long yet."""
    return any(now - pod.beliefs.peers.closed_since[adapter] < DRAIN_SECONDS for pod in pods)


def in_flight(pod: PodView, adapter: str) -> int:
    """Return an adapter's requests in flight on a pod, of this router and its peers."""
    return pod.in_flight_adapters.get(adapter, 0) + pod.beliefs.peers.in_flight(adapter)


def open_slots(pod: PodView) -> Sequence[tuple[int, str]]:
    """Return the requests and the adapters in flight on a pod whose slots no peer has closed."""
    own, peers = pod.in_flight_adapters, pod.beliefs.peers
    if not peers:
        return [(requests, name) for name, requests in own.items()]
    names = {*own, *peers.adapters}
    return [(in_flight(pod, name), name) for name in names if name not in peers.closed]


def some(pods: Sequence[PodView], now: float) -> Sequence[PodView]:
    """Return the pods to inspect: of a large fleet, a run that starts elsewhere each time."""
    if len(pods) <= LOOKED_AT:
        return pods
    start = int(now * 1000) * LOOKED_AT % len(pods)
    run = pods[start : start + LOOKED_AT]
    return [*run, *pods[: LOOKED_AT - len(run)]]


def _crowd(pod: PodView) -> tuple[int, int]:
    """Return how many adapters wait on a pod for a slot, and its load."""
    beliefs = pod.beliefs
    return max(0, -(beliefs.free_slots or 0)), pod.in_flight + beliefs.foreign_requests


def _hold(
    wanted: PodView | None, closed: tuple[PodView, str] | None, ask_again: float | None
) -> Hold:
    return Hold("no-slot", AS_LONG_AS_ALLOWED, wanted, closed, WakesOn.FREE_SLOT, ask_again)


def _choose(candidates: Candidates, now: float, *, has_one: bool) -> tuple[PodView, str] | None:
    """Return the slot with the fewest requests in flight that is not closed yet.

    Args:
        candidates: The pods that may take the request.
        now: Seconds, monotonic.
        has_one: Whether a slot is closed for the request already, which opens in exchange.
    """
    waiting = candidates.waiting
    slots = candidates.load().slots
    if not waiting.may_close(candidates.base_models, slots, has_one=has_one):
        return None
    return _emptiest(candidates, now, lambda _name: True)


def _choose_movable(adapter: str, candidates: Candidates, now: float) -> tuple[PodView, str] | None:
    """Return the slot with the fewest requests in flight whose adapter has a place elsewhere.

    Args:
        adapter: The adapter that waits.
        candidates: The pods that may take it.
        now: Seconds, monotonic.
    """
    waiting = candidates.waiting
    if not waiting.may_close(candidates.base_models, candidates.fleet_slots):
        return None
    others = _without(adapter, candidates, now)
    roomy = [pod for pod in others if (pod.beliefs.free_slots or 0) > 0]
    running = {name for pod in others for name in pod.in_flight_adapters}
    if not running and not roomy:
        return None

    def could_be_elsewhere(name: str) -> bool:
        closed = waiting.closed_to(name)
        return any(
            pod not in closed and (name in pod.in_flight_adapters or _has_room(pod, name))
            for pod in (others if name in running else roomy)
        )

    return _emptiest(candidates, now, could_be_elsewhere)


def _emptiest(
    candidates: Candidates, now: float, may_close: Callable[[str], bool]
) -> tuple[PodView, str] | None:
    """Return the slot with the fewest requests in flight, of those that are not closed yet.

    Args:
        candidates: The pods whose slots they are.
        now: Seconds, monotonic.
        may_close: Returns whether the slot of an adapter may be closed.
    """
    is_closable = candidates.waiting.is_closable
    least = 0
    best: tuple[PodView, str] | None = None
    for pod in some(candidates, now):
        for requests, name in sorted(open_slots(pod)):
            if best is not None and requests >= least:
                break
            if is_closable(pod, name) and may_close(name):
                least, best = requests, (pod, name)
                break
        if least == 1:  # No slot has fewer.
            break
    return best


def _without(adapter: str, candidates: Candidates, now: float) -> Sequence[PodView]:
    """Return pods of the same base model that do not have an adapter."""
    serving = candidates.waiting.serving
    base = candidates[0].adapters.get(adapter) if candidates else None
    pods = () if base is None else serving(base)
    if len(pods) <= len(serving(adapter)):
        return ()  # All pods have it.
    return [pod for pod in some(pods, now) if adapter not in pod.adapters]


def _has_room(pod: PodView, adapter: str) -> bool:
    """Return whether a pod has an adapter, and a free slot for it that it would soon be in."""
    beliefs = pod.beliefs
    return (
        adapter in pod.adapters
        and (beliefs.free_slots or 0) > 0
        and beliefs.may_take_slot(adapter)
        and beliefs.seconds_to_load(adapter) <= COLD_SECONDS
    )
