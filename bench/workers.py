"""One router with one process, and one with several workers, behind the same Envoy.

    make bench-workers

Both get the same load in turn, through an Envoy with one worker thread. CPU time is that of all
processes of the router. With fewer cores than processes, the rates say little: Envoy, the pods and
the load generator need cores, too.
"""

import argparse
import asyncio
import json
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
from bench.processes import SERVE, Processes, get, run_module
from bench.wire import settings
from bench.workload import BASE, adapters
from lora_router.demo.stack import free_ports

_PODS = 8
_ADAPTERS = 1_000
_CONNECTIONS = (64, 256)
_BODY_BYTES = 1_000
_WARM_UP_SECONDS = 1.0
_SECONDS = 3.0
_PARENT = "parent"
_HEADINGS = (
    "workers",
    "requests at the same time",
    "requests/s",
    "CPU per request",
    "more than one process, of a core",
    "of it the parent",
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
    async with Processes(directory) as processes:
        await processes.start_envoy("pods", envoys.pods(_PODS, pod_port, pod_admin))
        await processes.until_listening("127.1.0.1", pod_port)
        ways, listeners = [], []
        for workers in counts:
            listen, asks, admin = next(free), next(free), next(free)
            name = f"router-{workers}"
            await processes.start_router(
                name, SERVE, {**settings("builtin", pods_file, asks, admin), "workers": workers}
            )
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


async def _load(way: _Way, connections: int) -> Heard:
    load = Load(
        port=way.port,
        connections=connections,
        body_bytes=_BODY_BYTES,
        targets=["-"],
        adapters=_ADAPTERS,
        algorithm=DEFAULT_ALGORITHM,
        seconds=_SECONDS,
        warm_up=_WARM_UP_SECONDS,
        processes=dict(way.pids),
    )
    printed = await run_module("bench.load", json.dumps(asdict(load)), seconds=60.0)
    return Heard(**json.loads(printed))


def _cells(way: _Way, connections: int, heard: Sequence[Heard], alone: float | None) -> list[str]:
    cpu = _cpu(heard)
    per_request = f"{cpu:.0f} µs" + (f" ({cpu / alone:.2f} ×)" if alone else "")  # noqa: RUF001
    rate = statistics.median(each.requests / each.seconds for each in heard)
    # Most of it does not depend on the rate: workers report to each other all the time.
    more = f"{(cpu - alone) * rate / 1e6:.1%}" if alone else ""
    parent = statistics.median(each.cpu_us[_PARENT] for each in heard)
    shares = [_busiest(each) for each in heard]
    return [
        str(way.workers),
        str(connections),
        f"{rate:,.0f}",
        per_request,
        more,
        f"{parent:.1f} µs" if way.workers > 1 else "",
        f"{statistics.median(shares):.0%}" if way.workers > 1 else "",
        f"{statistics.median(each.p50_us for each in heard) / 1e3:.1f} ms",
        f"{statistics.median(each.p99_us for each in heard) / 1e3:.1f} ms",
    ]


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
    heard: dict[tuple[int, int], list[Heard]] = {}
    with tempfile.TemporaryDirectory() as directory:
        async with _started(counts, Path(directory)) as ways:
            for connections in _CONNECTIONS:
                for number in range(arguments.rounds):
                    print(f"{connections} at a time, round {number + 1}", file=sys.stderr)
                    for way in ways:
                        measured = heard.setdefault((way.workers, connections), [])
                        measured.append(await _load(way, connections))
            rows = [
                _cells(
                    way,
                    connections,
                    heard[way.workers, connections],
                    _cpu(heard[1, connections]) if way.workers > 1 else None,
                )
                for connections in _CONNECTIONS
                for way in ways
            ]
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
