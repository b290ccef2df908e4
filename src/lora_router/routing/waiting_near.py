"""Lets an adapter wait for a slot near it, rather than be loaded from disk.

A pod with a free slot may have to load the adapter from disk, while pods that have it in host
memory have no free slot. Such a load stops the whole batch of the pod for seconds. Where host
memory does not hold all adapters, it also evicts another one, which is loaded from disk in its
turn. Where it holds all, each pod loads each adapter once, and a fleet that was just started does
so with all of them at the same time. So a fleet that always uses its free slots is busy with loads,
and slots are free later.

Therefore the request waits for a slot on a pod that has the adapter in host memory, unless

- neither is known yet: that host memory is too small for all adapters, or how long loads take;
- the load delays nobody else, because the pod is idle and has no other slot;
- many requests wait already: then slots are scarce, and the free one should be used;
- it has waited for ``NEAR_LOADS`` times as long as the load takes.
"""

from lora_router.routing.algorithm import Hold, InferenceRequest, WakesOn
from lora_router.routing.candidates import Candidates
from lora_router.routing.overrun import COLD_SECONDS
from lora_router.routing.spreading import is_near
from lora_router.routing.survey import Survey

NEAR_LOADS = 4.0
"""The longest wait, as a multiple of the time that the load takes. With a lower value, adapters are
loaded from disk more often. A higher value makes those late that wait in vain."""
WAITING_SHARE = 0.0225
"""How many requests may wait already, as a share of the fleet's slots, if the load takes a second.
The share grows with the square of that time, because a longer load delays more requests, and each
of them for longer. With a lower value, adapters are loaded from disk more often. With a higher
value, slots are free while requests wait."""
ONCE_SHARE = 0.01
"""The same where host memory holds all adapters, so that a load is done once. With a lower value,
the pods of a fleet that was just started are busy with loads for longer. With a higher value, a
fleet that grows leaves its new pods idle."""


def hold_near(
    request: InferenceRequest, adapter: str, found: Survey, candidates: Candidates, now: float
) -> Hold | None:
    """Return a hold until a slot near the adapter is free, or ``None``: the free slot is better.

    Args:
        request: The request.
        adapter: Its adapter, which is in flight nowhere.
        found: The pods that were considered, and the best one with a free slot.
        candidates: The pods that may take it.
        now: Seconds, monotonic.
    """
    place = found.place
    if place is None or not request.may_hold:
        return None
    beliefs, memory = place.beliefs, place.beliefs.memory
    is_scarce = memory.size < len(place.adapters)
    if not beliefs.knows_disk and (not is_scarce or memory.assumed is not None):
        return None
    if beliefs.slots == 1 and not place.in_flight + beliefs.foreign_requests:
        return None
    seconds = beliefs.seconds_to_load(adapter)
    if seconds <= COLD_SECONDS:
        return None
    longest = NEAR_LOADS * seconds
    since = request.held_since
    if since is None:
        share = WAITING_SHARE if is_scarce else ONCE_SHARE
        most = share * seconds * seconds * candidates.fleet_slots
        if candidates.waiting.held_of(candidates.base_models) > most:
            return None
    elif now - since >= longest:
        return None
    if not any(is_near(pod, adapter) for pod in found.looked_at):
        return None
    return Hold("no-slot-near", longest, wakes_on=WakesOn.FREE_SLOT, optional=True)
