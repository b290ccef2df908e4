"""Periodic scrapes over real sockets."""

import asyncio
import logging
import time
from collections import Counter

import pytest
from pydantic import SecretStr

from lora_router import supervision
from lora_router.scrape import long_pages, models_plan, page_reader, places, pod_pages
from lora_router.scrape import scraper as scraper_module
from lora_router.scrape.pod_access import AccessOptions, PodAccess
from lora_router.scrape.schedule import ScrapeSchedule
from lora_router.supervision import Supervisor
from tests.unit.scrape.scraper_bench import PAGE, TWO_ADAPTERS, Bench, Server, pod
from tests.waiting import until


async def test_a_pods_pages_are_read_again_and_again_over_one_connection() -> None:
    server = Server()
    async with server.run() as address, Bench(pod("a", address)) as bench:
        await until(lambda: server.metrics_reads >= 5 and server.models_reads >= 3)

        metrics = bench.state("a").metrics
        assert metrics is not None
        assert metrics.running == 3
        assert time.monotonic() - metrics.scraped_at < 5
        assert bench.fleet.serving("a").is_adapter
        assert {("metrics", "a"), ("models", "a")} <= set(bench.counts.good)
        # One connection may be shared with /v1/models at the very beginning, never more.
        assert len(server.connections) <= 2


async def test_the_first_round_is_over_when_every_page_was_tried_once() -> None:
    good, bad = Server(), Server(status=500, models_status=500)
    async with good.run() as one, bad.run() as two:
        pods = [pod("a", one), pod("b", two), pod("c", "127.0.0.1:1", models=("base",))]
        async with Bench(*pods, interval=60.0, models_interval=60.0) as bench:
            await asyncio.wait_for(bench.scraper.first_round(60), 10)

            assert good.metrics_reads == good.models_reads == 1
            assert bad.metrics_reads == bad.models_reads == 1
            assert ("metrics", "c", "connect") in bench.counts.bad


async def test_the_first_round_of_no_pods_is_over_at_once() -> None:
    async with Bench() as bench:
        await asyncio.wait_for(bench.scraper.first_round(60), 30)


@pytest.mark.slow
async def test_long_pages_are_read_a_few_at_a_time_and_delay_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_reader, "LONG_PAGE_BYTES", 1000)
    monkeypatch.setattr(long_pages, "LONG_PAGES_AT_ONCE", 1)
    monkeypatch.setattr(places, "SLOW_SECONDS", 60.0)  # A slow machine would free the place.
    long, short = Server(page=PAGE + "x 1\n" * 1000, delay=0.01), Server()
    async with long.run() as one, short.run() as two:
        pods = [pod(f"long-{n}", one, models=("m",)) for n in range(8)]
        async with Bench(*pods, pod("short", two, models=("m",)), concurrency=4) as bench:
            await until(lambda: all(state.metrics is not None for state in bench.fleet))
            long.most_at_once = 0
            reads = long.metrics_reads, short.metrics_reads
            await until(lambda: long.metrics_reads >= reads[0] + 20)

            assert long.most_at_once == 1
            assert short.metrics_reads - reads[1] > 5


@pytest.mark.slow
async def test_few_reads_are_handled_in_one_turn_of_the_loop_though_many_arrive_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(delay=0.05)
    turn, handled = 0, list[int]()

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async with server.run() as address:
        pods = [pod(f"p{n}", address, models=("m",)) for n in range(60)]
        async with Bench(*pods, interval=60.0) as bench:
            counting = asyncio.create_task(count_turns())
            bench.fleet.changes.scraped.subscribe(lambda _: handled.append(turn))
            await until(lambda: len(handled) == 60)
            counting.cancel()

    # The counter counts somewhere within a turn, so that its numbers cover parts of two turns.
    assert max(Counter(handled).values()) <= 2 * pod_pages.READS_IN_A_TURN


@pytest.mark.slow
async def test_a_network_that_fails_does_not_flood_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pods = [pod(f"p{number}", "127.0.0.1:1", models=("m",)) for number in range(100)]
    async with Bench(*pods) as bench:
        await until(lambda: len(bench.counts.bad) >= 200)

    lines = [line for line in caplog.messages if "failed, the last snapshot" in line]
    assert 1 <= len(lines) <= 40


