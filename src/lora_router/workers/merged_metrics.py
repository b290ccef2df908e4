"""One page of metrics from those of the parent and of all workers.

Counters and histograms are added up. What a gauge of several processes means together differs, so
each has its rule in ``GAUGES``.

A sum falls when a part of it disappears, and Prometheus would take that for a restart and count
the whole sum again. Two things prevent it:

- ``Ended`` keeps the counters of workers that have ended.
- Series of pods and adapters come and go in each worker by themselves. ``Rising`` lets their sums
  rise only, for as long as one process has them.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from operator import add, ge, sub
from typing import NamedTuple, TypeAlias

from prometheus_client.core import Metric

from lora_router.telemetry.exposition import SLICE, resting
from lora_router.telemetry.histograms import Histograms, Row
from lora_router.telemetry.times import Edges, Exemplar, Times
from lora_router.workers import messages
from lora_router.workers.messages import Family, HistogramRow

Labels: TypeAlias = tuple[tuple[str, str], ...]
Merge: TypeAlias = Callable[[float, float], float]

MAX_SERIES = 20_000
"""Series of workers that have ended that are kept."""
_MAX_EDGES = 64
"""Kinds of buckets that are known at the same time."""


def _sum(one: float, other: float) -> float:
    return one + other


GAUGES: Mapping[str, Merge] = {
    # What each process has by itself.
    "lora_router_open_streams": _sum,
    "lora_router_held_requests": _sum,
    "lora_router_closed_slots": _sum,
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
    "lora_router_prefix_chunks": max,
    "lora_router_pods": max,
    "lora_router_pods_by_health": max,
    "lora_router_pods_without_load": max,
    "lora_router_pods_age_seconds": max,
    "lora_router_unread_namespaces": max,
    "lora_router_snapshot_age_seconds": max,
    "lora_router_peers": max,
    "lora_router_remote_peers": max,
    # One worker may have all connections of the gateway.
    "lora_router_buffered_ratio": max,
    "lora_router_scrape_failures_in_a_row": max,
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
    "lora_router_ready_to_lead": min,
    "lora_router_tls_certificate_expiry_timestamp_seconds": min,
    # Each worker has a connection of its own.
    "lora_router_redis_connected": min,
}
"""Others: the largest."""

_ADDED_UP = ("counter", "histogram", "summary")
_COME_AND_GO = frozenset(("pod", "adapter"))
"""Labels of series that come and go in each process."""
_ROWS = 16
"""Histograms that are merged in one go."""


def family_of(metric: Metric) -> Family:
    """Return a metric in the form in which workers send it."""
    if isinstance(metric, Histograms):
        return Family(
            metric.name,
            metric.documentation,
            metric.type,
            (),
            metric.edges.classic_bounds[:-1],
            tuple(_sent(row) for row in metric.rows),
        )
    return Family(
        metric.name,
        metric.documentation,
        metric.type,
        tuple(
            # Some collectors have true and false.
            (sample.name, tuple(sample.labels.items()), float(sample.value))
            for sample in metric.samples
        ),
    )


def families_of(metrics: Iterable[Metric]) -> tuple[Family, ...]:
    """Return metrics in the form in which workers send them."""
    return tuple(map(family_of, metrics))


async def send_metrics(
    number: int, metrics: Iterable[Metric], send: Callable[[bytes], None]
) -> None:
    """Send the answer to a question for the metrics, in slices."""
    waiting: list[Family] = []
    size = 0
    async for part in resting(metrics):
        family = family_of(part)
        waiting.append(family)
        size += len(family.samples) + SLICE * bool(family.rows)
        if size >= SLICE:
            send(messages.encode(messages.Metrics(number, tuple(waiting), is_last=False)))
            waiting, size = [], 0
    send(messages.encode(messages.Metrics(number, tuple(waiting))))


def merged(pages: Iterable[Iterable[Family]], rising: "Rising | None" = None) -> Iterator[Metric]:
    """Yield metrics with the series of all pages, those of one name one after the other."""
    found: dict[str, list[Family]] = {}
    for page in pages:
        for family in page:
            found.setdefault(family.name, []).append(family)
    generation = 0 if rising is None else rising.begin()
    for families in found.values():
        yield from _merged_samples(families, rising, generation)
        yield from _merged_rows(families, rising, generation)
    if rising is not None:
        rising.end(generation)


def _merged_samples(
    families: Sequence[Family], rising: "Rising | None", generation: int
) -> Iterator[Metric]:
    first = families[0]
    if not any(family.samples for family in families) and any(family.rows for family in families):
        return
    metric = Metric(first.name, first.documentation, first.type)
    series: dict[tuple[str, Labels], float] = {}
    merge = _sum if first.type in _ADDED_UP else GAUGES.get(first.name, max)
    for family in families:
        for name, labels, value in family.samples:
            key = (name, labels)
            before = series.get(key)
            series[key] = value if before is None else merge(before, value)
    for (name, labels), value in series.items():
        if rising is not None and merge is _sum and _comes_and_goes(first, labels):
            [value] = rising.risen((name, labels), [value], generation)  # noqa: PLW2901
        metric.add_sample(name, dict(labels), value)
    yield metric


def _merged_rows(
    families: Sequence[Family], rising: "Rising | None", generation: int
) -> Iterator[Metric]:
    first = families[0]
    bounds = next((family.bounds for family in families if family.rows), ())
    same: dict[Labels, list[HistogramRow]] = {}
    for family in families:
        if family.bounds == bounds:
            for row in family.rows:
                same.setdefault(row.labels, []).append(row)
    remaining = iter(same.items())
    while some := list(islice(remaining, _ROWS)):
        edges = _edges(bounds)
        metric = Histograms(first.name, first.documentation, (), edges)
        for labels, rows in some:
            times = _added(rows, edges)
            if rising is not None and _comes_and_goes(first, labels):
                *counts, times.seconds = rising.risen(
                    (first.name, labels), [*times.counts, times.seconds], generation
                )
                times.counts = [int(count) for count in counts]
            metric.rows.append((dict(labels), times))
        yield metric


class Ended:
    """The counters of workers that have ended, without which the sums would fall."""

    def __init__(self) -> None:
        self._families: tuple[Family, ...] = ()

    @property
    def families(self) -> tuple[Family, ...]:
        """The counters."""
        return self._families

    def add(self, page: Sequence[Family]) -> None:
        """Add the last page of a worker that has ended.

        Without series of pods and adapters, which would never leave: ``Rising`` has their sums.
        """
        counters = [
            stays for family in page if family.type in _ADDED_UP for stays in _that_stay(family)
        ]
        room = MAX_SERIES
        kept = []
        for family in families_of(merged((self._families, counters))):
            if len(family.samples) + len(family.rows) <= room:
                room -= len(family.samples) + len(family.rows)
                kept.append(family)
        self._families = tuple(kept)


class _Risen(NamedTuple):
    """The last values of a series, and what was added to them so that they did not fall."""

    values: Sequence[float]
    added: Sequence[float]
    generation: int


class Rising:
    """Lets the sums of series that come and go rise only.

    If a part of a sum disappears, what it had is added from then on. What the other processes
    counted since the last page is lost once. A series that no process has any more is forgotten.
    """

    def __init__(self) -> None:
        self._series: dict[tuple[str, Labels], _Risen] = {}
        self._generation = 0

    def __len__(self) -> int:
        return len(self._series)

    def begin(self) -> int:
        """Begin a page; return its number."""
        self._generation += 1
        return self._generation

    def risen(
        self, key: tuple[str, Labels], values: Sequence[float], generation: int
    ) -> Sequence[float]:
        """Return values of a series that are not below the last ones."""
        last = self._series.get(key)
        added: Sequence[float] = () if last is None else last.added
        if added:
            values = list(map(add, values, added))
        if last is not None and not all(map(ge, values, last.values)):
            more = [max(0, fallen) for fallen in map(sub, last.values, values)]
            values = list(map(add, values, more))
            added = list(map(add, added, more)) if added else more
        self._series[key] = _Risen(values, added, generation)
        return values

    def end(self, generation: int) -> None:
        """End a page: forget the series that it did not have."""
        gone = [key for key, risen in self._series.items() if risen.generation < generation]
        for key in gone:
            del self._series[key]


def _comes_and_goes(family: Family, labels: Labels) -> bool:
    return family.type in _ADDED_UP and any(name in _COME_AND_GO for name, _ in labels)


def _that_stay(family: Family) -> Iterator[Family]:
    """Yield a family without the series that come and go, if there are others."""
    samples = tuple(each for each in family.samples if not _comes_and_goes(family, each[1]))
    rows = tuple(row for row in family.rows if not _comes_and_goes(family, row.labels))
    if samples or rows:
        yield Family(family.name, family.documentation, family.type, samples, family.bounds, rows)


def _sent(row: Row) -> HistogramRow:
    labels, times = row
    return HistogramRow(
        tuple(labels.items()),
        array("Q", times.counts).tobytes(),
        times.seconds,
        tuple((place, *exemplar) for place, exemplar in times.exemplars.items()),
    )


def _added(rows: Iterable[HistogramRow], edges: Edges) -> Times:
    """Return the sum of some histograms, each exemplar the latest of theirs."""
    times = Times(edges)
    for row in rows:
        counts = array("Q")
        counts.frombytes(row.counts)
        times.counts = list(map(add, times.counts, counts))
        times.seconds += row.seconds
        for place, trace_id, seconds, at in row.exemplars:
            exemplar = Exemplar(trace_id, seconds, at)
            known = times.exemplars.get(place)
            if known is None or known.at < exemplar.at:
                times.exemplars[place] = exemplar
    return times


@lru_cache(maxsize=_MAX_EDGES)
def _edges(bounds: tuple[float, ...]) -> Edges:
    """Return the buckets with these bounds."""
    return Edges(bounds)
