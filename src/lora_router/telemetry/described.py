"""Descriptions of metrics, from which their families and their documentation are made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from lora_router.telemetry.histograms import Histograms
from lora_router.telemetry.times import REQUEST_EDGES, Edges

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Described:
    """One metric."""

    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    bound: str = "1"
    """How many series it has in one process, at most."""
    renamed: str = ""
    """The name by which it goes now, if this one is kept for a release only."""


def unit_of(name: str) -> str:
    """Return the unit of a metric, which its name states. Empty: it counts."""
    base = name.removesuffix("_total")
    return next((unit for unit in ("seconds", "bytes", "ratio") if base.endswith(f"_{unit}")), "")


class Catalog:
    """Makes the families of metrics that are described."""

    def __init__(self, metrics: Mapping[str, Described]) -> None:
        self._metrics = metrics

    def counter(self, name: str) -> CounterMetricFamily:
        """Return a counter without series, for a name that ends with ``_total``."""
        metric = self._metrics[name]
        return CounterMetricFamily(
            name.removesuffix("_total"), metric.meaning, labels=metric.labels
        )

    def gauge(self, name: str) -> GaugeMetricFamily:
        """Return a gauge without series."""
        metric = self._metrics[name]
        return GaugeMetricFamily(name, metric.meaning, labels=metric.labels)

    def histograms(self, name: str, edges: Edges = REQUEST_EDGES) -> Histograms:
        """Return histograms without series."""
        metric = self._metrics[name]
        return Histograms(name, metric.meaning, metric.labels, edges)
