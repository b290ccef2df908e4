"""Histograms of durations, as plain lists of numbers.

One list of counts serves both kinds of Prometheus histograms. Its edges are those of a *native*
histogram (eight for each doubling) and those of a *classic* one, so both are exact: each bucket of
either kind is a sum of neighbouring counts. To count a duration is one binary search and one
addition, and the same position serves several histograms of the same edges.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from math import ceil, floor, log2
from typing import NamedTuple

SCHEMA = 3
"""Native buckets: ``2 ** SCHEMA`` for each doubling, so each bound is 9 % above the one before."""
_PER_DOUBLING = 2**SCHEMA


class Exemplar(NamedTuple):
    """A request that stands for others of similar duration."""

    trace_id: str
    seconds: float
    at: float
    """Seconds since 1970."""


class Edges:
    """The buckets of some histograms."""

    def __init__(self, classic: Sequence[float]) -> None:
        """Create buckets.

        Args:
            classic: The upper bounds of the classic buckets in seconds, ascending, without
                infinity. Native buckets cover the same range. What is below it counts as zero in
                native buckets, and what is above it counts in the last one.
        """
        self.first = floor(log2(classic[0])) * _PER_DOUBLING
        """Index of the native bucket that ends where the zero bucket does."""
        self.last = ceil(log2(classic[-1])) * _PER_DOUBLING
        native: list[float] = [
            2.0 ** (index / _PER_DOUBLING) for index in range(self.first, self.last + 1)
        ]
        self.bounds: tuple[float, ...] = tuple(sorted({*native, *classic}))
        """Upper bounds of the counts. One more count has what is above the last of them."""
        self.size = len(self.bounds) + 1
        self.zero_threshold = native[0]
        self.classic = (*(str(float(bound)) for bound in classic), "+Inf")
        """Upper bounds of the classic buckets, as labels."""
        self.classic_bounds = (*(float(bound) for bound in classic), float("inf"))
        self._classic_ends = [self.bounds.index(bound) for bound in classic]
        self.native_of = [
            bisect_left(native, bound) + self.first for bound in (*self.bounds, float("inf"))
        ]
        """Index of the native bucket of each count."""

    def cumulative(self, counts: Sequence[int]) -> list[int]:
        """Return the counts of the classic buckets, each with those of all lower ones."""
        sums = list(accumulate(counts))
        return [*(sums[end] for end in self._classic_ends), sums[-1]]

    def classic_place(self, seconds: float) -> int:
        """Return which classic bucket a duration is in."""
        return bisect_left(self.classic_bounds, seconds)

    def native(self, counts: Sequence[int]) -> list[tuple[int, int]]:
        """Return the index and count of the native buckets that have any; the indexes ascend.

        The zero bucket, which is not among them, has the first count.
        """
        found: dict[int, int] = {}
        for place, count in enumerate(counts):
            if count and place:
                index = self.native_of[place]
                found[index] = found.get(index, 0) + count
        return list(found.items())


REQUEST_EDGES = Edges(
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0)
)
"""For what a client waits for: the first byte, the whole answer, a slot."""
REQUEST_BOUNDS = REQUEST_EDGES.bounds


class Times:
    """The histogram of one kind of duration. The request path writes to its fields."""

    __slots__ = ("counts", "edges", "exemplars", "seconds")

    def __init__(self, edges: Edges = REQUEST_EDGES) -> None:
        self.edges = edges
        self.counts = [0] * edges.size
        """By bucket, not cumulative."""
        self.seconds = 0.0
        """The sum of all durations."""
        self.exemplars: dict[int, Exemplar] = {}
        """The last exemplar of each classic bucket that has one."""

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(self.edges.bounds, seconds)] += 1
        self.seconds += seconds

    def exemplify(self, exemplar: Exemplar) -> None:
        """Keep the exemplar of a duration that was counted."""
        self.exemplars[self.edges.classic_place(exemplar.seconds)] = exemplar

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.counts)

    def quantile(self, q: float) -> float | None:
        """Return the duration below which a share ``q`` of all is, within 9 %; ``None``: no data.

        Above the last bucket it is that bucket's lower bound.
        """
        total = self.count
        if not total:
            return None
        wanted, below = q * total, 0
        bounds = self.edges.bounds
        for place, count in enumerate(self.counts):
            if count and below + count >= wanted:
                if place == len(bounds):
                    return bounds[-1]
                low = bounds[place - 1] if place else 0.0
                return low + (bounds[place] - low) * max(0.0, wanted - below) / count
            below += count
        return bounds[-1]
