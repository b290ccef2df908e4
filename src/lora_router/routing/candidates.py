"""The pods that may take a request, and fast ways to choose among them.

``Candidates`` is a tuple, so an algorithm may simply iterate over it. In a large fleet inspecting
each pod costs a millisecond. The methods answer common questions from the fleet's index instead, at
the same cost for ten pods and for a thousand.

- *Shortlist*: an algorithm looks for the best pod by where the adapter is and by load. Of pods that
  differ only in load, only those with the least load can be the best. So a few pods of each kind
  are enough. Inspecting a dozen pods costs a tenth of inspecting a hundred and finds the same pod,
  or another that is as good.
- *Order*: for each adapter an order of the pods that every router computes alike (``rendezvous``).
- *Load*: the load of the whole fleet.
- *Waiting*: which requests wait in this router, and which slots are closed for them.

Fleets of at most ``FULL_LOOK`` pods, and candidates narrowed by a filter or a subset, have no
index. For these the methods inspect each pod.

Where pods may have no room apart from slots (``pod_room``), the methods of ``with_room`` answer
about the pods that have. Iteration still yields all: an algorithm that iterates may pick one
without room, and is then asked about a tuple of the others.
"""

import random
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import NamedTuple, cast

from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.index import FleetIndex
from lora_router.fleet.load_order import LoadOrder
from lora_router.fleet.pod_group import PodGroup
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.fleet.prefix_matches import random_run, with_most
from lora_router.fleet.prefixes import PrefixIndex
from lora_router.fleet.prompt import Prompt
from lora_router.routing.rendezvous import WHOLE, first_of_group, rendezvous_order
from lora_router.routing.roomy_pods import RoomyPods
from lora_router.routing.who_waits import NOBODY_WAITS, Waiting

FULL_LOOK = 32
"""Up to this many pods, an algorithm inspects all of them."""
_RUNNING = 4
_USERS = 3
_FIRST = 2
_LEAST = 2
_CACHED = 3
"""How many pods with most of the prompt's beginning are inspected."""
_MOST_HAVING = 16
"""Pods with most of a prompt's beginning that are compared. Of more, a random run represents them.
"""
_NEARLY = 0.9
"""A pod has most of the beginning if it has this share of what the best one has."""
_SAMPLE = 16
"""If an adapter is in flight on more pods than this, a random run of this many represents them."""


class FleetLoad(NamedTuple):
    """The combined load and slots of some pods."""

    pods: int
    in_flight: int
    """Requests of all known routers."""
    slots: int
    """Adapter slots, of the pods whose number of slots is known."""
    free_slots: int

    @property
    def average(self) -> float:
        """Requests in flight on a pod, on average."""
        return self.in_flight / self.pods


_NONE_CACHED: Mapping[PodView, float] = {}


