"""The metrics of the fleet, read whenever the page is, so that no gauge has to be updated before.

Those of pods come in parts, since there may be a thousand: what writes the page lets the event
loop serve requests between them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from lora_router.fleet.engine_names import UNKNOWN
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.telemetry.catalog import CATALOG

_PART = 128
"""Pods of which one part is made."""


class FleetMetrics(Collector):
    """The collector."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of the fleet as it is now."""
        fleet, now = self._fleet, self._clock()
        states = tuple(fleet)
        ready, loadless = 0, Counter[str]()
        for some in _parts(states):
            in_flight = CATALOG.gauge("lora_router_in_flight_requests")
            for state in some:
                in_flight.add_metric([state.pod.name], state.in_flight)
                ready += state.pod.ready
            yield in_flight
        for some in _parts(states):
            adapters = CATALOG.gauge("lora_router_in_flight_adapters")
            for state in some:
                adapters.add_metric([state.pod.name], len(state.in_flight_adapters))
            yield adapters
        for some in _parts(states):
            age = CATALOG.gauge("lora_router_snapshot_age_seconds")
            for state in some:
                if state.metrics is not None:
                    age.add_metric([state.pod.name], max(0.0, now - state.metrics.scraped_at))
                    if state.pod.ready and not state.metrics.shows_load:
                        loadless[state.pod.engine or UNKNOWN] += 1
            yield age
        without_load = CATALOG.gauge("lora_router_pods_without_load")
        for engine, count in loadless.items():
            without_load.add_metric([engine], count)
        yield without_load
        pods = CATALOG.gauge("lora_router_pods")
        pods.add_metric(["ready"], ready)
        pods.add_metric(["not-ready"], len(states) - ready)
        yield pods
        chunks = CATALOG.gauge("lora_router_prefix_chunks")
        chunks.add_metric([], fleet.prefixes.count)
        yield chunks
        total = CATALOG.gauge("lora_router_reservations")
        total.add_metric([], fleet.ledger.total)
        yield total
        for name in (
            "lora_router_retried_requests_total",
            "lora_router_requests_served_elsewhere_total",
        ):
            moved = CATALOG.counter(name)
            moved.add_metric([], fleet.ledger.moved)
            yield moved


def _parts(states: Sequence[PodState]) -> Iterator[Sequence[PodState]]:
    """Yield the pods in parts, at least one."""
    for begin in range(0, len(states) or 1, _PART):
        yield states[begin : begin + _PART]
