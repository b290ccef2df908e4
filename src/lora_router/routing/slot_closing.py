"""Chooses the slot to close for an adapter that has waited too long for one.

A slot is free only when every request of its adapter has ended (measured on vLLM 0.32.0). With
popular adapters this never happens by itself. So after ``PATIENCE_SECONDS`` the slot with the
fewest requests in flight is closed to further requests of the adapter in it. Those requests join
elsewhere or wait. A large fleet is not searched in full: ``LOOKED_AT`` pods represent it, a
different run of them each time, so that the search costs the same in every fleet.
"""

from collections.abc import Sequence

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Hold, InferenceRequest, WakesOn
from lora_router.routing.candidates import Candidates

PATIENCE_SECONDS = 6.0
"""How long an adapter waits before a slot is closed for it. A lower value closes slots sooner, and
hot adapters are loaded again and again. A higher value makes a rare adapter wait longer while hot
ones keep every slot."""
LOOKED_AT = 16
"""The number of pods among which the slot to close is chosen."""
_AS_LONG_AS_ALLOWED = 86400.0
_NONE_TO_CLOSE_SECONDS = 2.0
"""How long to wait before looking again for a slot to close, if every slot was closed already."""


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
    if waited < PATIENCE_SECONDS:
        return _hold(wanted, closing, PATIENCE_SECONDS - waited)
    if closing is None or closing[0] not in candidates or not in_flight(*closing):
        closing = _choose(candidates, now, others=candidates.waiting.closed_slots - bool(closing))
    return _hold(wanted, closing, _NONE_TO_CLOSE_SECONDS if closing is None else None)


def in_flight(pod: PodView, adapter: str) -> int:
    """Return an adapter's requests in flight on a pod, of this router and its peers."""
    return pod.in_flight_adapters.get(adapter, 0) + pod.beliefs.peers.in_flight(adapter)


def _hold(
    wanted: PodView | None, closed: tuple[PodView, str] | None, ask_again: float | None
) -> Hold:
    return Hold("no-slot", _AS_LONG_AS_ALLOWED, wanted, closed, WakesOn.FREE_SLOT, ask_again)


def _choose(candidates: Candidates, now: float, others: int) -> tuple[PodView, str] | None:
    """Return the slot with the fewest requests in flight that is not closed yet.

    Args:
        candidates: The pods that may take the request.
        now: Seconds, monotonic.
        others: How many slots are closed for other requests.
    """
    waiting = candidates.waiting
    fleet = candidates.load()
    if others >= fleet.slots - fleet.free_slots:
        return None  # A queue for which no slot is left costs little.
    pods = _some(candidates, now)
    best: tuple[int, int, str] | None = None
    for number, pod in enumerate(pods):
        peers = pod.beliefs.peers
        names = {*pod.in_flight_adapters, *peers.adapters} if peers else pod.in_flight_adapters
        for name in names:
            slot = in_flight(pod, name), number, name
            if (
                (best is None or slot < best)
                and not waiting.is_closed(pod, name)
                and name not in peers.closed
            ):
                best = slot
    return None if best is None else (pods[best[1]], best[2])


def _some(candidates: Candidates, now: float) -> Sequence[PodView]:
    """Return the pods to inspect: of a large fleet, a run that starts elsewhere each time."""
    if len(candidates) <= LOOKED_AT:
        return candidates
    start = int(now * 1000) * LOOKED_AT % len(candidates)
    run = candidates[start : start + LOOKED_AT]
    return run + candidates[: LOOKED_AT - len(run)]
