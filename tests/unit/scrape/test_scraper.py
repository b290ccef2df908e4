"""Periodic scrapes over real sockets."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from pydantic import SecretStr

from lora_router import supervision
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.scrape import models_plan, page_reader, pod_pages
from lora_router.scrape import scraper as scraper_module
from lora_router.scrape.pod_access import AccessOptions, PodAccess
from lora_router.scrape.schedule import ScrapeSchedule
from lora_router.scrape.scraper import Scraper
from lora_router.supervision import Supervisor

PAGE = "vllm:num_requests_running 3\n"
MODELS = '{"data": [{"id": "base"}, {"id": "a", "parent": "base"}]}'


TWO_ADAPTERS = (
    '{"data": [{"id": "base"}, {"id": "a", "parent": "base"}, {"id": "b", "parent": "base"}]}'
)


@dataclass
class Server:
    """A pod's pages, with the failures and delays that a test needs."""

    page: str | bytes = PAGE
    models: str = MODELS
    status: int = 200
    models_status: int = 200
    delay: float = 0.0
    metrics_reads: int = 0
    models_reads: int = 0
    at_once: int = 0
    most_at_once: int = 0
    connections: set[object] = field(default_factory=set)
    headers: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        self.metrics_reads += 1
        assert request.transport is not None
        self.connections.add(request.transport.get_extra_info("peername"))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.at_once -= 1
        body = self.page if isinstance(self.page, bytes) else self.page.encode()
        return web.Response(body=body, status=self.status, headers=self.headers)

    async def _models(self, request: web.Request) -> web.Response:
        self.models_reads += 1
        self.authorization = request.headers.get("authorization")
        return web.Response(text=self.models, status=self.models_status)


@dataclass
class Counts:
    """A ``ScrapeObserver`` that records."""

    good: list[tuple[str, str]] = field(default_factory=list)
    bad: list[tuple[str, str, str]] = field(default_factory=list)

    def scraped(self, kind: str, pod: str, seconds: float) -> None:
        assert seconds >= 0
        self.good.append((kind, pod))

    def failed(self, kind: str, pod: str, cause: str) -> None:
        self.bad.append((kind, pod, cause))


def pod(name: str, address: str, **changes: object) -> Pod:
    values: dict[str, object] = {
        "name": name,
        "address": address,
        "metrics_url": f"http://{address}/metrics",
        "models_url": f"http://{address}/v1/models",
    }
    return Pod(**(values | changes))  # type: ignore[arg-type]


class Bench:
    """A scraper, its fleet and its counts."""

    def __init__(self, *pods: Pod, **options: object) -> None:
        self.fleet = Fleet()
        self.fleet.replace(pods)
        self.counts = Counts()
        values: dict[str, object] = {"interval": 0.02, "models_interval": 0.02, "timeout": 1.0}
        self.scraper = Scraper(self.fleet, self.counts, **(values | options))  # type: ignore[arg-type]

    async def __aenter__(self) -> "Bench":
        await self.scraper.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.scraper.stop()

    def state(self, name: str) -> PodState:
        state = self.fleet.get(name)
        assert state is not None
        return state


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


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
        await asyncio.wait_for(bench.scraper.first_round(60), 0.1)


