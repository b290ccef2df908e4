"""Pages of metrics in three formats, made in slices."""

import asyncio
from collections.abc import Iterable

import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from lora_router.telemetry.exposition import SLICE, Format, PageWriter, chosen, resting, slices
from lora_router.telemetry.histograms import Histograms
from lora_router.telemetry.metrics import Telemetry
from lora_router.telemetry.pb import exposition_pb2 as pb
from lora_router.telemetry.times import REQUEST_EDGES, Exemplar, Times
from tests.fleet import make_fleet

TRACE = "0af7651916cd43dd8448eb211c80319c"
# What Prometheus 2.42 sends, and 3.4.
OF_PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
WITH_NATIVE_HISTOGRAMS = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
OF_PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,"
    "/;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("text/html, */*;q=0.8", Format.TEXT),
        (OF_PROMETHEUS, Format.OPENMETRICS),
        (OF_PROMETHEUS_3, Format.OPENMETRICS),
        (WITH_NATIVE_HISTOGRAMS, Format.PROTOBUF),
        ("application/openmetrics-text; version=2.0.0, text/plain;q=0.5", Format.TEXT),
        ("application/vnd.google.protobuf;proto=something.Else;encoding=delimited", Format.TEXT),
        ("application/openmetrics-text;q=nonsense", Format.TEXT),
        (";;,=,", Format.TEXT),
    ],
)
def test_a_scraper_gets_the_format_that_it_prefers(accept: str, form: Format) -> None:
    assert chosen(accept) is form


def histograms() -> Histograms:
    """One histogram of three durations, one of which is an exemplar."""
    times = Times()
    for seconds in (0.001, 0.3, 0.3, 40.0):
        times.observe(seconds)
    times.exemplify(Exemplar(TRACE, 0.3, 1000.5))
    made = Histograms("h_seconds", "H.", ("pod",))
    made.add(("pod-0",), times)
    return made


def page_of(form: Format, metrics: Iterable[Metric]) -> bytes:
    writer = PageWriter(form)
    for part in slices(metrics):
        writer.write(part)
    return writer.page()


def families(page: bytes) -> list[pb.MetricFamily]:
    """Parse the protobuf format."""
    found = []
    while page:
        length = shift = size = 0
        while True:
            byte = page[size]
            length |= (byte & 0x7F) << shift
            size, shift = size + 1, shift + 7
            if byte < 0x80:
                break
        found.append(pb.MetricFamily.FromString(page[size : size + length]))
        page = page[size + length :]
    return found


def test_text_has_classic_buckets() -> None:
    [family] = text_string_to_metric_families(page_of(Format.TEXT, [histograms()]).decode())

    values = {(each.name, each.labels.get("le")): each.value for each in family.samples}
    assert family.type == "histogram"
    assert values["h_seconds_bucket", "0.25"] == 1
    assert values["h_seconds_bucket", "0.5"] == 3
    assert values["h_seconds_bucket", "+Inf"] == values["h_seconds_count", None] == 4
    assert values["h_seconds_sum", None] == pytest.approx(40.601)


def test_openmetrics_has_exemplars_too() -> None:
    page = page_of(Format.OPENMETRICS, [histograms()]).decode()

    [family] = openmetrics_families(page)  # type: ignore[no-untyped-call]
    [sample] = [each for each in family.samples if each.exemplar is not None]
    assert sample.labels == {"pod": "pod-0", "le": "0.5"}
    assert sample.exemplar is not None
    assert sample.exemplar.labels == {"trace_id": TRACE}
    assert sample.exemplar.value == 0.3
    assert sample.exemplar.timestamp is not None
    assert float(sample.exemplar.timestamp) == 1000.5


def test_protobuf_has_native_buckets_too() -> None:
    [family] = families(page_of(Format.PROTOBUF, [histograms()]))

    assert (family.name, family.type) == ("h_seconds", pb.HISTOGRAM)
    [metric] = family.metric
    assert [(pair.name, pair.value) for pair in metric.label] == [("pod", "pod-0")]
    histogram = metric.histogram
    assert histogram.sample_count == 4
    assert histogram.sample_sum == pytest.approx(40.601)
    assert [bucket.cumulative_count for bucket in histogram.bucket][-1] == 4
    assert (histogram.schema, histogram.zero_threshold, histogram.zero_count) == (3, 2**-7, 1)
    # 0.3 is in the bucket that ends at 2^(-13/8), 40 in the one that ends at 2^(43/8).
    assert [(span.offset, span.length) for span in histogram.positive_span] == [(-13, 1), (55, 1)]
    assert list(histogram.positive_delta) == [2, -1]
    [bucket] = [each for each in histogram.bucket if each.HasField("exemplar")]
    assert bucket.exemplar.label[0].value == TRACE
    assert bucket.exemplar.timestamp.ToNanoseconds() == 1_000_500_000_000


def test_buckets_that_follow_each_other_are_one_span() -> None:
    times = Times()
    for index in (8, 9, 10, 20):
        times.observe(2.0 ** (index / 8))
    made = Histograms("h_seconds", "H.")
    made.add((), times)

    [family] = families(page_of(Format.PROTOBUF, [made]))

    spans = family.metric[0].histogram.positive_span
    assert [(span.offset, span.length) for span in spans] == [(8, 3), (9, 1)]
    assert list(family.metric[0].histogram.positive_delta) == [1, 0, 0, 0]


def test_an_empty_histogram_is_a_native_one_too() -> None:
    made = Histograms("h_seconds", "H.")
    made.add((), Times())

    [family] = families(page_of(Format.PROTOBUF, [made]))

    assert family.metric[0].histogram.zero_threshold == REQUEST_EDGES.zero_threshold
    assert not family.metric[0].histogram.positive_span


def counter(series: int) -> CounterMetricFamily:
    made = CounterMetricFamily("c", "C.", labels=["n"])
    for number in range(series):
        made.add_metric([str(number)], number, created=1.0)
    return made


@pytest.mark.parametrize("form", Format)
def test_a_page_made_in_slices_has_each_family_once(form: Format) -> None:
    gauge = GaugeMetricFamily("g", "G.", value=7)
    page = page_of(form, [counter(3 * SLICE), gauge, histograms()])

    if form is Format.PROTOBUF:
        found = {family.name: len(family.metric) for family in families(page)}
        assert found == {"c_total": 3 * SLICE, "g": 1, "h_seconds": 1}
        assert len(families(page)) == 3
        return
    parse = text_string_to_metric_families if form is Format.TEXT else openmetrics_families
    assert {each.name: len(each.samples) for each in parse(page.decode())} == {
        "c": 3 * SLICE,
        "g": 1,
        "h_seconds": 17,
    }
    assert page.count(b"# TYPE") == 3


@pytest.mark.slow
def test_the_loop_serves_requests_between_slices() -> None:
    async def other_work_during_a_page() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        parts = [part async for part in resting(slices([counter(20 * SLICE)]))]
        task.cancel()
        assert len(parts) == 20
        return turns

    assert asyncio.run(other_work_during_a_page()) >= 20


class Broken(Collector):
    """A collector that fails after its first metric."""

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("before", "B.", value=1)
        raise ZeroDivisionError


@pytest.mark.parametrize("accept", ["", OF_PROMETHEUS, WITH_NATIVE_HISTOGRAMS])
async def test_a_collector_that_fails_leaves_the_rest_of_the_page(accept: str) -> None:
    telemetry = Telemetry(make_fleet(1))
    telemetry.registry.register(Broken())
    telemetry.add_gauge("no_number", "N.", lambda: None)  # type: ignore[arg-type,return-value]
    telemetry.add_gauge("after", "A.", lambda: 1.0)

    page = await telemetry.served(accept)

    assert page.content_type == chosen(accept).value
    assert b"before" in page.body
    assert b"after" in page.body
    assert b"no_number" not in page.body


async def test_further_scrapers_wait_for_their_turn() -> None:
    telemetry = Telemetry(make_fleet(1))

    pages = await asyncio.gather(*(telemetry.served("") for _ in range(10)))

    assert {page.body for page in pages} == {pages[0].body}
