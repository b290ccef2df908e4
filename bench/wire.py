"""The request path as clients see it: through a real Envoy, with the router and without it.

For each point and transport the same load goes through the same Envoy, in turn: without a filter,
with a server that decides nothing (at some points), and with the router. All servers run all the
time. A server that is not called costs nothing.
"""

import json
import re
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import envoys
from bench.load import Heard, Load
from bench.own_metrics import OwnMetrics
from bench.plan import BASE, Plan, Point
from bench.process_costs import forget_peak, peak_memory_bytes
from bench.processes import NOOP, SERVE, Processes, get, run_module, transports
from bench.workload import BASE as BASE_MODEL
from bench.workload import adapters
from lora_router.demo.stack import free_ports

_WITH_NOOP = (BASE, Point(connections=1), Point(body_bytes=220_000))
"""Points at which a server that decides nothing is also measured."""
ROUTER, NOOP_SERVER, NOTHING = "router", "no-op", "nothing"
NEVER_SCRAPED = {"pod_metric_refresh_interval_ms": 3_600_000, "metrics_max_age_seconds": 86_400}
"""One scrape at startup, whose snapshot does not become stale."""

_FAILED = r"ext_proc\.failure_mode_allowed"
"""Envoy's count of calls that failed, and whose requests it has sent on as they were. Answers with
an error end the load."""
_MOST_LISTED = 1_000_000
"""Names of adapters in a pods file, those of each pod counted. The router reads files of at most
``yaml_document.MAX_NODES`` values."""


@dataclass(frozen=True, slots=True)
class Row:
    """The results of one point with one server."""

    server: str
    """``router``, ``no-op``, or ``nothing``: no filter."""
    transport: str
    """Empty for ``nothing``."""
    point: Point
    requests: int
    requests_per_second: float
    cpu_us: float | None
    """The server's CPU time for each request; ``None`` for ``nothing``."""
    envoy_cpu_us: float
    load_cpu_us: float
    p50_us: float
    p99_us: float
    added_p50_us: float | None
    added_p99_us: float | None
    """The difference to the same load without a filter."""
    peak_memory_mb: float | None
    not_routed: int
    """Requests that the router did not route at once. Must be 0: that is another code path."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One listener of the gateway, and the server that it calls."""

    server: str
    transport: str
    port: int
    process: str = ""
    """Name of the server's process; empty: there is none."""
    admin: int = 0
    """Port of its own pages."""


async def measure(plan: Plan, directory: Path, note: Callable[[str], None]) -> list[Row]:
    """Measure all points of a plan.

    Args:
        plan: The points, and how long each is measured.
        directory: For configurations and logs.
        note: Called with what is measured next.

    Raises:
        ChildError, RuntimeError, TimeoutError: A process failed or did not respond in time.
    """
    rows: list[Row] = []
    points = plan.points()
    for pods in dict.fromkeys(point.pods for point in points):
        note(f"starting {pods} pods, the routers and Envoy")
        async with _Gateway.started(plan, pods, directory) as gateway:
            for point in points:
                if point.pods == pods:
                    note(f"the request path: {_described(point)}")
                    rows += await gateway.measure(point)
    return rows


def _described(point: Point) -> str:
    return (
        f"{point.body_bytes:,} bytes, {point.connections} connections, {point.pods} pods, "
        f"{point.algorithm}"
    )


