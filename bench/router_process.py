"""The router as a process: time to readiness, memory of open streams, and cost of scraping."""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import envoys
from bench.ext_proc_client import ExtProcClient
from bench.own_metrics import OwnMetrics, quantile
from bench.plan import Plan
from bench.process_costs import cpu_seconds, memory_bytes
from bench.processes import SERVE, Processes, transports
from bench.wire import NEVER_SCRAPED, settings
from bench.workload import BASE, adapter, adapters, ext_proc_messages
from lora_router.demo.stack import free_ports

_PODS = 8
_ADAPTERS = 100
_AT_ONCE = 50
"""Streams opened at the same time."""
_FIRST_SHARE = 5
"""A fifth as many streams are opened before memory is read, so that memory left over from startup
is in use."""
_PAUSE_SECONDS = 0.002
"""Pause between two timed requests."""
_SCRAPES = "lora_router_scrape_seconds_count"
_DECISIONS = "lora_router_decision_seconds"
_OPEN_STREAMS = "lora_router_open_streams"


@dataclass(frozen=True, slots=True)
class Started:
    """Time from exec to the first 200 of ``/readyz``."""

    transport: str
    pods: int
    starts: int
    seconds: float
    """The median."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Memory of streams whose requests are in flight."""

    transport: str
    streams: int
    bytes_each: float


@dataclass(frozen=True, slots=True)
class Scraped:
    """A router that scrapes all its pods each second, or never."""

    transport: str
    pods: int
    scrapes_per_second: float
    cores: float
    """CPU seconds per second, without requests."""
    answer_p50_us: float
    answer_p99_us: float
    """Time from the body's message to the answer that names the pod, over the network."""
    decision_p99_us: float
    """For the same requests, from the router's own histogram, interpolated within a bucket."""


async def measure_starts(plan: Plan, directory: Path, note: Callable[[str], None]) -> list[Started]:
    """Start the router with eight pods several times."""
    rows = []
    port, pods_admin = free_ports(2)
    addresses = [envoys.pod_address(number, port) for number in range(_PODS)]
    pods_file = directory / "pods.yaml"
    # The router reads metrics and models from the pods, as in a real fleet.
    pods_file.write_text(envoys.pods_file(addresses, []))
    async with Processes(directory) as fleet:
        await fleet.start_envoy("pods", envoys.pods(_PODS, port, pods_admin))
        await fleet.until_listening("127.1.0.1", port)
        for transport in transports():
            note(f"start to ready, {transport}")
            times = []
            for _ in range(plan.starts):
                grpc, admin = free_ports(2)
                async with Processes(directory) as processes:
                    began = time.perf_counter()
                    await processes.start_router(
                        "router", SERVE, settings(transport, pods_file, grpc, admin)
                    )
                    times.append(await processes.until_ready(admin) - began)
            rows.append(Started(transport, _PODS, plan.starts, statistics.median(times)))
    return rows


async def measure_streams(
    plan: Plan, directory: Path, note: Callable[[str], None]
) -> list[Streams]:
    """Open streams and keep them open after the decision, as during a generation."""
    rows = []
    for transport in transports():
        note(f"{plan.streams:,} open streams, {transport}")
        async with _Router.started(transport, _PODS, directory) as router:
            client = await ExtProcClient.connected(router.grpc)
            first = plan.streams // _FIRST_SHARE
            await _open(client, first)
            await router.until_open(first)
            before = memory_bytes(router.pid)
            await _open(client, plan.streams)
            await router.until_open(first + plan.streams)
            after = memory_bytes(router.pid)
            client.close()
            await router.until_open(0)
        rows.append(Streams(transport, plan.streams, (after - before) / plan.streams))
    return rows


