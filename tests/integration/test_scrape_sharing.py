"""Routers that share the reads of pods, over real sockets."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from lora_router.app import App
from lora_router.config.settings import Settings
from lora_router.fleet.pod_state import PodState
from lora_router.scrape.sharing import Sharing
from tests.envoy import free_port
from tests.integration.routers import Router
from tests.integration.test_peering import until

pytestmark = pytest.mark.usefixtures("patient_peers")

INTERVAL = 0.5


@dataclass
class CountingPod:
    """A pod that counts the reads of its pages, and can fail."""

    name: str
    running: int = 1
    models: list[str] = field(default_factory=lambda: ["base", "a"])
    failing: bool = False
    reads: list[float] = field(default_factory=list)
    """The times at which its metrics were read."""
    list_reads: int = 0
    address: str = ""

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.address = f"127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            await runner.cleanup()

    async def _metrics(self, _request: web.Request) -> web.Response:
        self.reads.append(time.monotonic())
        if self.failing:
            return web.Response(status=500)
        return web.Response(text=f"vllm:num_requests_running {self.running}\n")

    async def _models(self, _request: web.Request) -> web.Response:
        self.list_reads += 1
        base, *adapters = self.models
        data = [{"id": base}, *({"id": name, "parent": base} for name in adapters)]
        return web.json_response({"data": data})


def write_file(file: Path, pods: Sequence[CountingPod]) -> None:
    listed = [{"name": pod.name, "address": pod.address} for pod in pods]
    file.write_text(yaml.safe_dump({"pods": listed}))


@dataclass
class Site:
    pods: list[CountingPod]
    apps: list[App]

    def state(self, app: App, pod: CountingPod) -> PodState:
        state = app.fleet.get(pod.name)
        assert state is not None
        return state

    def all_share(self, others: int | None = None) -> bool:
        others = len(self.apps) - 1 if others is None else others
        return all(
            app.sharing is not None and len(app.sharing.readers) == others for app in self.apps
        )

    def metrics_reads(self) -> int:
        return sum(len(pod.reads) for pod in self.pods)

    def list_reads(self) -> int:
        return sum(pod.list_reads for pod in self.pods)

    async def until_rate(self, most: float, reads: Callable[[], int]) -> None:
        """Wait until a pod is read at most so many times in a second, all routers together.

        On a starved machine readings come late, and then other routers read the pod too.

        Args:
            most: The rate.
            reads: Returns how many times all pods together have been read.
        """
        async with asyncio.timeout(60):
            while True:
                before, began = reads(), time.monotonic()
                await asyncio.sleep(4.0)
                more = reads() - before
                if 0 < more / (time.monotonic() - began) / len(self.pods) <= most:
                    return


@asynccontextmanager
async def site(
    folder: Path, *, routers: int = 3, pods: int = 8, transport: str = "builtin", **changes: object
) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        made = [CountingPod(f"pod-{number}") for number in range(pods)]
        for pod in made:
            await stack.enter_async_context(pod.run())
        file = folder / "pods.yaml"
        write_file(file, made)
        ports = [free_port() for _ in range(routers)]
        values: dict[str, object] = {
            "endpoints": file,
            "grpc_host": "127.0.0.1",
            "admin_port": 0,
            "transport": transport,
            "peers": ",".join(f"127.0.0.1:{port}" for port in ports),
            "pod_metric_refresh_interval_ms": int(INTERVAL * 1000),
            "models_refresh_interval_seconds": 2.0,
            "scrape_timeout_seconds": 30.0,
            "drain_timeout_seconds": 1.0,
            **changes,
        }
        apps = []
        for port in ports:
            app = App(Settings(**{**values, "grpc_port": port}))
            stack.push_async_callback(app.stop)
            apps.append(app)
        await asyncio.gather(*(app.start() for app in apps))
        yield Site(made, apps)


def sharing(app: App) -> Sharing:
    assert app.sharing is not None
    return app.sharing


async def test_pods_are_read_once_for_all_routers(tmp_path: Path, transport: str) -> None:
    async with site(tmp_path, transport=transport) as here:
        await until(here.all_share)

        # Not three times in an interval, as if each router read all pods.
        await here.until_rate(0.6 * len(here.apps) / INTERVAL, here.metrics_reads)
        await until(lambda: all(sharing(app).counts.used > 20 for app in here.apps))
        for pod in here.pods:
            pod.running = 7
        await until(
            lambda: all(
                (metrics := here.state(app, pod).metrics) is not None and metrics.running == 7
                for app in here.apps
                for pod in here.pods
            )
        )
        assert {sharing(app).counts.contradictions for app in here.apps} == {0}
        page = here.apps[0].telemetry.page().decode()
        assert 'lora_router_peer_readings_total{direction="sent"}' in page


async def test_a_list_that_changed_reaches_all_routers(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await until(here.all_share)

        for pod in here.pods:
            pod.models.append("new")

        await until(lambda: all(len(app.fleet.serving("new").pods) == 8 for app in here.apps))
        # Half of what three routers need that do not share.
        await here.until_rate(0.5 * len(here.apps) / 2.0, here.list_reads)


async def test_when_a_router_leaves_the_others_read_its_pods(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await until(here.all_share)

        await here.apps.pop(0).stop()

        await until(here.all_share)
        counts = [len(pod.reads) for pod in here.pods]
        await until(
            lambda: all(
                len(pod.reads) > count + 3 for pod, count in zip(here.pods, counts, strict=True)
            )
        )


async def test_a_pod_that_fails_is_looked_at_by_every_router(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await until(here.all_share)
        pod = here.pods[0]

        pod.failing = True
        await until(lambda: all(here.state(app, pod).scrape_failures >= 2 for app in here.apps))
        pod.failing = False

        await until(lambda: all(here.state(app, pod).scrape_failures == 0 for app in here.apps))
        assert all(here.state(app, here.pods[1]).scrape_failures == 0 for app in here.apps)


async def test_a_router_that_does_not_share_is_a_peer_nevertheless(tmp_path: Path) -> None:
    async with site(tmp_path, routers=2, scrape_sharing=False) as here:
        await until(
            lambda: all(app.peering is not None and app.peering.hub.peers for app in here.apps)
        )
        assert {app.sharing for app in here.apps} == {None}
        counts = [len(pod.reads) for pod in here.pods]

        await until(
            lambda: all(
                len(pod.reads) >= count + 4 for pod, count in zip(here.pods, counts, strict=True)
            )
        )


async def test_a_router_that_is_killed_leaves_no_pod_unread(tmp_path: Path) -> None:
    pods = [CountingPod(f"pod-{number}") for number in range(6)]
    async with AsyncExitStack() as stack:
        for pod in pods:
            await stack.enter_async_context(pod.run())
        file = tmp_path / "pods.yaml"
        write_file(file, pods)
        common = {
            "endpoints": str(file),
            "peer_allow_unauthenticated": True,
            "pod_metric_refresh_interval_ms": int(INTERVAL * 1000),
        }
        ports = [free_port() for _ in range(2)]
        common["peers"] = ",".join(f"127.0.0.1:{port}" for port in ports)
        routers = [
            Router(tmp_path / f"router-{port}", {**common, "grpc_port": port}) for port in ports
        ]
        for router in routers:
            stack.push_async_callback(router.close)
        await asyncio.gather(*(router.start() for router in routers))
        await asyncio.sleep(2.0)

        await routers[0].end(signal.SIGKILL)

        counts = [len(pod.reads) for pod in pods]
        await until(
            lambda: all(len(pod.reads) > count + 3 for pod, count in zip(pods, counts, strict=True))
        )
