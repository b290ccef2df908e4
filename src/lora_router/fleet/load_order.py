"""Pods in order of load, updated as loads change instead of sorted on demand."""

import random
from bisect import bisect_left, insort
from collections.abc import Container, Iterable, Iterator, KeysView

from lora_router.fleet.pod_state import PodState

_TRIES = 8
"""Number of random probes into a large bucket before the bucket is scanned."""
_BITS = 20
"""The bits of a place that are the position. Small places are compared fastest."""
_POSITION = (1 << _BITS) - 1


class LoadOrder:
    """Pods in buckets, one bucket for each load.

    A change of a pod's load costs about the same for any number of pods, and whatever the loads
    are: pods and peers state them, so no loop runs over the numbers between two loads.
    """

    __slots__ = ("_buckets", "_loads", "_places", "total")

    def __init__(self) -> None:
        self._buckets: dict[int, list[PodState]] = {}
        self._places: dict[PodState, int] = {}
        """Each pod's load, and in the lowest bits its position in the bucket. Numbers are sorted
        in a third of the time of tuples."""
        self._loads: list[int] = []
        """The loads that some pod has, in order. Few pods have a load of their own, so it is short
        and seldom changes."""
        self.total = 0
        """The sum of all loads."""

    @property
    def pods(self) -> KeysView[PodState]:
        """The pods, in no order."""
        return self._places.keys()

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[PodState]:
        return iter(self._places)

    def __contains__(self, pod: object) -> bool:
        return pod in self._places

    def put(self, pod: PodState, load: int) -> None:
        """Add a pod, or update its load."""
        place = self._places.get(pod)
        if place is not None:
            if place >> _BITS == load:
                return
            self._take_out(place)
        bucket = self._buckets.get(load)
        if bucket is None:
            bucket = self._buckets[load] = []
            insort(self._loads, load)
        self.total += load
        self._places[pod] = load << _BITS | len(bucket)
        bucket.append(pod)

    def remove(self, pod: PodState) -> None:
        """Remove a pod. Does nothing if the pod is unknown."""
        place = self._places.pop(pod, None)
        if place is not None:
            self._take_out(place)

    def most(self) -> PodState | None:
        """Return a pod with the highest load, or ``None`` if there are no pods."""
        return self._buckets[self._loads[-1]][0] if self._loads else None

    def least(
        self, count: int, rng: random.Random, among: Container[PodState] | None = None
    ) -> list[PodState]:
        """Return up to ``count`` pods with the lowest loads, in random order among equals.

        Args:
            count: The number of pods wanted.
            rng: Source of randomness for pods of the same load.
            among: Return only pods in this container. If it contains few of all pods, fewer than
                ``count`` may be found.
        """
        found: list[PodState] = []
        buckets = self._buckets
        for load in self._loads:
            _add_from(buckets[load], count, rng, among, found)
            if len(found) >= count:
                break
        return found

    def in_order(self, pods: Iterable[PodState]) -> list[PodState]:
        """Return those of some pods that are known, by load."""
        places = self._places
        return sorted([pod for pod in pods if pod in places], key=places.__getitem__)

    def _take_out(self, place: int) -> None:
        load, position = place >> _BITS, place & _POSITION
        self.total -= load
        bucket = self._buckets[load]
        last = bucket.pop()
        if position < len(bucket):
            bucket[position] = last
            self._places[last] = place
        if not bucket:
            del self._buckets[load]
            del self._loads[bisect_left(self._loads, load)]


def _add_from(
    bucket: list[PodState],
    count: int,
    rng: random.Random,
    among: Container[PodState] | None,
    found: list[PodState],
) -> None:
    """Add randomly chosen pods of one bucket until ``found`` contains ``count`` pods."""
    size = len(bucket)
    if size > 2 * _TRIES:
        for _ in range(_TRIES):
            pod = bucket[int(rng.random() * size)]
            if (among is None or pod in among) and pod not in found:
                found.append(pod)
                if len(found) >= count:
                    return
    start = int(rng.random() * size)
    for position in range(start, start + size):
        pod = bucket[position % size]
        if (among is None or pod in among) and pod not in found:
            found.append(pod)
            if len(found) >= count:
                return