class _Gateway:
    """Envoy, all servers that it calls, and pods that answer at once."""

    def __init__(
        self,
        plan: Plan,
        processes: Processes,
        ways: Sequence[_Way],
        targets: Sequence[str],
        admin: int,
    ) -> None:
        self._plan = plan
        self._processes = processes
        self._ways = ways
        self._targets = targets
        self._admin = admin
        self._without: dict[tuple[int, int], Sequence[Heard]] = {}
        """Results without a filter, by body and connections."""

    @classmethod
    @asynccontextmanager
    async def started(cls, plan: Plan, pods: int, directory: Path) -> AsyncIterator["_Gateway"]:
        """Start all processes; end them at the end of the block."""
        names = transports()
        pod_port, pod_admin, envoy_admin, nothing, *ports = free_ports(4 + 6 * len(names))
        targets = [envoys.pod_address(number, pod_port) for number in range(pods)]
        pods_file = directory / "pods.yaml"
        models = [BASE_MODEL, *adapters(_adapters(plan, pods))]
        pods_file.write_text(envoys.pods_file(targets, models))
        nobody = directory / "nobody.yaml"
        nobody.write_text("pods: []\n")
        async with Processes(directory) as processes:
            await processes.start_envoy("pods", envoys.pods(pods, pod_port, pod_admin))
            await processes.until_listening("127.1.0.1", pod_port)
            ways = [_Way(NOTHING, "", nothing)]
            listeners = [envoys.Listener(NOTHING, nothing, None, routes=False)]
            free = iter(ports)
            for transport in names:
                for server in (NOOP_SERVER, ROUTER):
                    listen, asks, admin = next(free), next(free), next(free)
                    name = f"{server}-{transport}"
                    await processes.start_router(
                        name,
                        SERVE if server == ROUTER else NOOP,
                        settings(transport, pods_file if server == ROUTER else nobody, asks, admin),
                    )
                    ways.append(_Way(server, transport, listen, name, admin))
                    listeners.append(envoys.Listener(name, listen, asks, routes=server == ROUTER))
            for way in ways[1:]:
                await processes.until_ready(way.admin)
            await processes.start_envoy("envoy", envoys.gateway(listeners, envoy_admin))
            await processes.until_listening("127.0.0.1", nothing)
            yield cls(plan, processes, ways, targets, envoy_admin)

    async def measure(self, point: Point) -> list[Row]:
        """Measure one point on all listeners."""
        key = (point.body_bytes, point.connections)
        ways = [
            way
            for way in self._ways
            if (way.server != NOOP_SERVER or point in _WITH_NOOP)
            # Without a filter the algorithm makes no difference.
            and (way.server != NOTHING or key not in self._without)
        ]
        heard: dict[_Way, list[Heard]] = {way: [] for way in ways}
        before = {way: await _not_routed(way) for way in ways}
        for way in ways:
            if way.process:
                forget_peak(self._processes.pid(way.process))
        rounds = self._plan.base_rounds if point == BASE else self._plan.rounds
        for _ in range(rounds):
            for way in ways:
                heard[way].append(await self._load(way, point))
        await self._check_no_call_failed()
        without = self._without.setdefault(key, heard[ways[0]])
        return [
            self._row(point, way, heard[way], without, await _not_routed(way) - before[way])
            for way in ways
        ]

    async def _check_no_call_failed(self) -> None:
        """Check that Envoy has not sent a request on although its server failed.

        Raises:
            RuntimeError: It has. What was measured is the cost of an error.
        """
        page = (await get(self._admin, "/stats?filter=ext_proc")).decode()
        for way in self._ways:
            if way.process and (failed := failed_calls(page, way.process)):
                raise RuntimeError(f"{way.process}: {failed:,} of its calls failed")

    async def _load(self, way: _Way, point: Point) -> Heard:
        self._processes.check()
        pids = {"envoy": self._processes.pid("envoy")}
        if way.process:
            pids["server"] = self._processes.pid(way.process)
        load = Load(
            port=way.port,
            connections=point.connections,
            body_bytes=point.body_bytes,
            targets=self._targets,
            adapters=_adapters(self._plan, len(self._targets)),
            algorithm=point.algorithm,
            seconds=self._plan.seconds,
            warm_up=self._plan.warm_up,
            processes=pids,
        )
        printed = await run_module(
            "bench.load",
            json.dumps(asdict(load)),
            seconds=load.warm_up + load.seconds + 30.0,
        )
        return Heard(**json.loads(printed))

    def _row(
        self,
        point: Point,
        way: _Way,
        heard: Sequence[Heard],
        without: Sequence[Heard],
        not_routed: int,
    ) -> Row:
        p50, p99 = (_median(heard, name) for name in ("p50_us", "p99_us"))
        asked = bool(way.process)
        return Row(
            server=way.server,
            transport=way.transport,
            point=point,
            requests=sum(each.requests for each in heard),
            requests_per_second=statistics.median(each.requests / each.seconds for each in heard),
            cpu_us=statistics.median(each.cpu_us["server"] for each in heard) if asked else None,
            envoy_cpu_us=statistics.median(each.cpu_us["envoy"] for each in heard),
            load_cpu_us=_median(heard, "own_cpu_us"),
            p50_us=p50,
            p99_us=p99,
            added_p50_us=p50 - _median(without, "p50_us") if asked else None,
            added_p99_us=p99 - _median(without, "p99_us") if asked else None,
            peak_memory_mb=(
                peak_memory_bytes(self._processes.pid(way.process)) / 2**20 if asked else None
            ),
            not_routed=not_routed,
        )


def failed_calls(page: str, listener: str) -> int:
    """Return how many calls of a listener's server failed.

    Args:
        page: Envoy's statistics. A listener without failures need not be there.
        listener: Its name.
    """
    found = re.search(rf"^http\.{re.escape(listener)}\.{_FAILED}: (\d+)$", page, re.MULTILINE)
    return int(found[1]) if found else 0


def settings(transport: str, pods_file: Path, grpc_port: int, admin_port: int) -> dict[str, object]:
    """Return the settings of a router on this host that scrapes its pods once."""
    return {
        "endpoints": pods_file,
        "grpc_host": "127.0.0.1",
        "grpc_port": grpc_port,
        "admin_port": admin_port,
        "drain_timeout_seconds": 0,
        "startup_timeout_seconds": 60,
        "log_level": "warning",
        "transport": transport,
        **NEVER_SCRAPED,
    }


def _adapters(plan: Plan, pods: int) -> int:
    """Return how many adapters each of so many pods lists."""
    return min(plan.adapters, _MOST_LISTED // pods)


async def _not_routed(way: _Way) -> int:
    if way.server != ROUTER:
        return 0
    metrics = await OwnMetrics.read(way.admin)
    name = "lora_router_requests_total"
    return int(metrics.total(name) - metrics.total(name, outcome="routed"))


def _median(heard: Sequence[Heard], name: str) -> float:
    values: list[float] = [getattr(each, name) for each in heard]
    return statistics.median(values)
