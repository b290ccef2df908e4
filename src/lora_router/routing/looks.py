"""What a decision saw of its candidates: the numbers by which an algorithm tells pods apart.

A decision is explained long after it was made, if its request turns out to be slow. By then the
pods have changed. So the few numbers that the decision depends on are kept with it, as long as its
request is in flight.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct

from lora_router.fleet.adapter_beliefs import AWAY, IN_HOST_MEMORY, IN_SLOT
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Sight
from lora_router.routing.candidates import Candidates

MAX_LOOKS = 4
"""Candidates of which each decision keeps what it saw: the pod that was picked, and the first ones
that were inspected. This is done for each request, and most of it is never read."""
MAX_LOOKS_OF_HELD = 16
"""The same where a request is held, or gets a pod after that."""
RUNNING, NO_ADAPTER = -1, -2
"""Where an adapter is, beside ``IN_SLOT``, ``IN_HOST_MEMORY`` and ``AWAY``: it has requests in
flight on the pod; the request is for no adapter."""
PLACES = {
    RUNNING: "running",
    IN_SLOT: "slot",
    IN_HOST_MEMORY: "host-memory",
    AWAY: "nowhere",
    NO_ADAPTER: "",
}
"""The words for where the adapter of a request is on a pod, for people and metric labels."""


Look: TypeAlias = tuple[PodView, int, int | None, int]
"""What was seen of a candidate: the pod, its requests in flight of all known senders, its free
slots (``None``: unknown; negative: so many more adapters are in flight than there are slots), and
where the adapter was on it. ``PLACES`` has the words."""


class Looks(Struct, frozen=True, gc=False):
    """What was seen of the candidates. Cheap to make: most are never read."""

    rows: Sequence[Look] = ()
    adapter: str | None = None
    place: int = NO_ADAPTER
    """Where the adapter was on the pod that was picked."""
    is_elsewhere: bool = False
    """Whether it was in flight on other pods, and not on that one."""


NO_LOOKS = Looks()


def sights_of(looks: Looks) -> tuple[Sight, ...]:
    """Return what was seen, without a reference to the pods: they change."""
    return tuple(
        Sight(pod.pod.name, requests, free_slots, PLACES[place])
        for pod, requests, free_slots, place in looks.rows
    )


def looks_at(
    candidates: Candidates,
    adapter: str | None,
    picked: PodView | None = None,
    most: int = MAX_LOOKS,
) -> Looks:
    """Return what is to be seen of the candidates that were inspected last.

    Args:
        candidates: The candidates.
        adapter: The adapter of the request.
        picked: The pod that was picked.
        most: Of how many candidates.
    """
    inspected = pods = candidates.inspected
    if len(pods) > most:
        pods = pods[:most]
        if picked is not None and picked not in pods:
            pods = (picked, *pods[:-1])
    rows: list[Look] = []
    found = place = NO_ADAPTER
    is_elsewhere = False
    for pod in pods:
        beliefs = pod.beliefs
        if adapter is not None:
            if adapter in pod.in_flight_adapters or adapter in beliefs.foreign_adapters:
                place = RUNNING
                is_elsewhere = True
            else:
                place = beliefs.where(adapter)
            if pod is picked:
                found = place
        rows.append((pod, pod.in_flight + beliefs.foreign_requests, beliefs.free_slots, place))
    if found < IN_SLOT:
        is_elsewhere = False
    elif not is_elsewhere and len(inspected) > most:
        is_elsewhere = _runs_on_any(adapter, inspected)
    return Looks(rows, adapter, found, is_elsewhere)


def _runs_on_any(adapter: str | None, pods: Iterable[PodView]) -> bool:
    for pod in pods:
        if adapter in pod.in_flight_adapters or adapter in pod.beliefs.foreign_adapters:
            return True
    return False


def place_of(pod: PodView, adapter: str | None) -> int:
    """Return where an adapter is on a pod."""
    if adapter is None:
        return NO_ADAPTER
    beliefs = pod.beliefs
    if adapter in pod.in_flight_adapters or adapter in beliefs.foreign_adapters:
        return RUNNING
    return beliefs.where(adapter)
