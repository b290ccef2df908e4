"""Learns how many adapters fit in a host memory whose size nothing names.

At first as many are assumed as a pod has slots. A load of an adapter that was used before shows
more: if it is as fast as from host memory, the adapter was there, and so were all that were used
after it; if it is slow, it had been evicted. The size that contradicts the fewest of the last loads
is learned, once several of them prove that more fit than was assumed. What is learned holds for all
pods with the same base model and as many slots, since they are most often started alike.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice

FARTHEST = 256
"""The largest size that is learned."""
_KEPT = 48
"""Loads that are kept, the last ones."""
_ENOUGH = 4
"""By how many loads must a size contradict fewer than the one that is assumed."""


class LearnedSize:
    """What the loads of pods that are alike have shown so far."""

    __slots__ = ("_loads", "assumed", "size")

    def __init__(self, assumed: int) -> None:
        self.assumed = assumed
        self.size = assumed
        """What is learned, or what is assumed."""
        self._loads: deque[tuple[int, bool]] = deque(maxlen=_KEPT)
        """How large memory must be to have had the adapter, and whether its load was fast."""

    def loaded(self, needed: int, *, fast: bool) -> None:
        """Take a load into account.

        Args:
            needed: How many adapters must fit for this one not to be evicted.
            fast: Whether it was as fast as from host memory.
        """
        self._loads.append((needed, fast))
        spared = most_spared = 0
        size = self.assumed
        for fits, was_fast in sorted(self._loads):
            spared += 1 if was_fast else -1
            if spared > most_spared:
                most_spared, size = spared, fits
        self.size = size if most_spared >= _ENOUGH else self.assumed


def needed_for(adapter: str, uses: Iterable[str]) -> int | None:
    """Return how many adapters must fit in host memory for one not to be evicted.

    Args:
        adapter: The adapter.
        uses: All adapters, the one that was used last first.

    Returns:
        The number; ``None`` if the adapter was not used, or ``FARTHEST`` others were since.
    """
    try:
        return list(islice(uses, FARTHEST)).index(adapter) + 1
    except ValueError:
        return None
