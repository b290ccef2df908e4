"""The metrics of traffic by base model, pod and adapter, read whenever the page is.

Each family comes in parts, since there may be a thousand pods: what writes the page lets the
event loop serve requests between them.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from lora_router.telemetry.catalog import CATALOG
from lora_router.telemetry.traffic import Traffic
from lora_router.telemetry.traffic_rows import (
    FOUND,
    AdapterTraffic,
    Failures,
    ModelTraffic,
    PodTraffic,
    as_label,
)

_PART = 16
"""Rows of which one part is made."""
_Each = TypeVar("_Each")


class TrafficMetrics(Collector):
    """The collector."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics as they are now."""
        # Copies, since rows may come and go between the parts.
        traffic = self._traffic
        models = [(as_label(name), row) for name, row in traffic.models.items()]
        yield from _model_histograms(models)
        yield from _model_counters(models)
        adapters = list(traffic.adapters.values())
        yield from _adapter_histograms(adapters)
        yield from _adapter_counters(adapters)
        yield from _pod_families(list(traffic.pods.items()))


def _model_histograms(rows: Sequence[tuple[str, ModelTraffic]]) -> Iterator[Metric]:
    for name, kind in (
        ("lora_router_time_to_first_byte_seconds", "first_byte"),
        ("lora_router_request_duration_seconds", "duration"),
        ("lora_router_hold_seconds", "hold"),
    ):
        histograms = CATALOG.histograms(name)
        for label, row in rows:
            histograms.add((label,), getattr(row, kind))
        yield histograms


def _model_counters(rows: Sequence[tuple[str, ModelTraffic]]) -> Iterator[Metric]:
    spills = CATALOG.counter("lora_router_spills_total")
    replications = CATALOG.counter("lora_router_replications_total")
    tokens = CATALOG.counter("lora_router_tokens_total")
    prefixes = CATALOG.counter("lora_router_prefix_tokens_total")
    failed = CATALOG.counter("lora_router_failed_requests_total")
    if all(label for label, _ in rows):
        # A query sees no increase in a series that begins with the first failures. The row of
        # requests that name no model does not exist before the first of them.
        _add_failures(failed, ("",), Failures())
    for label, row in rows:
        spills.add_metric((label,), row.spilled)
        replications.add_metric((label,), row.replicated)
        _add_failures(failed, (label,), row.failed)
        _add_tokens(tokens, label, row)
        if row.estimated:
            prefixes.add_metric(("estimated", label), row.estimated)
            prefixes.add_metric(("expected_cached", label), row.expected_cached)
        if row.stated:
            prefixes.add_metric(("stated", label), row.stated)
            prefixes.add_metric(("stated_cached", label), row.stated_cached)
    yield from (failed, spills, replications, tokens, prefixes)


def _adapter_histograms(rows: Sequence[AdapterTraffic]) -> Iterator[Metric]:
    for name, kind in (
        ("lora_router_adapter_time_to_first_byte_seconds", "first_byte"),
        ("lora_router_adapter_request_duration_seconds", "duration"),
        ("lora_router_adapter_hold_seconds", "hold"),
    ):
        histograms = CATALOG.histograms(name)
        for row in rows:
            histograms.add((row.label,), getattr(row, kind))
        yield histograms


def _adapter_counters(rows: Sequence[AdapterTraffic]) -> Iterator[Metric]:
    for some in _parts(rows):
        requests = CATALOG.counter("lora_router_adapter_requests_total")
        for row in some:
            for found in FOUND:
                requests.add_metric((row.label, found), row.found[found])
        yield requests
    for some in _parts(rows):
        failed = CATALOG.counter("lora_router_adapter_failed_requests_total")
        for row in some:
            _add_failures(failed, (row.label,), row.failed)
        yield failed
    for some in _parts(rows):
        tokens = CATALOG.counter("lora_router_adapter_tokens_total")
        for row in some:
            _add_tokens(tokens, row.label, row)
        yield tokens


def _pod_families(rows: Sequence[tuple[str, PodTraffic]]) -> Iterator[Metric]:
    first_byte = CATALOG.histograms("lora_router_pod_time_to_first_byte_seconds")
    duration = CATALOG.histograms("lora_router_pod_request_duration_seconds")
    for name, row in rows:
        label = (as_label(name),)
        first_byte.add(label, row.first_byte)
        duration.add(label, row.duration)
    yield from (first_byte, duration)
    for some in _parts(rows):
        failed = CATALOG.counter("lora_router_pod_failed_requests_total")
        for name, row in some:
            for base_model, failures in row.failed.items():
                _add_failures(failed, (as_label(base_model), as_label(name)), failures)
        yield failed


def _add_failures(failed: CounterMetricFamily, labels: tuple[str, ...], failures: Failures) -> None:
    failed.add_metric((*labels, "status"), failures.status)
    failed.add_metric((*labels, "unanswered"), failures.unanswered)


def _add_tokens(
    tokens: CounterMetricFamily, label: str, row: ModelTraffic | AdapterTraffic
) -> None:
    if row.prompt_tokens or row.completion_tokens:
        tokens.add_metric(("prompt", label), row.prompt_tokens)
        tokens.add_metric(("completion", label), row.completion_tokens)


def _parts(rows: Sequence[_Each]) -> Iterator[Sequence[_Each]]:
    """Yield the rows in parts, at least one."""
    remaining = iter(rows)
    yield list(islice(remaining, _PART))
    while part := list(islice(remaining, _PART)):
        yield part
