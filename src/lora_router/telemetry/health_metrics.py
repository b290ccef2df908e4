"""Metrics of the health of pods, read whenever the page is."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HEALTHY, NAMES
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.unwell_pods import CAUSES


class HealthMetrics(Collector):
    """The collector."""

    def __init__(self, fleet: Fleet, outliers: Outliers) -> None:
        self._fleet = fleet
        self._outliers = outliers

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of health as it is now."""
        unwell = Counter(state.health.state for state in self._outliers.unwell)
        unwell[HEALTHY] = len(self._fleet) - sum(unwell.values())
        pods = GaugeMetricFamily(
            "lora_router_pods_by_health", "Pods in the fleet, by health.", labels=["health"]
        )
        for health, name in NAMES.items():
            pods.add_metric([name], unwell[health])
        ejections = CounterMetricFamily(
            "lora_router_pod_ejections",
            "Pods that were ejected because they failed, by cause.",
            labels=["cause"],
        )
        for cause in CAUSES:
            ejections.add_metric([cause], self._outliers.unwell.ejections.get(cause, 0))
        moved = CounterMetricFamily(
            "lora_router_requests_served_elsewhere",
            "Requests that Envoy sent to another pod than the picked one.",
            value=self._fleet.ledger.moved,
        )
        return (pods, ejections, moved)