class Candidates(tuple[PodView, ...]):  # noqa: SLOT001 -- a tuple cannot have slots
    """Ready pods that serve the model of a request, narrowed by filter and subset.

    Never empty when an algorithm gets them.
    """

    _group: PodGroup | None
    _chosen_from: PodGroup | None
    """The group from which the pods were chosen, or which they are."""
    members: frozenset[PodView]
    """The same pods as a set."""
    waiting: Waiting
    """Which requests wait in this router."""
    inspected: Sequence[PodView]
    """The pods of the last shortlist, or all of them before the first one."""
    prefixes: PrefixIndex | None
    """Which pods have which beginnings of prompts; ``None``: nobody knows."""
    _roomy: RoomyPods | None
    """The pods about which the methods answer; ``None``: all."""
    _about: "dict[RoomyPods, Candidates]"
    """The candidates whose methods answer about some pods. They are made once."""

    @classmethod
    def of(
        cls,
        pods: Iterable[PodView],
        waiting: Waiting = NOBODY_WAITS,
        prefixes: PrefixIndex | None = None,
        chosen_from: PodGroup | None = None,
    ) -> "Candidates":
        """Return candidates. Those made from a ``PodGroup`` use the fleet's index.

        Args:
            pods: The candidates.
            waiting: Which requests wait in this router.
            prefixes: Which pods have which beginnings of prompts.
            chosen_from: The group from which they were chosen, if they are not one.
        """
        made = cls(pods)
        made._group = pods if isinstance(pods, PodGroup) else None
        made._chosen_from = made._group or chosen_from
        made.members = pods.members if isinstance(pods, PodGroup) else frozenset(made)
        made.waiting = waiting
        made.inspected = made
        made.prefixes = prefixes
        made._roomy = None
        made._about = {}
        return made

    def some(self, pods: Iterable[PodView]) -> "Candidates":
        """Return candidates that are some of these."""
        return Candidates.of(pods, self.waiting, self.prefixes, self._chosen_from)

    @property
    def fleet_index(self) -> FleetIndex | None:
        """The fleet's index, if the methods answer from it."""
        return None if len(self) <= FULL_LOOK or self._group is None else self._group.fleet

    @property
    def base_models(self) -> BaseModels:
        """The base models of the candidates, which are those of the first one."""
        return self[0].base_models if self else frozenset()

    @property
    def fleet_slots(self) -> int:
        """The adapter slots of all pods of the base model.

        If the fleet is not known, they are those of the candidates.
        """
        group = self._chosen_from
        if group is None:
            return self.load().slots
        index = group.fleet
        return index.slots if group.is_everyone else index.total_of(self.base_models).slots

    @property
    def is_narrowed(self) -> bool:
        """Whether a filter or a subset chose them."""
        return self._group is None and self._chosen_from is not None

    @property
    def looks(self) -> int:
        """How many times ``FULL_LOOK`` pods a decision inspects. With an index, it is one."""
        return 1 if self._group is not None else _looks_at(len(self))

    @property
    def looks_to_find(self) -> int:
        """How many it takes to find them again after pods changed. A filter is put to each pod."""
        group = self._chosen_from
        return 0 if group is None or group is self._group else _looks_at(len(group))

    def with_room(self, roomy: RoomyPods) -> "Candidates | None":
        """Return candidates whose methods answer about some pods; ``None``: none is among these.

        Args:
            roomy: The pods with room, of a fleet that has an index.
        """
        group = self._group
        if group is None or group.is_everyone:
            has_some = bool(roomy.by_load)
        else:
            has_some = not roomy.by_load.pods.isdisjoint(group.members)
        if not has_some:
            return None
        made = self._about.get(roomy)
        if made is None:
            made = self._about[roomy] = Candidates.of(group or self, self.waiting, self.prefixes)
            made._roomy = roomy
        return made

    def answers_about(self, pod: PodView) -> bool:
        """Return whether a candidate is one of the pods about which the methods answer."""
        return self._roomy is None or pod in self._roomy.by_load.pods

    def cached(self, model: str, prompt: Prompt | None) -> Mapping[PodView, float]:
        """Return how many tokens of a prompt's beginning pods have, as far as is known.

        The pods with the most are first. Also pods that are no candidates may be named. Those with
        none of it are omitted.
        """
        if prompt is None or self.prefixes is None:
            return _NONE_CACHED
        # A mapping may be read with the keys of a supertype; mypy cannot know that of ``Mapping``.
        return cast("Mapping[PodView, float]", self.prefixes.cached(model, prompt))

    def shortlist(
        self,
        adapter: str | None,
        rng: random.Random,
        cached: Mapping[PodView, float] = _NONE_CACHED,
    ) -> Sequence[PodView]:
        """Return the candidates worth inspecting for an adapter, or (``None``) for a base model.

        In a large fleet these are, as far as they are candidates: the least loaded pods on which
        the adapter is in flight, those that used it last, its first ones by rendezvous hashing, the
        least loaded ones with a free slot, the least loaded of all, the most loaded one, and those
        with the most of the prompt's beginning.

        Args:
            adapter: The adapter.
            rng: The source of random choices among pods that are alike.
            cached: What ``cached`` returned for the request's prompt.
        """
        group = self._group
        if len(self) <= FULL_LOOK or group is None:
            return self
        index = group.fleet
        by_load, with_slot = self._orders(index)
        among = None if group.is_everyone else group.members
        found: dict[PodState, None] = dict.fromkeys(by_load.least(_LEAST, rng, among))
        most = by_load.most()
        if most is not None and (among is None or most in among):
            found[most] = None
        for pod in with_slot.least(_LEAST, rng, among):
            found[pod] = None
        if adapter is not None:
            _add_pods_of(adapter, group, by_load, rng, found)
        if cached:
            _add_pods_with_prompt(cached, self.members, by_load, rng, found)
        inspected: Sequence[PodView] = tuple(found)
        if among is not None:
            inspected = [pod for pod in found if pod in among] or self
        # For a base model, all pods are from the orders of those with room.
        if self._roomy is not None and (adapter is not None or cached or among is not None):
            inspected = self._roomy_of(inspected)
        self.inspected = inspected
        return inspected

    def _orders(self, index: FleetIndex) -> tuple[LoadOrder, LoadOrder]:
        """Return the pods by load, and those with a free slot."""
        roomy = self._roomy
        if roomy is None:
            return index.by_load, index.with_room
        return roomy.by_load, roomy.with_slot

    def _roomy_of(self, pods: Iterable[PodView]) -> Sequence[PodView]:
        """Return those of some pods about which the methods answer."""
        roomy = self._roomy
        if roomy is None:
            return tuple(pods)
        known = roomy.by_load.pods
        return [pod for pod in pods if pod in known]

    def in_order(self, adapter: str) -> Sequence[PodView]:
        """Return all candidates in the adapter's rendezvous order."""
        if self._group is not None and len(self) <= WHOLE:
            return first_of_group(adapter, self._group)
        return rendezvous_order(adapter, self._roomy_of(self))

    def first(self, adapter: str, count: int) -> Sequence[PodView]:
        """Return the adapter's first ``count`` candidates in its rendezvous order."""
        if self._group is not None:
            remembered = self._roomy_of(first_of_group(adapter, self._group))
            if count <= len(remembered):
                return remembered[:count]
        return rendezvous_order(adapter, self._roomy_of(self), count)

    def load(self) -> FleetLoad:
        """Return the load of the candidates, or in a large fleet that of their base model."""
        group = self._group
        if group is not None and len(self) > FULL_LOOK:
            index = group.fleet
            if group.is_everyone:
                return FleetLoad(len(index.by_load), index.by_load.total, index.slots, index.free)
            total = index.total_of(self.base_models)
            return FleetLoad(total.pods, total.requests, total.slots, total.free)
        in_flight = slots = free = 0
        for pod in self:
            beliefs = pod.beliefs
            in_flight += pod.in_flight + beliefs.foreign_requests
            if beliefs.free_slots is not None:
                slots += beliefs.slots or 0
                free += max(0, beliefs.free_slots)
        return FleetLoad(len(self), in_flight, slots, free)

    def has_free_slot(self) -> bool:
        """Return whether some candidate has a free slot, or an unknown number of slots."""
        group = self._group
        if group is not None and len(self) > FULL_LOOK:
            with_slot = self._orders(group.fleet)[1]
            if not with_slot:
                return False
            if group.is_everyone:
                return True
        for pod in self._roomy_of(self):
            room = pod.beliefs.free_slots
            if room is None or room > 0:
                return True
        return False

    def is_full_for(self, adapter: str) -> bool:
        """Return whether no candidate has a free slot and none has the adapter in flight.

        ``False`` can also mean that only an inspection of each pod would show it.
        """
        if len(self) > FULL_LOOK:
            if self._group is None:
                return False
            index = self._group.fleet
            return not self._orders(index)[1] and not index.running(adapter)
        for pod in self:
            room = pod.beliefs.free_slots
            if (
                room is None
                or room > 0
                or adapter in pod.in_flight_adapters
                or adapter in pod.beliefs.foreign_adapters
            ):
                return False
        return True


