"""Finds the most frequent of any number of names with a bounded number of counters.

The rule is that of Misra and Gries: a name without a counter gets one while there are free ones;
otherwise every counter loses one, and those at zero are free. Of ``n`` names, each that came more
often than ``n / (capacity + 1)`` times has a counter. A step takes constant time on average, since
each loss was a gain before.
"""

from collections.abc import Mapping


class Frequent:
    """The counters. Their counts are lower bounds."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._counts: dict[str, float] = {}

    @property
    def counts(self) -> Mapping[str, float]:
        """The counts of the names that have one."""
        return self._counts

    def count(self, name: str) -> None:
        """Count a name."""
        counts = self._counts
        if name in counts:
            counts[name] += 1
        elif len(counts) < self._capacity:
            counts[name] = 1
        else:
            self._counts = {each: count - 1 for each, count in counts.items() if count > 1}

    def set(self, name: str, count: float) -> None:
        """Give a name a count, if there is a free counter."""
        if len(self._counts) < self._capacity:
            self._counts[name] = count

    def remove(self, name: str) -> None:
        """Free the counter of a name."""
        self._counts.pop(name, None)

    def decay(self, factor: float) -> None:
        """Multiply all counts with a factor below 1, and free the counters that fall below 1/2."""
        self._counts = {
            name: count * factor for name, count in self._counts.items() if count * factor > 0.5
        }