async def test_a_scrape_task_that_ends_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_BACKOFF_SECONDS", 0.01)
    server, counted = Server(), list[str]()
    supervisor = Supervisor(counted.append)
    exits = [SystemExit(1)]

    def wait(schedule: ScrapeSchedule) -> float:
        if exits:
            raise exits.pop()
        return 0.01

    monkeypatch.setattr(ScrapeSchedule, "wait", wait)
    async with (
        server.run() as address,
        Bench(pod("a", address, models=("m",)), supervisor=supervisor),
    ):
        await until(lambda: server.metrics_reads >= 5)

    assert len(counted) == 1


async def test_a_pod_that_returns_is_noticed_soon_though_scrapes_are_rare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scraper_module, "LONGEST_RETRY_SECONDS", 0.02)
    server = Server(status=500)
    async with server.run() as address, Bench(pod("a", address), interval=3600.0) as bench:
        await until(lambda: bench.state("a").scrape_failures >= 3)
        server.status = 200
        await until(lambda: bench.state("a").metrics is not None)


async def test_a_pod_that_keeps_failing_is_read_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraper_module, "LONGEST_RETRY_SECONDS", 3600.0)
    server = Server(status=500)
    async with server.run() as address, Bench(pod("a", address)) as bench:
        await until(lambda: bench.state("a").scrape_failures >= 5)
        await asyncio.sleep(0.1)

        assert bench.state("a").scrape_failures == 5


async def test_recovery_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = Server(status=500)
    async with server.run() as address, Bench(pod("a", address)) as bench:
        await until(lambda: len(bench.counts.bad) >= 2)
        server.status = 200
        await until(lambda: bench.counts.good.count(("metrics", "a")) >= 3)

    recovered = [r.message for r in caplog.records if "recovered" in r.message]
    assert recovered == ["scrape of metrics of pod a recovered"]


async def test_models_that_cannot_be_read_stay_as_they_were_and_are_asked_again_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scraper_module, "FIRST_RETRY_SECONDS", 0.01)
    server = Server()
    async with server.run() as address, Bench(pod("a", address)) as bench:
        await until(lambda: bench.state("a").models_known)
        server.models_status = 500
        await until(lambda: ("models", "a", "status") in bench.counts.bad)
        server.models_status, server.models = 200, "[]"
        await until(lambda: ("models", "a", "malformed") in bench.counts.bad)

        assert bench.fleet.serving("a").pods

        server.models = '{"data": [{"id": "base"}, {"id": "b", "parent": "base"}]}'
        await until(lambda: bool(bench.fleet.serving("b").pods))
        assert not bench.fleet.serving("a").pods


async def test_an_empty_list_does_not_replace_the_last_one_and_is_counted_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scraper_module, "FIRST_RETRY_SECONDS", 0.01)
    server = Server(models=TWO_ADAPTERS)
    async with server.run() as address, Bench(pod("a", address)) as bench:
        await until(lambda: bench.state("a").models_known)
        server.models = '{"data": []}'
        await until(lambda: bench.counts.bad.count(("models", "a", "doubted")) >= 3)
        assert bench.fleet.serving("a").pods
        assert caplog.text.count("the list is empty; the last one had 3 models") == 1

        server.models = '{"data": [{"id": "base"}, {"id": "c", "parent": "base"}]}'
        await until(lambda: bool(bench.fleet.serving("c").pods))
        assert bench.fleet.serving("a").pods, "the loss is doubted, the gain is not"


async def test_a_list_is_read_soon_when_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_plan, "RECENT_SECONDS", 0.1)
    server = Server(models=TWO_ADAPTERS)
    async with server.run() as address, Bench(pod("a", address), models_interval=3600.0) as bench:
        await until(lambda: bench.state("a").models_known)
        server.models = '{"data": [{"id": "base"}]}'
        for _ in range(100):
            bench.scraper.read_models_soon(bench.state("a"))

        # A pod that answers 404 for its models has lost them: the list is believed.
        await until(lambda: not bench.fleet.serving("a").pods)
        assert server.models_reads == 2