async def measure_scraping(
    plan: Plan, directory: Path, note: Callable[[str], None]
) -> list[Scraped]:
    """Measure a router with the first transport, without scraping and with it."""
    transport = transports()[0]
    rows = []
    for interval in (NEVER_SCRAPED, {"pod_metric_refresh_interval_ms": 1000}):
        often = "each second" if interval is not NEVER_SCRAPED else "never"
        note(f"{plan.scraped_pods:,} pods, scraped {often}")
        async with _Router.started(
            transport, plan.scraped_pods, directory, changes=interval, pages=envoys.PAGES
        ) as router:
            await asyncio.sleep(plan.settle_seconds)
            before, cpu, began = await router.metrics(), cpu_seconds(router.pid), time.monotonic()
            await asyncio.sleep(plan.scrape_seconds)
            seconds, cpu = time.monotonic() - began, cpu_seconds(router.pid) - cpu
            # The first request of an adapter costs more and must not be compared.
            await _questions(router.grpc, range(_ADAPTERS))
            between, counted = await router.metrics(), time.monotonic() - began
            rng = random.Random(1)
            asked = [rng.randrange(_ADAPTERS) for _ in range(plan.questions)]
            times = await _questions(router.grpc, asked)
            after = await router.metrics()
        scrapes = between.total(_SCRAPES, kind="metrics") - before.total(_SCRAPES, kind="metrics")
        rows.append(
            Scraped(
                transport=transport,
                pods=plan.scraped_pods,
                scrapes_per_second=scrapes / counted,
                cores=cpu / seconds,
                answer_p50_us=times[len(times) // 2] * 1e6,
                answer_p99_us=times[len(times) * 99 // 100] * 1e6,
                decision_p99_us=quantile(
                    between.buckets(_DECISIONS), after.buckets(_DECISIONS), 0.99
                )
                * 1e6,
            )
        )
    return rows


async def _open(client: ExtProcClient, count: int) -> None:
    async def one(number: int) -> None:
        for message in ext_proc_messages(1_000, adapter(number % _ADAPTERS)):
            await client.ask(streams[number], message)

    streams: dict[int, int] = {}
    for start in range(0, count, _AT_ONCE):
        batch = range(start, min(start + _AT_ONCE, count))
        for number in batch:
            streams[number] = await client.open()
        async with asyncio.timeout(30):
            await asyncio.gather(*(one(number) for number in batch))


async def _questions(port: int, asked: Iterable[int]) -> list[float]:
    """Request one adapter after the other; return the seconds until the answers, sorted."""
    client = await ExtProcClient.connected(port)
    times = []
    for adapter_number in asked:
        headers, body = ext_proc_messages(1_000, adapter(adapter_number))
        number = await client.open()
        async with asyncio.timeout(10):
            await client.ask(number, headers)
            began = time.perf_counter()
            await client.ask(number, body)
            times.append(time.perf_counter() - began)
        client.finish(number)
        await asyncio.sleep(_PAUSE_SECONDS)
    client.close()
    return sorted(times)


class _Router:
    """A router without a gateway, and an Envoy that stands for its pods."""

    def __init__(self, pid: int, grpc: int, admin: int) -> None:
        self.pid = pid
        self.grpc = grpc
        self._admin = admin

    @classmethod
    @asynccontextmanager
    async def started(
        cls,
        transport: str,
        pods: int,
        directory: Path,
        *,
        changes: Mapping[str, object] = NEVER_SCRAPED,
        pages: Sequence[Path] = envoys.PAGES[-1:],
    ) -> AsyncIterator["_Router"]:
        """Start both processes; end them at the end of the block."""
        port, pods_admin, grpc, admin = free_ports(4)
        addresses = [envoys.pod_address(number, port) for number in range(pods)]
        pods_file = directory / "pods.yaml"
        pods_file.write_text(envoys.pods_file(addresses, [BASE, *adapters(_ADAPTERS)]))
        async with Processes(directory) as processes:
            await processes.start_envoy("pods", envoys.pods(pods, port, pods_admin, pages=pages))
            await processes.until_listening("127.1.0.1", port)
            given = {**settings(transport, pods_file, grpc, admin), **changes}
            await processes.start_router("router", SERVE, given)
            await processes.until_ready(admin)
            yield cls(processes.pid("router"), grpc, admin)

    async def metrics(self) -> OwnMetrics:
        """Read the router's metrics page."""
        return await OwnMetrics.read(self._admin)

    async def until_open(self, streams: int) -> None:
        """Wait until the router has this number of open streams."""
        async with asyncio.timeout(30):
            while (await self.metrics()).total(_OPEN_STREAMS) != streams:  # noqa: ASYNC110 -- of another process
                await asyncio.sleep(0.1)
