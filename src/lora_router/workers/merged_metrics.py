"""One page of metrics from those of the parent and of all workers.

Counters and histograms are added up. What a gauge of several processes means together differs, so
each has its rule in ``GAUGES``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from prometheus_client.core import Metric

from lora_router.workers.messages import Family

Labels: TypeAlias = tuple[tuple[str, str], ...]
Merge: TypeAlias = Callable[[float, float], float]

MAX_SERIES = 20_000
"""Series of workers that have ended that are kept."""


def _sum(one: float, other: float) -> float:
    return one + other


GAUGES: Mapping[str, Merge] = {
    # What each process has by itself.
    "lora_router_open_streams": _sum,
    "lora_router_held_requests": _sum,
    "lora_router_buffered_bytes": _sum,
    "lora_router_max_buffered_bytes": _sum,
    "lora_router_waiting_bodies": _sum,
    "lora_router_failing_tasks": _sum,
    "lora_router_endpoint_streams": _sum,
    "lora_router_in_flight_requests": _sum,
    "lora_router_reservations": _sum,
    # What all processes see, each from its own side.
    "lora_router_in_flight_adapters": max,
    "lora_router_ambiguous_models": max,
    "lora_router_known_ids": max,
    "lora_router_pods": max,
    "lora_router_pods_by_health": max,
    "lora_router_pods_without_load": max,
    "lora_router_pods_age_seconds": max,
    "lora_router_snapshot_age_seconds": max,
    "lora_router_peers": max,
    "lora_router_peer_report_age_seconds": max,
    "lora_router_peer_in_flight_requests": max,
    "lora_router_peer_in_flight_adapters": max,
    "lora_router_peer_held_adapters": max,
    "lora_router_loop_lag_seconds": max,
    "lora_router_slots": max,
    "lora_router_slots_wanted": max,
    "lora_router_slots_lacking": max,
    "lora_router_tls_files_refused_seconds": max,
    "lora_router_pod_files_refused_seconds": max,
    "lora_router_build_info": max,
    "lora_router_ready": min,
    "lora_router_tls_certificate_expiry_timestamp_seconds": min,
    # Each worker has a connection of its own.
    "lora_router_redis_connected": min,
}
"""Others: the largest."""

_ADDED_UP = ("counter", "histogram", "summary")
_CREATED = "_created"
"""The end of the name of a sample that says when a counter began."""


def families_of(metrics: Iterable[Metric]) -> tuple[Family, ...]:
    """Return metrics in the form in which workers send them."""
    return tuple(
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            tuple(
                # Some collectors have true and false.
                (sample.name, tuple(sample.labels.items()), float(sample.value))
                for sample in metric.samples
            ),
        )
        for metric in metrics
    )


def merged(pages: Iterable[Sequence[Family]]) -> list[Metric]:
    """Return one metric for each name, with the series of all pages."""
    found: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, Labels], float]] = {}
    for page in pages:
        for family in page:
            first = found.setdefault(family.name, family)
            series = values.setdefault(family.name, {})
            for name, labels, value in family.samples:
                key = (name, labels)
                before = series.get(key)
                series[key] = value if before is None else _merge(first, name)(before, value)
    metrics = []
    for family in found.values():
        metric = Metric(family.name, family.documentation, family.type)
        for (name, labels), value in values[family.name].items():
            metric.add_sample(name, dict(labels), value)
        metrics.append(metric)
    return metrics


class Ended:
    """The counters of workers that have ended, without which the sums would fall."""

    def __init__(self) -> None:
        self._families: tuple[Family, ...] = ()

    @property
    def families(self) -> tuple[Family, ...]:
        """The counters."""
        return self._families

    def add(self, page: Sequence[Family]) -> None:
        """Add the last page of a worker that has ended."""
        counters = [family for family in page if family.type in _ADDED_UP]
        room = MAX_SERIES
        kept = []
        for family in families_of(merged((self._families, counters))):
            if len(family.samples) <= room:
                room -= len(family.samples)
                kept.append(family)
        self._families = tuple(kept)


def _merge(family: Family, sample: str) -> Merge:
    if sample.endswith(_CREATED):
        return min
    if family.type in _ADDED_UP:
        return _sum
    return GAUGES.get(family.name, max)