async def test_the_router_looks_again_once_for_all_who_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models_plan, "RECENT_SECONDS", 0.0)
    servers = [Server(), Server()]
    ended: list[bool] = []
    async with (
        servers[0].run() as one,
        servers[1].run() as two,
        Bench(pod("a", one), pod("b", two), models_interval=3600.0) as bench,
    ):
        scraper, fleet = bench.scraper, bench.fleet
        scraper.followers.subscribe_looked(lambda: ended.append(bool(fleet.serving("new").pods)))
        await until(lambda: all(state.models_known for state in fleet))
        servers[1].models = '{"data": [{"id": "base"}, {"id": "new", "parent": "base"}]}'

        assert all(scraper.look_again() for _ in range(100))
        await until(lambda: bool(ended))

        assert ended == [True]
        assert [server.models_reads for server in servers] == [2, 2]


async def test_a_pod_that_cannot_be_reached_and_a_listed_pod_hold_up_no_round() -> None:
    pods = [pod("gone", "127.0.0.1:1"), pod("listed", "127.0.0.1:1", models=("m",))]
    async with Bench(*pods) as bench:
        await until(lambda: bench.state("gone").unreachable_scrapes > 0)

        assert not bench.scraper.look_again()


async def test_what_is_asked_before_the_start_and_after_the_stop_is_ignored() -> None:
    bench = Bench(pod("a", "127.0.0.1:1"))
    for _ in range(2):
        bench.scraper.read_models_soon(bench.state("a"))
        assert not bench.scraper.look_again()
        await bench.scraper.start()
        await bench.scraper.stop()


@pytest.mark.slow
async def test_a_list_that_is_due_is_not_read_if_discovery_names_the_models_in_the_meantime() -> (
    None
):
    server = Server()
    async with server.run() as address, Bench(pod("a", address), models_interval=3600.0) as bench:
        await until(lambda: bench.state("a").models_known)
        bench.scraper.read_models_soon(bench.state("a"))
        bench.fleet.upsert(pod("a", address, models=("x",)))
        bench.scraper.read_models_soon(bench.state("a"))

        scrapes = server.metrics_reads
        await until(lambda: server.metrics_reads >= scrapes + 60)
        assert server.models_reads == 1


async def test_models_named_by_discovery_are_not_asked_for() -> None:
    server = Server()
    async with server.run() as address, Bench(pod("a", address, models=("x",))) as bench:
        await until(lambda: server.metrics_reads >= 3)

        assert server.models_reads == 0
        bench.fleet.replace([pod("a", address)])
        await until(lambda: server.models_reads >= 1)


async def test_the_api_key_goes_with_models() -> None:
    server = Server()
    access = PodAccess(AccessOptions(api_key=SecretStr("k")))
    async with server.run() as address, Bench(pod("a", address), access=access):
        await until(lambda: server.models_reads >= 1)

    assert server.authorization == "Bearer k"


async def test_pods_that_join_and_leave_are_followed() -> None:
    one, two = Server(), Server()
    async with one.run() as first, two.run() as second, Bench(pod("a", first)) as bench:
        await until(lambda: one.metrics_reads >= 2)

        bench.fleet.replace([pod("b", second)])
        await until(lambda: two.metrics_reads >= 2 and bool(bench.fleet.serving("a").pods))
        reads = one.metrics_reads
        await until(lambda: two.metrics_reads >= 6)

        assert one.metrics_reads <= reads + 1


async def test_a_pod_with_a_new_address_is_read_there() -> None:
    one, two = Server(), Server(page="vllm:num_requests_running 9\n")
    async with one.run() as first, two.run() as second, Bench(pod("a", first)) as bench:
        await until(lambda: one.metrics_reads >= 1)

        bench.fleet.upsert(pod("a", second))
        await until(lambda: bench.state("a").metrics is not None)

        metrics = bench.state("a").metrics
        assert metrics is not None
        assert metrics.running == 9


async def test_after_stopping_nothing_runs_and_nothing_starts() -> None:
    server = Server(delay=0.02)
    async with server.run() as address:
        async with Bench(pod("a", address)) as bench:
            await until(lambda: server.metrics_reads >= 1)
        reads = server.metrics_reads
        bench.fleet.upsert(pod("b", address))
        await asyncio.sleep(0.1)

        assert server.metrics_reads == reads
        assert asyncio.all_tasks() - {asyncio.current_task()} <= _server_tasks()


def _server_tasks() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if "RequestHandler" in repr(task.get_coro())}
