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
from lora_router.telemetry.metrics import page_of
from lora_router.workers import messages
from lora_router.workers.merged_metrics import GAUGES, MAX_SERIES, Ended, families_of, merged
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


def values(pages: list[tuple[Family, ...]]) -> dict[str, float]:
    page = page_of(merged(pages)).decode()
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


def test_the_page_of_one_process_is_as_it_would_be_without_workers() -> None:
    registry = CollectorRegistry()
    Counter("a", "with \\ and \n", ["b"], registry=registry).labels('"\n').inc()
    Histogram("c", "h", registry=registry).observe(1)

    assert page_of(merged([families_of(registry.collect())])) == generate_latest(registry)


def test_a_counter_began_when_the_first_of_its_processes_did() -> None:
    one, other = Process(1, 0, 0.0).families, Process(1, 0, 0.0).families
    name = 'lora_router_requests_created{outcome="routed"}'
    assert values([one, other])[name] == values([one])[name]


def test_counters_of_a_worker_that_ended_stay_and_its_gauges_do_not() -> None:
    ended = Ended()
    ended.add(Process(3, 5, 0.25).families)
    ended.add(Process(2, 5, 0.25).families)

    found = values([ended.families, Process(1, 1, 0.0).families])

    assert found['lora_router_requests_total{outcome="routed"}'] == 6
    assert found["lora_router_open_streams"] == 1


def test_what_is_kept_of_workers_that_ended_is_bounded() -> None:
    ended = Ended()
    series = tuple(("a_total", (("pod", str(number)),), 1.0) for number in range(MAX_SERIES))
    ended.add((Family("a", "A", "counter", series), Family("b", "B", "counter", series[:1])))

    assert [family.name for family in ended.families] == ["a"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "pods.yaml").write_text("pods: []")
    return Settings(endpoints=tmp_path / "pods.yaml", admin_port=0, grpc_port=0, workers=2)


async def test_every_gauge_has_a_rule(settings: Settings) -> None:
    """A gauge that is the largest of all processes says so, too."""
    from lora_router.app import App

    parent, app = Parent(settings), App(settings.model_copy(update={"workers": 1}))
    pages = [app.telemetry.page().decode(), (await parent.page()).decode()]
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