def _looks_at(pods: int) -> int:
    return max(1, (pods + FULL_LOOK - 1) // FULL_LOOK)


def _add_pods_of(
    adapter: str,
    group: PodGroup,
    by_load: LoadOrder,
    rng: random.Random,
    found: dict[PodState, None],
) -> None:
    """Add the pods that are worth inspecting because of an adapter."""
    index = group.fleet
    for pod in _least_loaded(index.running(adapter), by_load, rng):
        found[pod] = None
    for number, pod in enumerate(reversed(tuple(index.users(adapter)))):
        if number == _USERS:
            break
        found[pod] = None
    # With so few pods with room that all are in the list, the order decides nothing.
    if len(index.with_room) > _LEAST:
        for pod in first_of_group(adapter, group)[:_FIRST]:
            found[pod] = None


def _add_pods_with_prompt(
    cached: Mapping[PodView, float],
    members: Container[PodView],
    by_load: LoadOrder,
    rng: random.Random,
    found: dict[PodState, None],
) -> None:
    """Add the candidates that have most of a prompt's beginning, the least loaded ones first."""
    having = with_most(cast("Mapping[PodState, float]", cached), _NEARLY, _MOST_HAVING, rng)
    if len(having) > _CACHED:
        having = by_load.in_order(having)
    for pod in having[:_CACHED]:
        if pod in members:
            found[pod] = None


def _least_loaded(
    pods: Collection[PodState], by_load: LoadOrder, rng: random.Random
) -> Collection[PodState]:
    if len(pods) <= _RUNNING:
        return pods
    return by_load.in_order(random_run(list(pods), _SAMPLE, rng))[:_RUNNING]
