"""What a decision saw of its candidates: the numbers by which an algorithm tells pods apart.

A decision is explained long after it was made, if its request turns out to be slow. By then the
pods have changed. So the numbers that the decision depends on are kept with it, as long as its
request is in flight. Best are those that the algorithm computed itself (``Pick.notes``): they cost
nothing more, and are exact. Of an algorithm without notes, and where a request is held or refused,
the router looks at the candidates itself.
"""

from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Struct

from lora_router.fleet.adapter_beliefs import AWAY, IN_HOST_MEMORY, IN_SLOT
from lora_router.fleet.adapters_in_flight import AdaptersInFlight
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Sight
from lora_router.routing.candidates import Candidates

MAX_LOOKS = 4
"""Candidates that the router looks at for a pick without notes: the pod that was picked, and the
first ones that were inspected."""
MAX_LOOKS_OF_HELD = 16
"""The same where a request is held or refused."""
MAX_SEEN = 8
"""Candidates that a record keeps of what an algorithm noted: the picked pod, and the cheapest."""
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


NO_LOOKS = Looks()


class Seen(Struct, frozen=True, array_like=True, gc=False):
    """What an algorithm noted of a candidate, as a record keeps it."""

    pod: str
    requests: int | None = None
    """``None``: not noted."""
    place: str = ""
    terms: tuple[tuple[str, float], ...] = ()
    excluded: str = ""


def sights_of(looks: Looks) -> tuple[Sight, ...]:
    """Return what was seen, without a reference to the pods: they change."""
    return tuple(
        Sight(pod.pod.name, requests, free_slots, PLACES[place])
        for pod, requests, free_slots, place in looks.rows
    )


class Onlooker:
    """Notes what decisions see, for those who record them."""

    __slots__ = ("in_flight",)

    def __init__(self, in_flight: AdaptersInFlight) -> None:
        """Create it.

        Args:
            in_flight: The adapters that are in flight on any pod.
        """
        self.in_flight = in_flight

    def at(
        self,
        candidates: Candidates,
        adapter: str | None,
        picked: PodView | None = None,
        most: int = MAX_LOOKS_OF_HELD,
    ) -> Looks:
        """Return what is seen of the candidates that were inspected last.

        Args:
            candidates: The candidates.
            adapter: The adapter of the request.
            picked: The pod that was picked.
            most: Of how many candidates.
        """
        pods = candidates.inspected
        if len(pods) > most:
            pods = pods[:most]
            if picked is not None and picked not in pods:
                pods = (picked, *pods[:-1])
        rows: list[Look] = []
        for pod in pods:
            beliefs = pod.beliefs
            place = place_of(pod, adapter)
            rows.append((pod, pod.in_flight + beliefs.foreign_requests, beliefs.free_slots, place))
        return Looks(rows, adapter)


def place_of(pod: PodView, adapter: str | None) -> int:
    """Return where an adapter is on a pod."""
    if adapter is None:
        return NO_ADAPTER
    beliefs = pod.beliefs
    if adapter in pod.in_flight_adapters or adapter in beliefs.foreign_adapters:
        return RUNNING
    return beliefs.where(adapter)
