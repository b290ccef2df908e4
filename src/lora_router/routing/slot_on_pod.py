"""The slot of a pod, for adapters whose requests wait in the router."""

from lora_router.fleet.pod_state import PodView

WAITING_WEIGHT = 1 / 3
"""How many seconds of load a second of waiting outweighs. A lower value loads adapters less often.
A higher value makes those that waited longest wait less."""


def has_slot(pod: PodView) -> bool:
    """Return whether a pod has a free slot, as far as is known."""
    room = pod.beliefs.free_slots
    return room is None or room > 0


def slot_cost(adapter: str | None, pod: PodView, waited: float) -> float:
    """Return the seconds that bringing an adapter to a pod takes, less what its wait outweighs.

    Args:
        adapter: The adapter; ``None``: the base model.
        pod: The pod.
        waited: For how many seconds its first request has waited.
    """
    seconds = 0.0 if adapter is None else pod.beliefs.seconds_to_load(adapter)
    return seconds - WAITING_WEIGHT * waited
