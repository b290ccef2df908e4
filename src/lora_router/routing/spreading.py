"""Lets a hot adapter have the next free slot, if the pods that run it are overloaded.

While adapters wait for slots, each slot that becomes free goes to one of them. A request that could
join a pod does not wait. So a hot adapter would get no further slot however overloaded its pod is,
although no adapter needs a slot more: its pod serves half of the fleet's requests, and slowly.
Therefore its requests wait for the next free slot too, for ``SPREAD_SECONDS`` at most. Then they
join. When the adapter gets the slot, all that wait go there together.

Slots of pods that would load the adapter from disk are left to others: such a load stops a pod for
longer than the crowd slows another one.
"""

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Hold, InferenceRequest, WakesOn
from lora_router.routing.candidates import Candidates
from lora_router.routing.overrun import COLD_SECONDS
from lora_router.routing.slot_closing import in_flight
from lora_router.routing.survey import Survey
from lora_router.routing.terms.slot import takes_next_slot

SPREAD_SECONDS = 1.5
"""The longest time for which a request waits for a further slot of its adapter. With a lower value,
rare adapters get all slots and a crowd stays on one pod. A higher value makes requests of hot
adapters late."""
HOLD_TO_SPREAD = Hold("no-slot", SPREAD_SECONDS, wakes_on=WakesOn.FREE_SLOT, optional=True)
_CROWD = 24
"""A pod with fewer requests is not overloaded. Most requests are spared a look at the fleet."""


def may_wait_to_spread(
    request: InferenceRequest, found: Survey, candidates: Candidates, now: float
) -> bool:
    """Return whether a request waits for a further slot, although it could join a pod.

    Args:
        request: The request, for an adapter.
        found: The pods that it could join. None has a free slot.
        candidates: The pods that may take it.
        now: Seconds, monotonic.
    """
    if found.spare_load <= _CROWD or found.spare is None or not request.may_hold:
        return False
    since = request.held_since
    if since is not None and now - since >= SPREAD_SECONDS:
        return False
    if not takes_next_slot(candidates.load(), found.spare):
        return False
    adapter = request.adapter or ""
    return any(is_near(pod, adapter) and not in_flight(pod, adapter) for pod in found.looked_at)


def is_near(pod: PodView, adapter: str) -> bool:
    """Return whether a pod probably loads an adapter fast, as from host memory."""
    return pod.beliefs.seconds_to_load(adapter) <= COLD_SECONDS
