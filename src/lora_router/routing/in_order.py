"""Things that stand in order of their places, where a place changes while they stand there."""

from collections.abc import Generator, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar

_SLACK = 64
"""How many outdated entries the heap may have, in addition to as many as there are things."""

Place = tuple[int, int, int]
"""The lowest is first. The priority with the sign changed, the round of the tenant
(``turns_of_tenants``), and the number of the first request. No two things have the same."""


class Placed(Protocol):
    """What has a place."""

    @property
    def place(self) -> Place:
        """Where it belongs."""


_Thing = TypeVar("_Thing", bound=Placed)
_Entry = tuple[Place, int, _Thing]
"""The second item tells things apart that have been at the same place."""


class InOrder(Generic[_Thing]):
    """Things, each at the place that it had when it was put there last.

    A change costs the logarithm of their number. Outdated entries stay in the heap until they reach
    its top.
    """

    __slots__ = ("_heap", "_places")

    def __init__(self) -> None:
        self._places: dict[_Thing, Place] = {}
        self._heap: list[_Entry[_Thing]] = []

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[_Thing]:
        """Yield each, in the order in which they came."""
        return iter(self._places)

    def __contains__(self, thing: object) -> bool:
        return thing in self._places

    def places(self) -> Iterable[tuple[_Thing, Place]]:
        """Return each with its place, in the order in which they came."""
        return self._places.items()

    def place_of(self, thing: _Thing) -> Place | None:
        """Return where something stands; ``None``: it does not."""
        return self._places.get(thing)

    def put(self, thing: _Thing) -> None:
        """Put something at its place, also if it has another place by now."""
        place = thing.place
        if self._places.get(thing) == place:
            return
        self._places[thing] = place
        heappush(self._heap, (place, id(thing), thing))
        if len(self._heap) > 2 * len(self._places) + _SLACK:
            self._heap = [(at, id(each), each) for each, at in self._places.items()]
            heapify(self._heap)

    def remove(self, thing: _Thing) -> None:
        """Remove something."""
        del self._places[thing]

    def first(self) -> tuple[Place, _Thing] | None:
        """Return the first, with its place; ``None``: there is nothing."""
        heap = self._heap
        while heap and not self._stands(heap[0]):
            heappop(heap)
        return (heap[0][0], heap[0][2]) if heap else None

    def in_turn(self) -> Generator[_Thing, None, None]:
        """Yield each, the first one first. What was yielded may change its place, or leave.

        Close the iterator, so that what stays keeps its place.
        """
        seen: list[_Entry[_Thing]] = []
        try:
            while self._heap:
                entry = heappop(self._heap)
                if self._stands(entry):
                    seen.append(entry)
                    yield entry[2]
        finally:
            for entry in seen:
                if self._stands(entry):
                    heappush(self._heap, entry)

    def _stands(self, entry: _Entry[_Thing]) -> bool:
        return self._places.get(entry[2]) == entry[0]
