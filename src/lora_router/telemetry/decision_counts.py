"""Counts decisions on the request path: plain numbers, which become metrics when a page is read.

A counter of ``prometheus_client`` takes a lock for each addition, because threads may share it.
This process decides in one thread, and counts each request twice.
"""

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from lora_router.routing.answer_check import FAILED
from lora_router.routing.director import PASS_THROUGH
from lora_router.routing.refusal import Refusal
from lora_router.telemetry.catalog import CATALOG
from lora_router.telemetry.times import Edges, Times

EDGES = Edges((5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 0.1))
_BOUNDS = EDGES.bounds
MAX_SERIES = 256
"""Distinct combinations of algorithm, outcome and reason. The built-in algorithms have about 40."""
BY_ROUTER = "none"
"""The algorithm of requests that the router answers before an algorithm is known."""
NO_FAULT_OF_CLIENTS = (
    Refusal.OVERLOADED,
    Refusal.TOO_MANY_HELD,
    Refusal.NO_READY_POD,
    Refusal.MODELS_UNKNOWN,
    Refusal.ADAPTER_NOT_LOADED,
)
"""Refusals because of the fleet, which alerts are about."""
ROUTER_OVERLOADED = "router-overloaded"
"""The reason of refusals because the router has no memory or no time."""
OTHER = "other"
_LABEL_CHARACTERS = 64


class DecisionCounts(Collector):
    """Counts the outcomes of requests (``DecisionObserver``).

    No value that an algorithm returns can break it: a label that is not a string is converted, a
    long one is truncated, and after ``MAX_SERIES`` series further reasons count as ``other``.
    """

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, str], int] = {}
        self._times: dict[str, Times] = {}

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
            times.counts[bisect_left(_BOUNDS, seconds)] += 1

    def expect(self, algorithm: str) -> None:
        """Let the usual series exist from the start, so that a query sees their increase.

        In a series that begins with its first count, that count is no increase. All requests of a
        burst may come between two reads of the page.

        Args:
            algorithm: The default algorithm.
        """
        refused = [(algorithm, refusal.value) for refusal in NO_FAULT_OF_CLIENTS]
        refused += [(PASS_THROUGH, Refusal.NO_READY_POD.value), (BY_ROUTER, ROUTER_OVERLOADED)]
        for who, reason in refused:
            self._requests.setdefault((who, "refused", reason), 0)
        # An algorithm's other reasons are its own.
        for who, reason in ((algorithm, FAILED), (PASS_THROUGH, PASS_THROUGH)):
            self._requests.setdefault((who, "routed", reason), 0)
            self._times_of_new(who)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        requests = CATALOG.counter("lora_router_requests_total")
        for labels, count in self._requests.items():
            requests.add_metric(labels, count)
        seconds = CATALOG.histograms("lora_router_decision_seconds", EDGES)
        for algorithm, times in self._times.items():
            seconds.add((algorithm,), times)
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

    def _times_of_new(self, algorithm: str) -> Times:
        if len(self._times) >= MAX_SERIES:
            algorithm = OTHER
        return self._times.setdefault(algorithm, Times(EDGES))


def _label(value: object) -> str:
    """Return a value as a label: a string of bounded length that can be encoded as UTF-8."""
    try:
        text = value if type(value) is str else str(value)
        return text[:_LABEL_CHARACTERS].encode("utf-8", "replace").decode()
    except Exception:
        return "unprintable"
