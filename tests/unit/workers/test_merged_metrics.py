"""One page of metrics from those of several processes."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from lora_router.config.settings import Settings
from lora_router.telemetry.exposition import Format, PageWriter, slices
from lora_router.telemetry.histograms import Histograms
from lora_router.telemetry.times import Exemplar, Times
from lora_router.workers import messages
from lora_router.workers.merged_metrics import (
    GAUGES,
    MAX_SERIES,
    Ended,
    Rising,
    families_of,
    merged,
    send_metrics,
)
from lora_router.workers.messages import Family
from lora_router.workers.parent import Parent


class Process:
    """A process with one metric of each kind."""

    def __init__(self, requests: int, open_streams: int, lag: float) -> None:
        registry = CollectorRegistry()
        Counter("lora_router_requests", "R", ["outcome"], registry=registry).labels("routed").inc(
            requests
        )
        Gauge("lora_router_open_streams", "O", registry=registry).set(open_streams)
        Gauge("lora_router_loop_lag_seconds", "L", registry=registry).set(lag)
        times = Histogram("lora_router_scrape_seconds", "S", buckets=(0.1, 1), registry=registry)
        for _ in range(requests):
            times.observe(0.05)
        self.families = families_of(registry.collect())


def page_of(metrics: Iterable[Metric]) -> bytes:
    writer = PageWriter(Format.TEXT)
    for part in metrics:
        writer.write(part)
    return writer.page()


def values(pages: list[tuple[Family, ...]], rising: Rising | None = None) -> dict[str, float]:
    page = page_of(merged(pages, rising)).decode()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if not line.startswith("#")
    }


def test_counters_and_histograms_are_added_up_and_gauges_by_what_they_mean() -> None:
    found = values([Process(3, 5, 0.25).families, Process(4, 6, 0.5).families])

    assert found['lora_router_requests_total{outcome="routed"}'] == 7
    assert found['lora_router_scrape_seconds_bucket{le="0.1"}'] == 7
    assert found["lora_router_scrape_seconds_count"] == 7
    assert found["lora_router_open_streams"] == 11
    assert found["lora_router_loop_lag_seconds"] == 0.5


def test_a_worker_whose_memory_for_bodies_is_full_shows_beside_others_that_have_room() -> None:
    pages = []
    for used in (95, 5):
        registry = CollectorRegistry()
        for name, value in (("bytes", used), ("ratio", used / 100)):
            Gauge(f"lora_router_buffered_{name}", "B", registry=registry).set(value)
        pages.append(families_of(registry.collect()))

    found = values(pages)

    assert found["lora_router_buffered_bytes"] == 100
    assert found["lora_router_buffered_ratio"] == 0.95


def test_the_page_of_one_process_is_as_it_would_be_without_workers() -> None:
    registry = CollectorRegistry()
    Counter("a", "with \\ and \n", ["b"], registry=registry).labels('"\n').inc()
    Histogram("c", "h", registry=registry).observe(1)

    page = page_of(merged([families_of(slices(registry.collect()))]))

    created = re.compile(rb"# .*_created .*\n|.*_created.*\n")
    assert page == created.sub(b"", generate_latest(registry))


def test_counters_of_a_worker_that_ended_stay_and_its_gauges_do_not() -> None:
    ended = Ended()
    ended.add(Process(3, 5, 0.25).families)
    ended.add(Process(2, 5, 0.25).families)

    found = values([ended.families, Process(1, 1, 0.0).families])

    assert found['lora_router_requests_total{outcome="routed"}'] == 6
    assert found["lora_router_open_streams"] == 1


@pytest.mark.slow
def test_what_is_kept_of_workers_that_ended_is_bounded() -> None:
    ended = Ended()
    series = tuple(("a_total", (("reason", str(number)),), 1.0) for number in range(MAX_SERIES))
    ended.add((Family("a", "A", "counter", series), Family("b", "B", "counter", series[:1])))

    assert [family.name for family in ended.families] == ["a"]


def histograms_of(name: str, *durations: float, trace: str = "", at: float = 0.0) -> Histograms:
    """Histograms with one series."""
    times = Times()
    for seconds in durations:
        times.observe(seconds)
        if trace:
            times.exemplify(Exemplar(trace, seconds, at))
    histograms = Histograms("lora_router_adapter_hold_seconds", "H", ("adapter",))
    histograms.add((name,), times)
    return histograms


def test_histograms_are_added_up_with_native_buckets_and_the_latest_exemplars() -> None:
    one = families_of([histograms_of("a", 0.5, 2.0, trace="older", at=1.0)])
    other = families_of([histograms_of("a", 0.5, trace="newer", at=2.0)])

    [metric] = merged([one, other])

    assert isinstance(metric, Histograms)
    [(labels, times)] = metric.rows
    assert labels == {"adapter": "a"}
    assert (times.count, times.seconds) == (3, 3.0)
    expected = Times()
    for seconds in (0.5, 0.5, 2.0):
        expected.observe(seconds)
    assert times.counts == expected.counts
    assert [each.trace_id for each in times.exemplars.values()] == ["newer", "older"]


def adapter_page(adapter: str, requests: int) -> tuple[Family, ...]:
    series = (("lora_router_a_total", (("adapter", adapter),), float(requests)),)
    return (Family("lora_router_a", "A", "counter", series),)


def test_a_sum_does_not_fall_when_one_process_drops_the_series_of_an_adapter() -> None:
    rising, key = Rising(), 'lora_router_a_total{adapter="x"}'
    assert values([adapter_page("x", 100), adapter_page("x", 50)], rising)[key] == 150

    assert values([(), adapter_page("x", 51)], rising)[key] == 150
    assert values([(), adapter_page("x", 53)], rising)[key] == 152
    # The other process has the series again, from zero.
    assert values([adapter_page("x", 4), adapter_page("x", 53)], rising)[key] == 156


def test_a_histogram_does_not_fall_either() -> None:
    rising = Rising()
    both = [families_of([histograms_of("x", 0.5, 3.0)]), families_of([histograms_of("x", 0.5)])]
    before = values(both, rising)

    after = values([families_of([histograms_of("x", 0.5)])], rising)

    assert after == before
    assert after['lora_router_adapter_hold_seconds_count{adapter="x"}'] == 3


def test_a_series_that_no_process_has_is_forgotten() -> None:
    rising = Rising()
    values([adapter_page("x", 100)], rising)

    assert values([adapter_page("y", 1)], rising) == {'lora_router_a_total{adapter="y"}': 1}
    assert len(rising) == 1
    # A new series of that name is a new one.
    assert values([adapter_page("x", 2)], rising)['lora_router_a_total{adapter="x"}'] == 2


def test_series_of_adapters_end_with_the_worker() -> None:
    ended = Ended()
    ended.add((*adapter_page("x", 1), *families_of([histograms_of("x", 0.5)])))

    assert ended.families == ()


@pytest.mark.slow
async def test_a_worker_sends_many_series_in_several_messages() -> None:
    registry = CollectorRegistry()
    requests = Counter("lora_router_a", "A", ["pod"], registry=registry)
    for number in range(1000):
        requests.labels(str(number)).inc(number)
    sent: list[bytes] = []

    await send_metrics(7, slices(registry.collect()), sent.append)

    answers = [messages.from_worker(each) for each in sent]
    assert len(answers) > 3
    assert [getattr(each, "is_last", None) for each in answers] == [False] * (len(sent) - 1) + [
        True
    ]
    families = [family for each in answers for family in getattr(each, "families", ())]
    assert values([tuple(families)])['lora_router_a_total{pod="999"}'] == 999


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "pods.yaml").write_text("pods: []")
    return Settings(endpoints=tmp_path / "pods.yaml", admin_port=0, grpc_port=0, workers=2)


async def test_every_gauge_has_a_rule(settings: Settings) -> None:
    """A gauge that is the largest of all processes says so, too."""
    from lora_router.app import App

    parent, app = Parent(settings), App(settings.model_copy(update={"workers": 1}))
    pages = [app.telemetry.page().decode(), (await parent.page()).body.decode()]
    gauges = {
        family.name
        for page in pages
        for family in text_string_to_metric_families(page)
        if family.type == "gauge" and not family.name.endswith("_created")
    }
    await parent.stop()
    await app.stop()

    only_of_the_parent = {"lora_router_ready_workers"}
    assert gauges - only_of_the_parent <= GAUGES.keys()


@pytest.mark.slow
def test_every_rule_is_of_a_gauge_that_exists() -> None:
    source = Path(__file__).parents[3] / "src/lora_router"
    text = "".join(
        file.read_text() for file in source.rglob("*.py") if file.parent.name != "workers"
    )
    for name in GAUGES:
        assert re.search(rf'"{name}"', text), name


class YesAndNo(Collector):
    """A collector whose values are true and false."""

    def collect(self) -> Iterable[Metric]:
        gauge = GaugeMetricFamily("lora_router_redis_connected", "R", labels=["server"])
        gauge.add_metric(["here"], True)
        gauge.add_metric(["there"], False)
        return [gauge]


def test_true_and_false_reach_the_parent_as_numbers() -> None:
    registry = CollectorRegistry()
    registry.register(YesAndNo())
    sent = messages.encode(messages.Metrics(1, families_of(registry.collect())))
    answer = messages.from_worker(sent)
    assert isinstance(answer, messages.Metrics)
    assert [value for _, _, value in answer.families[0].samples] == [1.0, 0.0]