@pytest.mark.parametrize(
    ("server", "cause"),
    [
        (Server(status=503), "status"),
        (Server(status=302, headers={"location": "http://127.0.0.1:1/"}), "status"),
        (Server(page="<html>"), "malformed"),
        (Server(page="vllm:num_requests_running x\n"), "malformed"),
        (Server(page=b"x" * 3000), "too-large"),
        (Server(delay=30.0), "timeout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_failed_scrape_keeps_the_last_good_snapshot_and_is_counted_by_cause(
    server: Server, cause: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(page_reader, "MAX_PAGE_BYTES", 2000)
    healthy = Server()
    async with server.run() as address, Bench(pod("a", address), timeout=0.05) as bench:
        snapshot = PodMetrics(scraped_at=0.0, running=1.0)
        bench.state("a").metrics = snapshot

        await until(lambda: bench.counts.bad.count(("metrics", "a", cause)) >= 3)

        assert bench.state("a").metrics is snapshot
        assert bench.state("a").scrape_failures >= 3
        warnings = [r.message for r in caplog.records if "metrics of pod a failed" in r.message]
        assert len(warnings) == 1
        assert "the last snapshot stays in use" in warnings[0]
    assert healthy.metrics_reads == 0


@pytest.mark.parametrize(
    ("metrics_at_the_endpoint", "unreachable"),
    [(True, True), (False, False)],
)
async def test_a_pod_is_unreachable_if_its_own_endpoint_is(
    metrics_at_the_endpoint: bool, unreachable: bool
) -> None:
    address = "127.0.0.1:1" if metrics_at_the_endpoint else "127.0.0.1:2"
    one = pod("a", address, metrics_url="http://127.0.0.1:1/metrics", models=("m",))
    async with Bench(one) as bench:
        await until(lambda: bench.state("a").scrape_failures >= 2)

        assert (bench.state("a").unreachable_scrapes >= 2) is unreachable


async def test_long_pages_are_read_a_few_at_a_time_and_delay_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_reader, "LONG_PAGE_BYTES", 1000)
    monkeypatch.setattr(pod_pages, "LONG_PAGES_AT_ONCE", 1)
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


async def test_a_network_that_fails_does_not_flood_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pods = [pod(f"p{number}", "127.0.0.1:1", models=("m",)) for number in range(100)]
    async with Bench(*pods) as bench:
        await until(lambda: len(bench.counts.bad) >= 200)

    lines = [line for line in caplog.messages if "failed, the last snapshot" in line]
    assert 1 <= len(lines) <= 40


async def test_a_fault_in_what_uses_a_scrape_does_not_end_the_pods_scrapes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server, counted = Server(), list[str]()
    supervisor = Supervisor(counted.append)
    async with server.run() as address, Bench(pod("a", address), supervisor=supervisor) as bench:
        await until(lambda: bench.state("a").metrics is not None)

        def broken(*_what: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr(bench.fleet, "put_metrics", broken)
            await until(lambda: bench.counts.bad.count(("metrics", "a", "internal")) >= 5)
        good = len(bench.counts.good)
        await until(lambda: len(bench.counts.good) >= good + 5)

    assert counted.count("scrape-metrics") >= 5
    assert caplog.text.count("task scrape-metrics of a failed, continues: ZeroDivisionError") == 1


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
        await until(lambda: server.metrics_reads >= 5)
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


async def test_a_list_is_read_soon_when_it_is_wanted() -> None:
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
        scraper.subscribe_looked(lambda: ended.append(bool(fleet.serving("new").pods)))
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


async def test_a_listener_that_fails_does_not_end_the_reads() -> None:
    server, counted = Server(), list[str]()
    supervisor = Supervisor(counted.append)

    def broken() -> None:
        raise ZeroDivisionError

    async with (
        server.run() as address,
        Bench(pod("a", address), supervisor=supervisor, models_interval=3600.0) as bench,
    ):
        bench.scraper.subscribe_looked(broken)
        await until(bench.scraper.look_again)
        await until(lambda: counted == ["looked-listener"])


async def test_what_is_asked_before_the_start_and_after_the_stop_is_ignored() -> None:
    bench = Bench(pod("a", "127.0.0.1:1"))
    for _ in range(2):
        bench.scraper.read_models_soon(bench.state("a"))
        assert not bench.scraper.look_again()
        await bench.scraper.start()
        await bench.scraper.stop()


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


async def test_a_slow_pod_delays_no_other() -> None:
    slow, fast = Server(delay=30.0), Server()
    async with slow.run() as one, fast.run() as two:
        async with Bench(pod("slow", one), pod("fast", two), timeout=20.0):
            await until(lambda: fast.metrics_reads >= 5)

        assert slow.metrics_reads == 1


@pytest.mark.slow
async def test_however_many_pods_hang_the_others_are_read_in_time() -> None:
    hung, healthy = Server(delay=30.0), Server()
    async with hung.run() as one, healthy.run() as two:
        pods = [pod(f"hung-{n}", one, models=("m",)) for n in range(12)]
        pods.append(pod("healthy", two, models=("m",)))
        async with Bench(*pods, timeout=0.1, concurrency=4) as bench:
            await until(lambda: len(bench.counts.bad) >= 12)
            reads, failures = healthy.metrics_reads, len(bench.counts.bad)
            await until(lambda: len(bench.counts.bad) >= failures + 12)

            # If it had to wait for the others, it would be read once.
            assert healthy.metrics_reads - reads > 5


async def test_no_more_are_read_at_once_than_allowed() -> None:
    server = Server(delay=0.01)
    async with server.run() as address:
        pods = [pod(f"p{n}", address.replace("127.0.0.1", f"127.0.0.{n}")) for n in range(1, 9)]
        listed = [
            pod(one.name, one.address, metrics_url=f"http://{address}/metrics", models=("m",))
            for one in pods
        ]
        async with Bench(*listed, concurrency=2):
            await until(lambda: server.metrics_reads >= 30)

    assert server.most_at_once == 2


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
