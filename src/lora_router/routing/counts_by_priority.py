"""How many there are of each priority or a higher one.

Clients choose among 2,001 priorities. Adding up all that are in use would cost so many steps for
each request. So priorities are counted in blocks of 64 as well: a question adds up a block, and the
sums of the higher blocks. Priorities of objectives may be beyond those that clients may state. They
count as the highest and the lowest of these.
"""

from lora_router.routing.counts import change
from lora_router.routing.priorities import within_bounds

_BITS = 6


class CountsByPriority:
    """Numbers by priority."""

    __slots__ = ("_blocks", "_sums")

    def __init__(self) -> None:
        self._blocks: dict[int, dict[int, int]] = {}
        """By block, the number of each of its priorities that has some."""
        self._sums: dict[int, int] = {}
        """The number of each block that has some."""

    def change(self, priority: int, by: int) -> None:
        """Add to the number of a priority."""
        if by:
            priority = within_bounds(priority)
            block = priority >> _BITS
            change(self._blocks.setdefault(block, {}), priority, by)
            change(self._sums, block, by)
            if block not in self._sums:
                del self._blocks[block]

    def at_least(self, priority: int) -> int:
        """Return how many there are of a priority or a higher one."""
        priority = within_bounds(priority)
        block, found = priority >> _BITS, 0
        for each, number in self._sums.items():
            if each > block:
                found += number
            elif each == block:
                found += sum(n for one, n in self._blocks[block].items() if one >= priority)
        return found

    def of(self, priority: int) -> int:
        """Return how many there are of a priority."""
        priority = within_bounds(priority)
        block = self._blocks.get(priority >> _BITS)
        return 0 if block is None else block.get(priority, 0)

    def clear(self) -> None:
        """Forget all."""
        self._blocks.clear()
        self._sums.clear()
