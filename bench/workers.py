"""One router with one process, and one with several workers, behind the same Envoy.

    make bench-workers

Both get the same load in turn, through an Envoy with one worker thread: as many requests as it can
answer, and two lower rates. CPU time is that of all processes of the router, with all that they do
besides, such as scrapes. At the highest rate, CPU times of two routers hardly compare: the busier a
process is, the more requests it reads at once, and the less each of them costs.

The routers have cores of their own if there are more cores than workers. Otherwise Envoy, the pods
and the load generator use the same ones, and the rates say little.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import envoys
from bench.load import Heard, Load
from bench.machine import notes
from bench.own_metrics import OwnMetrics
from bench.plan import DEFAULT_ALGORITHM
from bench.process_costs import cpu_seconds
from bench.processes import SERVE, Processes, get, run_module
from bench.wire import NEVER_SCRAPED, settings
from bench.workload import BASE, adapters
from lora_router.demo.stack import free_ports

_PODS = 8
_ADAPTERS = 1_000
_CONNECTIONS = 64
_HIGHEST = 1.0
_SHARES = (_HIGHEST, 0.8, 0.4)
"""The rates, as parts of the highest one, which is measured first."""
_BODY_BYTES = 1_000
_IDLE_SECONDS = 15.0
_WARM_UP_SECONDS = 1.0
_SECONDS = 3.0
_PARENT = "parent"
_HEADINGS = (
    "workers",
    "load",
    "requests/s",
    "CPU, of a core",
    "of it the parent",
    "CPU per request",
    "busiest worker",
    "p50",
    "p99",
)


@dataclass(frozen=True, slots=True)
class _Way:
    """A listener of Envoy, and the router that it asks."""

    workers: int
    port: int
    pids: Mapping[str, int]
    """Of the router's processes."""


@asynccontextmanager
async def _started(counts: Sequence[int], directory: Path) -> AsyncIterator[list[_Way]]:
    """Start all processes; end them at the end of the block."""
    pod_port, pod_admin, envoy_admin, *ports = free_ports(3 + 3 * len(counts))
    free = iter(ports)
    targets = [envoys.pod_address(number, pod_port) for number in range(_PODS)]
    pods_file = directory / "pods.yaml"
    pods_file.write_text(envoys.pods_file(targets, [BASE, *adapters(_ADAPTERS)]))
    routers, others = _cores(max(counts))
    os.sched_setaffinity(0, others)
    async with Processes(directory) as processes:
        await processes.start_envoy("pods", envoys.pods(_PODS, pod_port, pod_admin))
        await processes.until_listening("127.1.0.1", pod_port)
        ways, listeners = [], []
        for workers in counts:
            listen, asks, admin = next(free), next(free), next(free)
            name = f"router-{workers}"
            used = settings("builtin", pods_file, asks, admin)
            scraped = {key: value for key, value in used.items() if key not in NEVER_SCRAPED}
            os.sched_setaffinity(0, routers)  # Children inherit it.
            await processes.start_router(name, SERVE, {**scraped, "workers": workers})
            os.sched_setaffinity(0, others)
            await processes.until_ready(admin)
            pids = {_PARENT: processes.pid(name), **await _workers(admin)}
            ways.append(_Way(workers, listen, pids))
            listeners.append(envoys.Listener(name, listen, asks, routes=True, workers=workers))
        await processes.start_envoy("envoy", envoys.gateway(listeners, envoy_admin))
        for way in ways:
            await processes.until_listening("127.0.0.1", way.port)
        yield ways
        processes.check()
        for admin in ports[2::3]:
            metrics = await OwnMetrics.read(admin)
            total = "lora_router_requests_total"
            if metrics.total(total) != metrics.total(total, outcome="routed"):
                raise RuntimeError("requests were not routed at once: that is another path")


async def _workers(admin: int) -> dict[str, int]:
    """Return the process ids of the workers, by number."""
    page = json.loads((await get(admin, "/readyz")).partition(b"\r\n\r\n")[2])
    return {number: worker["pid"] for number, worker in page.get("workers", {}).items()}


