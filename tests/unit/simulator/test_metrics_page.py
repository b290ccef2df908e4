"""The simulated pages, compared with pages recorded from vLLM 0.32.0."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from lora_router.scrape.exposition import read_page
from lora_router.simulator.engine import Engine, EngineRequest
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.metrics_page import MetricsPage, models_document

DATA = Path(__file__).parents[2] / "data" / "vllm-0.32.0"
FRESH = (DATA / "01_fresh_before_any_request.prom").read_text()
BUSY = (DATA / "06_three_lora_one_waits_t1s.prom").read_text()

FAMILIES_THAT_MATTER = [
    "process_start_time_seconds",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:num_requests_waiting_by_reason",
    "vllm:kv_cache_usage_perc",
    "vllm:lora_requests_info",
    "vllm:cache_config_info",
    "vllm:prompt_tokens",
    "vllm:generation_tokens",
    "vllm:request_success",
    "vllm:request_prompt_tokens",
    "vllm:request_generation_tokens",
    "vllm:iteration_tokens_total",
    "vllm:time_to_first_token_seconds",
    "vllm:e2e_request_latency_seconds",
]


class Pod:
    """An engine, its page, and a wall clock that counts steps."""

    def __init__(self, max_loras: int = 2) -> None:
        self.unix_time = 1_795_000_000.0
        self.engine = Engine(EngineOptions(max_loras=max_loras))
        self.page = MetricsPage(self.engine, "base", lambda: self.unix_time)

    def submit(self, adapter: str | None, tokens: int = 10) -> EngineRequest:
        request = EngineRequest(adapter, prompt_tokens=3, output_tokens=tokens, arrived=0.0)
        self.engine.submit(request)
        return request

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.engine.begin_step(self.unix_time)
            self.unix_time += 1.0
            self.page.note_step(self.engine.end_step(), self.unix_time)

    def text(self) -> str:
        return self.page.render().decode()

    def lora_samples(self) -> dict[tuple[str, str], float]:
        """Each series of ``lora_requests_info``: both labels, and the value."""
        samples = families(self.text())["vllm:lora_requests_info"].samples
        assert {sample.labels["max_lora"] for sample in samples} <= {"2"}
        return {
            (
                sample.labels["running_lora_adapters"],
                sample.labels["waiting_lora_adapters"],
            ): sample.value
            for sample in samples
        }

    def value(self, name: str, **labels: str) -> float:
        for family in text_string_to_metric_families(self.text()):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        raise AssertionError(f"no {name} {labels}")


@cache
def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def label_names(family: Metric) -> set[tuple[str, ...]]:
    return {tuple(sorted(sample.labels)) for sample in family.samples}


def heads(text: str, name: str) -> Iterator[str]:
    """The HELP and TYPE lines of a family."""
    pattern = rf"# (?:HELP|TYPE) {re.escape(name)}(?:_total|_created)? .*"
    return (match.group() for match in re.finditer(pattern, text))


@pytest.fixture
def pod() -> Pod:
    return Pod()


@cache
def page_of_an_idle_pod() -> str:
    return Pod().text()


@cache
def page_of_a_busy_pod() -> str:
    pod = Pod()
    pod.submit("a1")
    pod.step()
    return pod.text()


# As recorded


@pytest.mark.parametrize("name", FAMILIES_THAT_MATTER)
def test_a_family_that_matters_is_headed_as_recorded(name: str) -> None:
    recorded = list(heads(BUSY, name))
    assert recorded
    assert list(heads(page_of_an_idle_pod(), name)) == recorded


@pytest.mark.parametrize(
    "name", [name for name in FAMILIES_THAT_MATTER if name != "vllm:cache_config_info"]
)
def test_a_family_that_matters_has_the_recorded_labels(name: str) -> None:
    recorded, ours = families(BUSY)[name], families(page_of_a_busy_pod())[name]
    assert label_names(ours) == label_names(recorded)


def test_buckets_and_reasons_are_those_recorded(pod: Pod) -> None:
    recorded, ours = families(BUSY), families(pod.text())
    for name in FAMILIES_THAT_MATTER:
        for label in ("le", "reason", "finished_reason"):
            expected = [s.labels[label] for s in recorded[name].samples if label in s.labels]
            assert [s.labels[label] for s in ours[name].samples if label in s.labels] == expected


def test_cache_config_info_has_some_of_the_recorded_labels(pod: Pod) -> None:
    (recorded,) = families(BUSY)["vllm:cache_config_info"].samples
    (ours,) = families(pod.text())["vllm:cache_config_info"].samples
    assert ours.labels.keys() <= recorded.labels.keys()
    assert {"block_size", "num_gpu_blocks", "engine"} <= ours.labels.keys()
    assert ours.value == 1


def test_the_page_is_about_as_long_as_a_real_one_and_has_no_other_families(pod: Pod) -> None:
    text = pod.text()
    assert len(text) > 0.6 * len(FRESH)
    assert families(text).keys() <= families(BUSY).keys()


def test_the_router_reads_the_page_as_it_reads_a_recorded_one(pod: Pod) -> None:
    for adapter in (None, "a1", "a2", "a3"):
        pod.submit(adapter)
    pod.step(2)
    body = pod.page.render()
    page = read_page(body, engine=None, scraped_at=0.0, wall_now=pod.unix_time)
    assert (page.running, page.waiting, page.deferred) == (3, 1, 1)
    assert page.lora is not None
    assert page.lora.max_lora == 2
    assert page.lora.active == {"a1", "a2"}


# Quirks


def test_before_the_first_request_the_gauge_has_a_head_and_no_sample(pod: Pod) -> None:
    assert len(list(heads(pod.text(), "vllm:lora_requests_info"))) == 2
    assert pod.lora_samples() == {}


def test_a_request_for_the_base_model_makes_the_empty_series(pod: Pod) -> None:
    pod.submit(None)
    pod.step()
    assert list(pod.lora_samples()) == [("", "")]


def test_an_adapter_shows_with_its_first_token_and_in_both_labels(pod: Pod) -> None:
    pod.submit("a1")
    pod.engine.begin_step(0.0)
    assert pod.lora_samples() == {}
    assert pod.value("vllm:num_requests_running") == 1
    pod.page.note_step(pod.engine.end_step(), 1.0)
    assert list(pod.lora_samples()) == [("a1", "a1")]


def test_an_adapter_that_waits_is_not_on_the_page(pod: Pod) -> None:
    for adapter in ("a1", "a2", "a3"):
        pod.submit(adapter)
    pod.step(3)
    assert "a3" not in pod.text()
    assert pod.value("vllm:num_requests_waiting") == 1
    assert pod.value("vllm:num_requests_waiting_by_reason", reason="deferred") == 1
    assert pod.value("vllm:num_requests_waiting_by_reason", reason="capacity") == 0


def test_every_other_wait_counts_as_a_wait_for_capacity(pod: Pod) -> None:
    pod.submit("a1")
    assert pod.value("vllm:num_requests_waiting_by_reason", reason="capacity") == 1
    assert pod.value("vllm:num_requests_waiting_by_reason", reason="deferred") == 0


def test_series_stay_for_ever_and_only_the_newest_moves(pod: Pod) -> None:
    pod.submit("a1", tokens=4)
    pod.step()
    pod.submit("a2", tokens=10)
    pod.step(3)
    before = pod.lora_samples()
    pod.step(2)
    after = pod.lora_samples()
    assert list(after) == [("a1", "a1"), ("a1,a2", "a1,a2"), ("a2", "a2")]
    assert {series for series in after if after[series] != before[series]} == {("a2", "a2")}
    assert max(after, key=lambda series: after[series]) == ("a2", "a2")


def test_the_order_of_names_makes_another_series(pod: Pod) -> None:
    pod.submit("a1", tokens=3)
    pod.submit("a2", tokens=20)
    pod.step(4)
    pod.submit("a1", tokens=3)
    pod.step(2)
    assert {("a1,a2", "a1,a2"), ("a2,a1", "a2,a1")} <= pod.lora_samples().keys()


def test_an_adapter_disappears_when_its_last_request_ends(pod: Pod) -> None:
    pod.submit("a1", tokens=2)
    pod.step(2)
    samples = pod.lora_samples()
    assert samples["", ""] > samples["a1", "a1"]
    assert "a1" in pod.engine.slots


def test_an_adapter_disappears_when_its_last_request_is_aborted(pod: Pod) -> None:
    request = pod.submit("a1")
    pod.step(2)
    pod.engine.abort(request)
    pod.page.note_abort()
    pod.step()
    samples = pod.lora_samples()
    assert samples["", ""] > samples["a1", "a1"]
    assert pod.value("vllm:request_success_total", finished_reason="abort") == 1


def test_the_value_is_the_time_of_the_last_step(pod: Pod) -> None:
    pod.submit(None, tokens=2)
    pod.step(2)
    assert pod.lora_samples() == {("", ""): pod.unix_time}
    pod.unix_time += 100
    assert pod.lora_samples() == {("", ""): pod.unix_time - 100}


def test_tokens_and_times_are_counted(pod: Pod) -> None:
    pod.submit("a1", tokens=3)
    pod.submit(None, tokens=2)
    pod.step(3)
    assert pod.value("vllm:prompt_tokens_total") == 6
    assert pod.value("vllm:generation_tokens_total") == 5
    assert pod.value("vllm:request_success_total", finished_reason="length") == 2
    assert pod.value("vllm:time_to_first_token_seconds_count") == 2
    assert pod.value("vllm:e2e_request_latency_seconds_count") == 2
    assert pod.value("vllm:request_generation_tokens_sum") == 5


def test_every_engine_series_names_the_base_model(pod: Pod) -> None:
    pod.submit("a1")
    pod.step()
    for family in text_string_to_metric_families(pod.text()):
        for sample in family.samples:
            if "model_name" in sample.labels:
                assert sample.labels["model_name"] == "base"
                assert sample.labels["engine"] == "0"


def test_the_list_of_models_has_the_recorded_format() -> None:
    def shape(document: object) -> object:
        if isinstance(document, dict):
            return {key: shape(value) for key, value in document.items()}
        if isinstance(document, list):
            return [shape(item) for item in document]
        return type(document)

    recorded = json.loads((DATA / "v1_models.json").read_text())
    roots = {model["id"]: model["root"] for model in recorded["data"]}
    base = roots.pop("base")
    ours = models_document("base", roots, created=1_795_427_319)
    assert shape(ours) == shape(recorded)
    assert {model["root"] for model in ours["data"][1:]} == set(roots.values()) - {base}  # type: ignore[index]
    assert [model["parent"] for model in recorded["data"]] == [
        model["parent"]
        for model in ours["data"]  # type: ignore[attr-defined]
    ]
