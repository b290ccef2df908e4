"""Decisions, counted on the request path: plain numbers, which become metrics when a page is read.

A counter of ``prometheus_client`` takes a lock for each addition, because threads may share it.
Here is one thread, and a request counts twice.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

BUCKETS = (5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 0.1)
"""Seconds."""
_BOUNDS = (*(str(bound) for bound in BUCKETS), "+Inf")


@dataclass(slots=True)
class _Times:
    """How long the decisions of one algorithm took."""

    seconds: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))
    """By bucket, not cumulated."""


class Decisions(Collector):
    """Counts what becomes of requests (``DecisionObserver``)."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, str], int] = {}
        self._times: dict[str, _Times] = {}

    def decided(self, algorithm: str, outcome: str, reason: str, seconds: float) -> None:
        """Count a decision, and the time it took if a pod was chosen."""
        requests = self._requests
        key = (algorithm, outcome, reason)
        requests[key] = requests.get(key, 0) + 1
        if outcome == "routed":
            times = self._times.get(algorithm)
            if times is None:
                times = self._times[algorithm] = _Times()
            times.seconds += seconds
            times.counts[bisect_left(BUCKETS, seconds)] += 1

    def collect(self) -> Iterable[Metric]:
        """Make the families of the page."""
        requests = CounterMetricFamily(
            "lora_router_requests",
            "Requests by what became of them: routed, refused, held (waits in the router), "
            "cancelled (the client left while it was held).",
            labels=["algorithm", "outcome", "reason"],
        )
        for labels, count in self._requests.items():
            requests.add_metric(labels, count)
        seconds = HistogramMetricFamily(
            "lora_router_decision_seconds",
            "Time to choose a pod and count the request, without body parsing and holding.",
            labels=["algorithm"],
        )
        for algorithm, times in self._times.items():
            buckets = list(zip(_BOUNDS, accumulate(times.counts), strict=True))
            seconds.add_metric([algorithm], buckets, times.seconds)
        return (requests, seconds)