def _cores(workers: int) -> tuple[set[int], set[int]]:
    """Return the cores of the routers, and those of all else: others, if there are enough."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) <= workers:
        return set(cores), set(cores)
    return set(cores[:workers]), set(cores[workers:])


async def _load(way: _Way, rate: float) -> Heard:
    """Send so many requests in a second, or, if it is 0, as many as are answered."""
    load = Load(
        port=way.port,
        connections=_CONNECTIONS,
        body_bytes=_BODY_BYTES,
        targets=["-"],
        adapters=_ADAPTERS,
        algorithm=DEFAULT_ALGORITHM,
        seconds=_SECONDS,
        warm_up=_WARM_UP_SECONDS,
        processes=dict(way.pids),
        rate=rate,
    )
    printed = await run_module("bench.load", json.dumps(asdict(load)), seconds=60.0)
    return Heard(**json.loads(printed))


async def _idle(way: _Way) -> list[str]:
    """Measure a router that nothing is sent to; return its row."""
    before = {name: cpu_seconds(pid) for name, pid in way.pids.items()}
    await asyncio.sleep(_IDLE_SECONDS)
    used = {name: (cpu_seconds(way.pids[name]) - before[name]) / _IDLE_SECONDS for name in before}
    parent = f"{used[_PARENT]:.1%}" if way.workers > 1 else ""
    return [str(way.workers), "none", "", f"{sum(used.values()):.1%}", parent, "", "", "", ""]


async def _measure(ways: Sequence[_Way], rounds: int) -> list[list[str]]:
    rows = [await _idle(way) for way in ways]
    heard: dict[tuple[float, int], list[Heard]] = {}
    highest = 0.0
    for share in _SHARES:
        for number in range(rounds):
            print(f"{share:.0%} of the highest rate, round {number + 1}", file=sys.stderr)
            for way in ways:
                rate = 0.0 if share == _HIGHEST else share * highest
                heard.setdefault((share, way.workers), []).append(await _load(way, rate))
        if share == _HIGHEST:
            # One that both can answer.
            highest = min(_rate(heard[share, way.workers]) for way in ways)
    for share in reversed(_SHARES):
        alone = _cpu(heard[share, 1])
        rows += [_cells(way, share, heard[share, way.workers], alone) for way in ways]
    return rows


def _cells(way: _Way, share: float, heard: Sequence[Heard], alone: float) -> list[str]:
    cpu, rate = _cpu(heard), _rate(heard)
    parent = statistics.median(each.cpu_us[_PARENT] for each in heard)
    several = way.workers > 1
    return [
        str(way.workers),
        "the highest" if share == _HIGHEST else f"{share:.0%} of it",
        f"{rate:,.0f}",
        f"{cpu * rate / 1e6:.1%}",
        f"{parent * rate / 1e6:.1%}" if several else "",
        f"{cpu:.0f} µs" + (f" ({cpu / alone:.2f} ×)" if several else ""),  # noqa: RUF001
        f"{statistics.median(_busiest(each) for each in heard):.0%}" if several else "",
        f"{statistics.median(each.p50_us for each in heard) / 1e3:.1f} ms",
        f"{statistics.median(each.p99_us for each in heard) / 1e3:.1f} ms",
    ]


def _rate(heard: Sequence[Heard]) -> float:
    return statistics.median(each.requests / each.seconds for each in heard)


def _cpu(heard: Sequence[Heard]) -> float:
    return statistics.median(sum(each.cpu_us.values()) for each in heard)


def _busiest(heard: Heard) -> float:
    """Return the share of the busiest worker in the CPU time of all workers."""
    times = [value for name, value in heard.cpu_us.items() if name != _PARENT]
    return max(times) / sum(times) if times and sum(times) else 1.0


async def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="bench.workers", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    counts = (1, arguments.workers)
    with tempfile.TemporaryDirectory() as directory:
        async with _started(counts, Path(directory)) as ways:
            rows = await _measure(ways, arguments.rounds)
    print(f"| {' | '.join(_HEADINGS)} |")
    print(f"|{' ---: |' * len(_HEADINGS)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    about = notes()
    print(
        f"\n{about['cores']} cores, {about['CPU']}; Envoy {about['Envoy']}, {_PODS} pods, ", end=""
    )
    print(f"bodies of {_BODY_BYTES} bytes.")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
