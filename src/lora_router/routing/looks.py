"""What a decision saw of its candidates: the numbers by which an algorithm tells pods apart.

A decision is explained long after it was made, if its request turns out to be slow. By then the
pods have changed. So the few numbers that the decision depends on are kept with it, as long as its
request is in flight.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lora_router.fleet.adapter_beliefs import AWAY, IN_HOST_MEMORY, IN_SLOT
from lora_router.fleet.index import FleetIndex
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.candidates import Candidates

MAX_LOOKS = 8
"""Candidates of which a decision keeps what it saw. Of more, the first ones that were inspected."""
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


class Looks(NamedTuple):
    """What was seen of the candidates. Cheap to make: most are never read."""

    rows: Sequence[tuple[PodView, int, int | None]]
    """Each candidate, with its requests in flight of all known senders, and its free slots
    (``None``: unknown; negative: so many more adapters are in flight than there are slots)."""
    adapter: str | None
    running: frozenset[PodState]
    """The pods on which the adapter was in flight."""
    loaded: Mapping[PodState, int]
    """Where the adapter was on other pods that used it lately. It was nowhere on those not listed.
    """

    def place(self, pod: PodView) -> int:
        """Return where the adapter was on a pod. ``PLACES`` has the words."""
        if self.adapter is None:
            return NO_ADAPTER
        if pod in self.running:
            return RUNNING
        return self.loaded.get(pod, AWAY)  # type: ignore[call-overload, no-any-return]


_NO_PODS: frozenset[PodState] = frozenset()
_NOWHERE: Mapping[PodState, int] = {}
NO_LOOKS = Looks((), None, _NO_PODS, _NOWHERE)


def looks_at(candidates: Candidates, adapter: str | None, index: FleetIndex) -> Looks:
    """Return what is to be seen of the first ``MAX_LOOKS`` candidates that were inspected last."""
    rows = []
    for pod in candidates.inspected[:MAX_LOOKS]:
        beliefs = pod.beliefs
        rows.append((pod, pod.in_flight + beliefs.foreign_requests, beliefs.free_slots))
    if adapter is None:
        return Looks(rows, None, _NO_PODS, _NOWHERE)
    running = frozenset(index.running(adapter))
    loaded = {pod: pod.beliefs.where(adapter) for pod in index.users(adapter) if pod not in running}
    return Looks(rows, adapter, running, loaded)


def place_of(pod: PodState, adapter: str | None) -> int:
    """Return where an adapter is on a pod."""
    if adapter is None:
        return NO_ADAPTER
    beliefs = pod.beliefs
    if adapter in pod.in_flight_adapters or adapter in beliefs.foreign_adapters:
        return RUNNING
    return beliefs.where(adapter)
