"""Counts the reads of pods' pages: plain numbers, which become metrics when a page is read."""

from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.telemetry.catalog import CATALOG
from lora_router.telemetry.times import Edges, Times

SCRAPE_EDGES = Edges((0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0))
_PART = 64
"""Pods of which one part is made."""


class ScrapeCounts(Collector):
    """The counts, without those of pods that have left (``ScrapeObserver``)."""

    def __init__(self, fleet: Fleet) -> None:
        self._times: dict[str, Times] = {}
        self._failures: dict[str, dict[tuple[str, str], int]] = {}
        """By pod; by kind of page and cause."""
        self._in_a_row: dict[str, dict[str, int]] = {}
        """Failures since the last read that succeeded, by pod and by kind of page."""
        self._fleet = fleet
        fleet.changes.pods.subscribe(self._forget_pods_that_left)

    def scraped(self, kind: str, pod: str, seconds: float) -> None:
        """Count a successful read of a pod, of one of a few kinds of pages."""
        if self._in_a_row and (in_a_row := self._in_a_row.get(pod)) is not None:
            in_a_row[kind] = 0
        times = self._times.get(kind)
        if times is None:
            times = self._times[kind] = Times(SCRAPE_EDGES)
        times.observe(seconds)

    def failed(self, kind: str, pod: str, cause: str) -> None:
        """Count a failed read of a pod."""
        failures = self._failures.setdefault(pod, {})
        failures[kind, cause] = failures.get((kind, cause), 0) + 1
        in_a_row = self._in_a_row.setdefault(pod, {})
        in_a_row[kind] = in_a_row.get(kind, 0) + 1

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics as they are now."""
        seconds = CATALOG.histograms("lora_router_scrape_seconds", SCRAPE_EDGES)
        for kind, times in self._times.items():
            seconds.add((kind,), times)
        yield seconds
        pods = list(self._failures.items())
        for begin in range(0, len(pods) or 1, _PART):
            failures = CATALOG.counter("lora_router_scrape_failures_total")
            for pod, counts in pods[begin : begin + _PART]:
                for (kind, cause), count in counts.items():
                    failures.add_metric((kind, pod, cause), count)
            yield failures
        rows = list(self._in_a_row.items())
        for begin in range(0, len(rows) or 1, _PART):
            in_a_row = CATALOG.gauge("lora_router_scrape_failures_in_a_row")
            for pod, numbers in rows[begin : begin + _PART]:
                for kind, number in numbers.items():
                    in_a_row.add_metric((kind, pod), number)
            yield in_a_row

    def _forget_pods_that_left(self, changed: Iterable[PodState]) -> None:
        for state in changed:
            name = state.pod.name
            if name in self._failures and self._fleet.get(name) is None:
                del self._failures[name]
                del self._in_a_row[name]
