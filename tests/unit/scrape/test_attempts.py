"""What one read of a page leads to, and how many run at once."""

import pytest

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.scrape import page_reader, places
from lora_router.supervision import Supervisor
from tests.unit.scrape.scraper_bench import Bench, Server, pod
from tests.waiting import until


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
    # A slow machine may take long to read a page; that would be another cause.
    timeout = 0.05 if cause == "timeout" else 30.0
    async with server.run() as address, Bench(pod("a", address), timeout=timeout) as bench:
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


async def test_a_slow_pod_delays_no_other() -> None:
    slow, fast = Server(delay=30.0), Server()
    async with slow.run() as one, fast.run() as two:
        async with Bench(pod("slow", one), pod("fast", two), timeout=20.0):
            await until(lambda: fast.metrics_reads >= 5)

        assert slow.metrics_reads == 1


async def test_pods_that_become_silent_at_once_delay_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "SLOW_SECONDS", 0.01)
    silent, healthy = Server(), Server()
    async with silent.run() as one, healthy.run() as two:
        pods = [pod(f"silent-{n}", one, models=("m",)) for n in range(12)]
        pods.append(pod("healthy", two, models=("m",)))
        async with Bench(*pods, timeout=20.0, concurrency=2) as bench:
            await until(lambda: all(state.metrics is not None for state in bench.fleet))
            silent.delay = 30.0
            await until(lambda: silent.at_once == 12)
            reads = healthy.metrics_reads
            await until(lambda: healthy.metrics_reads >= reads + 5)

            # None of them has failed yet.
            assert not bench.counts.bad


@pytest.mark.slow
async def test_however_many_pods_hang_the_others_are_read_in_time() -> None:
    hung, healthy = Server(delay=30.0), Server()
    async with hung.run() as one, healthy.run() as two:
        pods = [pod(f"hung-{n}", one, models=("m",)) for n in range(12)]
        pods.append(pod("healthy", two, models=("m",)))
        async with Bench(*pods, timeout=0.3, concurrency=4) as bench:
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
