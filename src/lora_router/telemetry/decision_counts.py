"""Counts decisions on the request path: plain numbers, which become metrics when a page is read.

A counter of ``prometheus_client`` takes a lock for each addition, because threads may share it.
This process decides in one thread, and counts each request twice.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

BUCKETS = (5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 0.1)
"""Seconds."""
MAX_SERIES = 256
"""Distinct combinations of algorithm, outcome and reason. The built-in algorithms have about 40."""
OTHER = "other"
_LABEL_CHARACTERS = 64
_BOUNDS = (*(str(bound) for bound in BUCKETS), "+Inf")


@dataclass(slots=True)
class _Times:
    """Histogram of one algorithm's decision times."""

    seconds: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))
    """By bucket, not cumulative."""


class DecisionCounts(Collector):
    """Counts the outcomes of requests (``DecisionObserver``).

    No value that an algorithm returns can break it: a label that is not a string is converted, a
    long one is truncated, and after ``MAX_SERIES`` series further reasons count as ``other``.
    """

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, str], int] = {}
        self._times: dict[str, _Times] = {}

    def decided(self, algorithm: str, outcome: str, reason: str, seconds: float) -> None:
        """Count a decision, and its duration in seconds if a pod was chosen."""
        try:
            self._requests[algorithm, outcome, reason] += 1
        except Exception:
            # A new series, or values that cannot be labels, such as unhashable ones.
            algorithm, outcome = self._count(algorithm, outcome, reason)
        if outcome == "routed":
            times = self._times.get(algorithm)
            if times is None:
                times = self._times_of_new(algorithm)
            times.seconds += seconds
            times.counts[bisect_left(BUCKETS, seconds)] += 1

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        requests = CounterMetricFamily(
            "lora_router_requests",
            "Requests by outcome: routed, refused, answered (by the router itself), held (waits in "
            "the router), cancelled (the client disconnected while the request was held).",
            labels=["algorithm", "outcome", "reason"],
        )
        for labels, count in self._requests.items():
            requests.add_metric(labels, count)
        seconds = HistogramMetricFamily(
            "lora_router_decision_seconds",
            "Time to choose a pod and count the request, without body parsing and waiting.",
            labels=["algorithm"],
        )
        for algorithm, times in self._times.items():
            buckets = list(zip(_BOUNDS, accumulate(times.counts), strict=True))
            seconds.add_metric([algorithm], buckets, times.seconds)
        return (requests, seconds)

    def _count(self, algorithm: object, outcome: object, reason: object) -> tuple[str, str]:
        """Count under sanitized labels. Returns the algorithm's and the outcome's label."""
        requests = self._requests
        key = (_label(algorithm), _label(outcome), _label(reason))
        if key not in requests and len(requests) >= MAX_SERIES:
            key = (*key[:2], OTHER)
            if key not in requests and len(requests) >= 2 * MAX_SERIES:
                key = (OTHER, OTHER, OTHER)
        requests[key] = requests.get(key, 0) + 1
        return key[:2]

    def _times_of_new(self, algorithm: str) -> _Times:
        if len(self._times) >= MAX_SERIES:
            algorithm = OTHER
        return self._times.setdefault(algorithm, _Times())


def _label(value: object) -> str:
    """Return a value as a label: a string of bounded length that can be encoded as UTF-8."""
    try:
        text = value if type(value) is str else str(value)
        return text[:_LABEL_CHARACTERS].encode("utf-8", "replace").decode()
    except Exception:
        return "unprintable"
