"""Reads the router's own ``/metrics``, to check that a measurement is valid."""

import re
from collections.abc import Mapping

from bench.processes import get

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class OwnMetrics:
    """The samples of one page."""

    def __init__(self, page: str) -> None:
        self._samples = [
            (name, dict(_LABEL.findall(labels)), float(value))
            for name, labels, value in _SAMPLE.findall(page)
        ]

    @classmethod
    async def read(cls, admin_port: int) -> "OwnMetrics":
        """Read the page of a router."""
        return cls((await get(admin_port, "/metrics")).decode().replace("\r\n", "\n"))

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples that have these labels, or 0 if there are none."""
        return sum(
            value
            for found, has, value in self._samples
            if found == name and labels.items() <= has.items()
        )

    def buckets(self, name: str) -> dict[float, float]:
        """Return a histogram's cumulative counts by upper bound, over all labels."""
        counts: dict[float, float] = {}
        for found, has, value in self._samples:
            if found == f"{name}_bucket":
                bound = float(has["le"])
                counts[bound] = counts.get(bound, 0.0) + value
        return counts


def quantile(before: Mapping[float, float], after: Mapping[float, float], share: float) -> float:
    """Return a quantile of what a histogram counted between two reads.

    The quantile is interpolated within its bucket. A quantile beyond the last finite bound is
    reported as that bound.
    """
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    wanted = share * max(counts.values(), default=0.0)
    lower, below = 0.0, 0.0
    for bound, count in counts.items():
        if count >= wanted and count > below:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return lower
