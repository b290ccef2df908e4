"""Metrics of active-standby replication, read whenever the page is."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lora_router.replication.candidate import Candidate
from lora_router.replication.leadership import Leadership


class LeaseMetrics(Collector):
    """The collector. No label is a router's name, because each run has a new one."""

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        leadership = self._leadership
        transitions = CounterMetricFamily(
            "lora_router_leader_transitions",
            "How often this router began to lead, and how often it became a standby.",
            labels=["to"],
        )
        transitions.add_metric(["leader"], leadership.began_to_lead)
        transitions.add_metric(["standby"], leadership.ceased_to_lead)
        return (
            GaugeMetricFamily(
                "lora_router_leader",
                "Whether this router holds the Lease and leads: 1 or 0.",
                value=float(leadership.leads),
            ),
            transitions,
            _errors(leadership.candidate),
        )


class LeaseErrors(Collector):
    """The errors of a Lease that does not decide which router leads."""

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        return (_errors(self._candidate),)


def _errors(candidate: Candidate) -> Metric:
    errors = CounterMetricFamily(
        "lora_router_lease_errors",
        "Failed calls of the Kubernetes API for the Lease, by cause.",
        labels=["cause"],
    )
    for cause, number in candidate.errors.items():
        errors.add_metric([cause], number)
    return errors
