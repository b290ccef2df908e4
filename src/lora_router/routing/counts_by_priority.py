"""How many there are of each priority, and of each priority or a higher one.

Clients choose among 2,001 priorities. Adding up all that are in use would cost so many steps for
each request. So the sums of ranges are kept, in a Fenwick tree: a change and a question take eleven
steps at most. Priorities of objectives may be beyond those that clients may state. They count as
the highest and the lowest of these.
"""

from lora_router.routing.priorities import MOST, within_bounds

_PLACES = 2 * MOST + 1


class CountsByPriority:
    """Numbers by priority."""

    __slots__ = ("_sums", "total")

    def __init__(self) -> None:
        self.total = 0
        self._sums: dict[int, int] = {}
        """The numbers of each range that has some, by the place of its last priority."""

    def change(self, priority: int, by: int) -> None:
        """Add to the number of a priority."""
        self.total += by
        place, sums = _place(priority), self._sums
        while place <= _PLACES:
            left = sums.get(place, 0) + by
            if left:
                sums[place] = left
            else:
                sums.pop(place, None)
            place += place & -place

    def at_least(self, priority: int) -> int:
        """Return how many there are of a priority or a higher one."""
        return self._up_to(_place(priority))

    def above(self, priority: int) -> int:
        """Return how many there are of higher priorities."""
        return self._up_to(_place(priority) - 1)

    def clear(self) -> None:
        """Forget all."""
        self.total = 0
        self._sums.clear()

    def _up_to(self, place: int) -> int:
        sums, found = self._sums, 0
        while place and sums:
            found += sums.get(place, 0)
            place &= place - 1
        return found


def _place(priority: int) -> int:
    """Return the place of a priority: 1 for the highest."""
    return MOST + 1 - within_bounds(priority)
