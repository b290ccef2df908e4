"""The pods of a large fleet that an algorithm has to look at.

What an algorithm looks for is the best pod by where the adapter is and by load. Of pods that are
alike but for their load only those with the least can be the best. So of each kind a few are
enough: a look at a dozen pods costs a tenth of a look at a hundred, and finds the same, or another
that is as good. Small fleets, and those narrowed by a filter, are looked at in full.
"""

import random
from collections.abc import Collection, Sequence

from lora_router.fleet.pod_group import PodGroup
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.rendezvous import first_of_group

FULL_LOOK = 32
"""As many pods are all looked at."""
_RUNNING = 4
_USERS = 3
_FIRST = 2
_LEAST = 2
_SAMPLE = 16
"""Of very many pods that have an adapter in flight so many, from anywhere, stand for all."""


def shortlist(
    adapter: str | None, candidates: Sequence[PodView], rng: random.Random
) -> Sequence[PodView]:
    """Return the candidates worth a look for an adapter, or (``None``) for a base model.

    In it, as far as they are among the candidates: the least loaded pods on which the adapter is in
    flight, those that used it last, its first ones by rendezvous hashing, the least loaded ones
    with a slot to spare, the least loaded of all, and the most loaded one.
    """
    if len(candidates) <= FULL_LOOK or not isinstance(candidates, PodGroup):
        return candidates
    index = candidates.fleet
    among = None if candidates.is_everyone else candidates.members
    found: dict[PodState, None] = dict.fromkeys(index.by_load.least(_LEAST, rng, among))
    most = index.by_load.most()
    if most is not None and (among is None or most in among):
        found[most] = None
    for pod in index.with_room.least(_LEAST, rng, among):
        found[pod] = None
    if adapter is not None:
        _add_those_with(adapter, candidates, rng, found)
    if among is None:
        return tuple(found)
    return [pod for pod in found if pod in among] or candidates


def _add_those_with(
    adapter: str, candidates: PodGroup, rng: random.Random, found: dict[PodState, None]
) -> None:
    index = candidates.fleet
    for pod in _least_loaded(index.running(adapter), rng):
        found[pod] = None
    for number, pod in enumerate(reversed(tuple(index.users(adapter)))):
        if number == _USERS:
            break
        found[pod] = None
    for pod in first_of_group(adapter, candidates)[:_FIRST]:
        found[pod] = None


def _least_loaded(pods: Collection[PodState], rng: random.Random) -> Collection[PodState]:
    if len(pods) <= _RUNNING:
        return pods
    some = list(pods)
    if len(some) > _SAMPLE:
        start = int(rng.random() * len(some))
        some = (some[start:] + some[:start])[:_SAMPLE]
    some.sort(key=_in_flight)
    return some[:_RUNNING]


def _in_flight(pod: PodState) -> int:
    return pod.in_flight
