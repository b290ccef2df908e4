"""Pods whose engine cannot be read, and pods without a list of models."""

import logging

import pytest

from lora_router.readiness import RouterReadiness
from lora_router.supervision import Supervisor
from lora_router.telemetry.metrics import Telemetry
from tests.unit.scrape.scraper_bench import PAGE, Bench, Server, pod
from tests.waiting import until

OTHER_PAGE = "nv_inference_request_success 5\n"


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (Server(status=404), "returned status 404"),
        (Server(status=405), "returned status 405"),
        (Server(page='{"numActiveRequests": 1}'), "not the page of a known model server"),
        (Server(page=OTHER_PAGE), "not the page of a known model server"),
    ],
    ids=["404", "405", "json", "another engine"],
)
async def test_a_pod_that_cannot_be_read_is_used_by_load_alone_and_said_once(
    server: Server, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with server.run() as address, Bench(pod("a", address)) as bench:
        await until(lambda: server.metrics_reads >= 5)
        state = bench.state("a")

        assert state.metrics is not None
        assert not state.metrics.shows_load
        assert bench.fleet.serving("a").pods
        assert bench.counts.bad == []
        assert state.scrape_failures == 0
    lines = [line for line in caplog.messages if "does not show its load" in line]
    assert len(lines) == 1
    assert reason in lines[0]


async def test_a_labelled_engine_that_shows_nothing_yet_is_said_and_shows_its_load_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    server = Server(page="tgi_request_count 0\n")
    async with server.run() as address, Bench(pod("a", address, engine="tgi")) as bench:
        await until(lambda: bench.state("a").metrics is not None)
        server.page = "tgi_batch_current_size 4\n"
        await until(lambda: getattr(bench.state("a").metrics, "running", None) == 4)

    assert [line for line in caplog.messages if "load" in line] == [
        "pod a does not show its load; only what routers sent there counts: its page has no such "
        "metrics yet",
        "pod a shows its load now",
    ]


async def test_a_pod_that_has_shown_its_load_keeps_its_last_snapshot() -> None:
    server = Server()
    async with server.run() as address, Bench(pod("a", address)) as bench:
        await until(lambda: bench.state("a").metrics is not None)
        server.page = "<html>"
        await until(lambda: ("metrics", "a", "malformed") in bench.counts.bad)

        metrics = bench.state("a").metrics
        assert metrics is not None
        assert metrics.running == 3


@pytest.mark.parametrize("status", [401, 403, 500, 503])
async def test_a_page_that_is_refused_or_broken_is_a_failure(status: int) -> None:
    server = Server(status=status)
    async with server.run() as address, Bench(pod("a", address)) as bench:
        await until(lambda: ("metrics", "a", "status") in bench.counts.bad)

        assert bench.state("a").metrics is None


async def test_pods_without_load_are_counted_and_named() -> None:
    other, known = Server(page=OTHER_PAGE), Server()
    async with other.run() as one, known.run() as two:
        pods = [pod("a", one), pod("b", two), pod("c", one, engine="triton")]
        async with Bench(*pods) as bench:
            await until(lambda: all(state.metrics is not None for state in bench.fleet))
            readiness = RouterReadiness(bench.fleet, Supervisor(), metrics_max_age=60.0)
            details = readiness.read().details
            page = Telemetry(bench.fleet).page().decode()

    assert details["pods_without_load"] == 2
    assert details["without_load"] == {"a": "unknown", "c": "triton"}
    assert 'lora_router_pods_without_load{engine="unknown"} 1.0' in page
    assert 'lora_router_pods_without_load{engine="triton"} 1.0' in page


async def test_a_pod_without_a_list_serves_the_model_of_its_label_which_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(page=PAGE, models_status=404)
    async with server.run() as address, Bench(pod("a", address, base_model="llama")) as bench:
        await until(lambda: server.models_reads >= 4)

        assert bench.fleet.serving("llama").pods
        assert bench.counts.bad == []
        server.models_status = 200
        await until(lambda: bool(bench.fleet.serving("base").pods))
        assert not bench.fleet.serving("llama").pods

    lines = [line for line in caplog.messages if "does not list its models" in line]
    assert len(lines) == 1
    assert lines[0].startswith("pod a does not list its models; the base model of its label is")


async def test_a_pod_without_a_list_and_without_a_label_is_a_failure_that_says_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(page=PAGE, models_status=404)
    async with server.run() as address, Bench(pod("a", address)) as bench:
        await until(lambda: ("models", "a", "status") in bench.counts.bad)

    assert "or its base model by the label model.aibrix.ai/name" in caplog.text
