"""The router's own Prometheus metrics."""

import logging
from collections import Counter as Counts
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from lora_router import __version__
from lora_router.fleet.engine_names import UNKNOWN
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.log_limit import LogLimit
from lora_router.telemetry.answer_counts import AnswerCounts
from lora_router.telemetry.decision_counts import DecisionCounts
from lora_router.telemetry.health_metrics import HealthMetrics

log = logging.getLogger("lora_router.telemetry")

_TASKS = ("pods-file", "pod-watch", "scrape-metrics", "scrape-models", "tls-files", "reload")
"""Tasks whose count starts at 0, so that a query sees the increase of their first failure."""
_SCRAPE_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


_Used = TypeVar("_Used")


def page_of(metrics: Iterable[Metric]) -> bytes:
    """Return the page of some metrics."""
    return generate_latest(_Metrics(metrics))


class _Registry(CollectorRegistry):
    """A registry whose collectors can be read separately."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        """Add a collector."""
        super().register(collector)
        self.collectors.append(collector)


class _Metrics(Collector):
    """A collector of metrics that have been collected already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._metrics


class _Count(Collector):
    """A counter whose value is stored elsewhere."""

    def __init__(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        self._name = name.removesuffix("_total")
        self._meaning = meaning
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Return it as it is now."""
        return (CounterMetricFamily(self._name, self._meaning, value=self._read()),)


class Telemetry:
    """Counts what the router does. A process has one, with a registry of its own."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float] = monotonic) -> None:
        self.registry = _Registry()
        self.counts = DecisionCounts()
        self.registry.register(self.counts)
        self.answers = AnswerCounts()
        self.registry.register(self.answers)
        self._scrapes = Histogram(
            "lora_router_scrape_seconds",
            "Time of a successful read of a pod's /metrics or /v1/models.",
            ["kind"],
            buckets=_SCRAPE_BUCKETS,
            registry=self.registry,
        )
        self._scrape_failures = Counter(
            "lora_router_scrape_failures_total",
            "Failed reads of a pod's /metrics or /v1/models. The last snapshot stays in use.",
            ["kind", "pod", "cause"],
            registry=self.registry,
        )
        self._pod_events = Counter(
            "lora_router_pod_events_total",
            "Pods that the Kubernetes API server listed, changed or deleted.",
            ["kind"],
            registry=self.registry,
        )
        self._discovery_failures = Counter(
            "lora_router_discovery_failures_total",
            "Failures to list or watch the pods. The last known pods stay in use.",
            ["cause"],
            registry=self.registry,
        )
        self._task_failures = Counter(
            "lora_router_task_failures_total",
            "Failures of background tasks. A task that fails restarts with backoff.",
            ["task"],
            registry=self.registry,
        )
        for task in _TASKS:
            self._task_failures.labels(task)
        Gauge(
            "lora_router_build_info",
            "Constant 1, labelled with the version.",
            ["version"],
            registry=self.registry,
        ).labels(__version__).set(1)
        self.registry.register(_FleetCollector(fleet, clock))
        if fleet.outliers is not None:
            self.registry.register(HealthMetrics(fleet, fleet.outliers))
        self._limit = LogLimit(60.0)
        self._failing_pods: set[str] = set()
        self._fleet = fleet
        fleet.changes.pods.subscribe(self._forget_pods_that_left)

    def scraped(self, kind: str, _pod: str, seconds: float) -> None:
        """Count a successful read of a pod (``ScrapeObserver``)."""
        self._scrapes.labels(kind).observe(seconds)

    def failed(self, kind: str, pod: str, cause: str) -> None:
        """Count a failed read of a pod (``ScrapeObserver``)."""
        self._failing_pods.add(pod)
        self._scrape_failures.labels(kind, pod, cause).inc()

    def pod_events(self, kind: str, count: int) -> None:
        """Count pods that the API server reported (``DiscoveryObserver``)."""
        self._pod_events.labels(kind).inc(count)

    def discovery_lost(self, cause: str) -> None:
        """Count a failure to list or watch the pods (``DiscoveryObserver``)."""
        self._discovery_failures.labels(cause).inc()

    def task_failed(self, task: str) -> None:
        """Count a failure of a background task; ``task`` is one of a few names."""
        self._task_failures.labels(task).inc()

    def add_gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Add a gauge whose value is read whenever the page is."""
        Gauge(name, meaning, registry=self.registry).set_function(read)

    def add_counter(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Add a counter whose value is stored elsewhere and read whenever the page is."""
        self.registry.register(_Count(name, meaning, read))

    def page(self) -> bytes:
        """Return the page that ``/metrics`` serves.

        A collector that fails is omitted and logged, since a page without one metric is more
        useful than no page.
        """
        return b"".join(self._each(page_of))

    def metrics(self) -> list[Metric]:
        """Return all metrics, without those of a collector that fails."""
        return [metric for metrics in self._each(list[Metric]) for metric in metrics]

    def _each(self, use: Callable[[Iterable[Metric]], _Used]) -> list[_Used]:
        used = []
        for collector in self.registry.collectors:
            try:
                used.append(use(collector.collect()))
            except Exception as error:
                self._limit.log(
                    log,
                    logging.ERROR,
                    type(collector).__name__,
                    "collector %s failed, /metrics omits it: %s",
                    type(collector).__name__,
                    type(error).__name__,
                    exc_info=error,
                )
        return used

    def _forget_pods_that_left(self, changed: Iterable[PodState]) -> None:
        for state in changed:
            name = state.pod.name
            if name in self._failing_pods and self._fleet.get(name) is None:
                self._failing_pods.discard(name)
                self._scrape_failures.remove_by_labels({"pod": name})


CONTENT_TYPE = CONTENT_TYPE_LATEST


class _FleetCollector(Collector):
    """Reads the fleet whenever the page is read, so that no gauge has to be updated before."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._clock = clock

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the metrics of the fleet as it is now."""
        now = self._clock()
        in_flight = GaugeMetricFamily(
            "lora_router_in_flight_requests",
            "Requests sent to the pod by this router and not finished.",
            labels=["pod"],
        )
        adapters = GaugeMetricFamily(
            "lora_router_in_flight_adapters",
            "Distinct adapters of the requests in flight on the pod.",
            labels=["pod"],
        )
        age = GaugeMetricFamily(
            "lora_router_snapshot_age_seconds",
            "Age of the pod's last successful scrape; absent before the first.",
            labels=["pod"],
        )
        without_load = GaugeMetricFamily(
            "lora_router_pods_without_load",
            "Ready pods whose metrics page was read and does not show their load, by the engine of "
            "their label.",
            labels=["engine"],
        )
        loadless: Counts[str] = Counts()
        ready_pods = 0
        for state in self._fleet:
            name = state.pod.name
            ready_pods += state.pod.ready
            in_flight.add_metric([name], state.in_flight)
            adapters.add_metric([name], len(state.in_flight_adapters))
            if state.metrics is not None:
                age.add_metric([name], max(0.0, now - state.metrics.scraped_at))
                if state.pod.ready and not state.metrics.shows_load:
                    loadless[state.pod.engine or UNKNOWN] += 1
        for engine, count in loadless.items():
            without_load.add_metric([engine], count)
        pods = GaugeMetricFamily("lora_router_pods", "Pods in the fleet.", labels=["state"])
        pods.add_metric(["ready"], ready_pods)
        pods.add_metric(["not-ready"], len(self._fleet) - ready_pods)
        total = GaugeMetricFamily(
            "lora_router_reservations",
            "Requests in the in-flight ledger, including those on pods that have left the fleet.",
            value=self._fleet.ledger.total,
        )
        return (pods, in_flight, adapters, total, age, without_load)
