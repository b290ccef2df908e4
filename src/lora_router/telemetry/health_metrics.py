"""Metrics of the health of pods, read whenever the page is."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HEALTHY, NAMES
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.unwell_pods import CAUSES
from lora_router.telemetry.catalog import CATALOG


class HealthMetrics(Collector):
    """The collector."""

    def __init__(self, fleet: Fleet, outliers: Outliers) -> None:
        self._fleet = fleet
        self._outliers = outliers

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of health as it is now."""
        unwell = Counter(state.health.state for state in self._outliers.unwell)
        unwell[HEALTHY] = len(self._fleet) - sum(unwell.values())
        pods = CATALOG.gauge("lora_router_pods_by_health")
        for health, name in NAMES.items():
            pods.add_metric([name], unwell[health])
        ejections = CATALOG.counter("lora_router_pod_ejections_total")
        for cause in CAUSES:
            ejections.add_metric([cause], self._outliers.unwell.ejections.get(cause, 0))
        transitions = CATALOG.counter("lora_router_pod_health_transitions_total")
        for health, name in NAMES.items():
            transitions.add_metric([name], self._outliers.unwell.transitions[health])
        return (pods, ejections, transitions)
