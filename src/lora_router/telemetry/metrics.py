"""The router's own Prometheus metrics."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from lora_router import __version__
from lora_router.fleet.fleet import Fleet
from lora_router.log_limit import LogLimit
from lora_router.telemetry.answer_counts import AnswerCounts
from lora_router.telemetry.catalog import METRICS
from lora_router.telemetry.decision_counts import DecisionCounts
from lora_router.telemetry.exposition import Format, Page, PageWriter, chosen, resting, slices
from lora_router.telemetry.fleet_metrics import FleetMetrics
from lora_router.telemetry.health_metrics import HealthMetrics
from lora_router.telemetry.scrape_counts import ScrapeCounts
from lora_router.telemetry.traffic import Traffic
from lora_router.telemetry.traffic_metrics import TrafficMetrics

log = logging.getLogger("lora_router.telemetry")

_TASKS = ("pods-file", "pod-watch", "scrape-metrics", "scrape-models", "tls-files", "reload")
"""Tasks whose count starts at 0, so that a query sees the increase of their first failure."""
_PAGES_AT_ONCE = 2
"""Pages that are made at the same time. Further scrapers wait, so memory is bounded."""


class _Registry(CollectorRegistry):
    """A registry whose collectors can be read separately."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        """Add a collector."""
        super().register(collector)
        self.collectors.append(collector)


class _Value(Collector):
    """A gauge or counter whose value is stored elsewhere."""

    def __init__(self, name: str, kind: str, meaning: str, read: Callable[[], float]) -> None:
        self.name = name.removesuffix("_total")
        self._kind = kind
        self._meaning = meaning
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Return it as it is now."""
        metric = Metric(self.name, self._meaning, self._kind)
        metric.add_sample(
            f"{self.name}{'_total' * (self._kind == 'counter')}", {}, float(self._read())
        )
        return (metric,)


class Telemetry:
    """Counts what the router does. A process has one, with a registry of its own."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float] = monotonic) -> None:
        self.registry = _Registry()
        self.counts = DecisionCounts()
        self.registry.register(self.counts)
        self.answers = AnswerCounts()
        self.registry.register(self.answers)
        self.scrapes = ScrapeCounts(fleet)
        self.registry.register(self.scrapes)
        self.scraped, self.failed = self.scrapes.scraped, self.scrapes.failed
        self._pod_events = Counter(
            *_described("lora_router_pod_events_total"), registry=self.registry
        )
        self._discovery_failures = Counter(
            *_described("lora_router_discovery_failures_total"), registry=self.registry
        )
        self._task_failures = Counter(
            *_described("lora_router_task_failures_total"), registry=self.registry
        )
        for task in _TASKS:
            self._task_failures.labels(task)
        Gauge(*_described("lora_router_build_info"), registry=self.registry).labels(
            __version__
        ).set(1)
        self.registry.register(FleetMetrics(fleet, clock))
        if fleet.outliers is not None:
            self.registry.register(HealthMetrics(fleet, fleet.outliers))
        self._limit = LogLimit(60.0)
        self._turns = asyncio.Semaphore(_PAGES_AT_ONCE)

    def follow(self, traffic: Traffic) -> None:
        """Add the metrics of traffic by base model, pod and adapter to the page."""
        self.registry.register(TrafficMetrics(traffic))

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
        self.registry.register(_Value(name, "gauge", meaning, read))

    def add_counter(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Add a counter whose value is stored elsewhere and read whenever the page is."""
        self.registry.register(_Value(name, "counter", meaning, read))

    def page(self) -> bytes:
        """Return the page as text, made in one go.

        A collector that fails is omitted and logged, since a page without one metric is more
        useful than no page.
        """
        writer = PageWriter(Format.TEXT)
        for part in self.metrics():
            self._write(writer, part)
        return writer.page()

    async def served(self, accept: str = "") -> Page:
        """Return the page that ``/metrics`` serves, made in slices.

        Args:
            accept: The header of that name, which chooses the format.
        """
        return await self.written(self.metrics(), accept)

    async def written(self, metrics: Iterable[Metric], accept: str) -> Page:
        """Return the page of some metrics, as ``served`` does."""
        form = chosen(accept)
        async with self._turns:
            writer = PageWriter(form)
            async for part in resting(slices(metrics)):
                self._write(writer, part)
            return Page(writer.page(), form.value)

    def metrics(self) -> Iterator[Metric]:
        """Yield all metrics in slices, without those of a collector that fails."""
        for collector in tuple(self.registry.collectors):
            try:
                yield from slices(collector.collect())
            except Exception as error:
                self._omitted(getattr(collector, "name", type(collector).__name__), error)

    def _write(self, writer: PageWriter, part: Metric) -> None:
        try:
            writer.write(part)
        except Exception as error:
            self._omitted(part.name, error)

    def _omitted(self, what: str, error: Exception) -> None:
        self._limit.log(
            log,
            logging.ERROR,
            what,
            "%s cannot be read, /metrics omits it: %s",
            what,
            type(error).__name__,
            exc_info=error,
        )


def _described(name: str) -> tuple[str, str, tuple[str, ...]]:
    """Return the first arguments of a metric of ``prometheus_client``."""
    metric = METRICS[name]
    return name, metric.meaning, metric.labels
