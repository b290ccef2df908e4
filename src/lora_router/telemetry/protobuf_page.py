"""Writes metrics in the protobuf format of Prometheus, the one that has native histograms.

``prometheus_client`` writes text only. Prometheus asks for protobuf first if it stores native
histograms.
"""

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric

from lora_router.telemetry.histograms import Histograms, Row
from lora_router.telemetry.pb import exposition_pb2 as pb
from lora_router.telemetry.times import SCHEMA, Times

CONTENT_TYPE = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
)
_TYPES = {"counter": pb.COUNTER, "gauge": pb.GAUGE}


def family_bytes(metric: Metric) -> bytes:
    """Return a family, or a part of one, without its length.

    The parts of a family, one after the other, are the family.
    """
    family = pb.MetricFamily(name=metric.name, help=metric.documentation)
    if isinstance(metric, Histograms):
        family.type = pb.HISTOGRAM
        family.metric.extend(_histogram(row, metric) for row in metric.rows)
        return family.SerializeToString()
    family.type = _TYPES.get(metric.type, pb.UNTYPED)
    if metric.type == "counter":
        family.name += "_total"
    for sample in metric.samples:
        one = family.metric.add()
        _label(one, sample.labels)
        value = float(sample.value)
        if metric.type == "counter":
            one.counter.value = value
        elif metric.type == "gauge":
            one.gauge.value = value
        else:
            one.untyped.value = value
    return family.SerializeToString()


def delimited(family: bytes) -> bytes:
    """Return a family with its length before it."""
    return _varint(len(family)) + family


def _histogram(row: Row, metric: Histograms) -> pb.Metric:
    labels, times = row
    one = pb.Metric()
    _label(one, labels)
    histogram = one.histogram
    edges = metric.edges
    cumulative = edges.cumulative(times.counts)
    histogram.sample_count = cumulative[-1]
    histogram.sample_sum = times.seconds
    for place, (bound, count) in enumerate(zip(edges.classic_bounds, cumulative, strict=True)):
        bucket = histogram.bucket.add(cumulative_count=count, upper_bound=bound)
        exemplar = times.exemplars.get(place)
        if exemplar is not None:
            shown = bucket.exemplar
            shown.label.add(name="trace_id", value=exemplar.trace_id)
            shown.value = exemplar.seconds
            shown.timestamp.FromNanoseconds(int(exemplar.at * 1e9))
    histogram.schema = SCHEMA
    histogram.zero_threshold = edges.zero_threshold
    histogram.zero_count = times.counts[0]
    histogram.positive_span.extend(pb.BucketSpan(offset=o, length=n) for o, n in _spans(times))
    histogram.positive_delta.extend(_deltas(times))
    return one


def _spans(times: Times) -> Iterator[tuple[int, int]]:
    """Yield the runs of native buckets that have counts."""
    begin = end = None
    before = 0
    for index, _ in times.edges.native(times.counts):
        if end is not None and begin is not None and index != end:
            yield begin - before, end - begin
            before, begin = end, None
        if begin is None:
            begin = index
        end = index + 1
    if begin is not None and end is not None:
        yield begin - before, end - begin


def _deltas(times: Times) -> Iterator[int]:
    before = 0
    for _, count in times.edges.native(times.counts):
        yield count - before
        before = count


def _label(metric: pb.Metric, labels: Mapping[str, str]) -> None:
    for name, value in sorted(labels.items()):
        metric.label.add(name=name, value=value)


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
