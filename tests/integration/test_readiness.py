"""When a router says that it is ready: on gRPC as on HTTP, in Check as in Watch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lora_router.app import App
from lora_router.config.settings import Settings
from lora_router.extproc.transport import LIVENESS_SERVICE, READINESS_SERVICES
from tests.health import health

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class SlowPod:
    """A pod that answers scrapes once it is let."""

    def __init__(self) -> None:
        self.asked, self.let = asyncio.Event(), asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked.set()
        await self.let.wait()
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()


@asynccontextmanager
async def starting(
    tmp_path: Path, transport: str, **changes: object
) -> AsyncIterator[tuple[App, SlowPod, "asyncio.Task[None]"]]:
    """Start a router over a slow pod, up to its first scrape."""
    pod = SlowPod()
    async with await asyncio.start_server(pod.answer, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        listed = [{"name": "slow", "address": address, "models": ["base"]}]
        pods = tmp_path / "pods.yaml"
        pods.write_text(yaml.safe_dump({"pods": listed}))
        given = {
            "endpoints": pods,
            "transport": transport,
            "grpc_host": "127.0.0.1",
            "grpc_port": 0,
            "admin_port": 0,
            "startup_timeout_seconds": 60,
            "scrape_timeout_seconds": 60,
            "drain_timeout_seconds": 0,
            **changes,
        }
        app = App(Settings.model_validate(given))
        start = asyncio.create_task(app.start())
        try:
            await asyncio.wait_for(pod.asked.wait(), 60)
            while not app.transport.started:
                await asyncio.sleep(0.01)
            yield app, pod, start
        finally:
            pod.let.set()
            await app.stop()
            start.cancel()


async def test_it_is_alive_and_not_ready_before_the_first_scrape_round(
    tmp_path: Path, transport: str
) -> None:
    async with starting(tmp_path, transport) as (app, pod, start):
        for service in READINESS_SERVICES:
            assert await health(app.transport.port, service) == NOT_SERVING
        assert await health(app.transport.port, LIVENESS_SERVICE) == SERVING
        assert app.readiness().reason == "waiting for the first scrape of the pods"

        pod.let.set()
        await start

        for service in READINESS_SERVICES:
            assert await health(app.transport.port, service) == SERVING
        assert app.readiness().ready


async def test_who_watches_is_told_when_it_is_ready_and_when_it_stops(
    tmp_path: Path, transport: str
) -> None:
    async with starting(tmp_path, transport, drain_delay_seconds=0.2) as (app, pod, start):
        target = f"127.0.0.1:{app.transport.port}"
        async with grpc.aio.insecure_channel(target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest(service="readiness"))
            assert (await watch.read()).status == NOT_SERVING

            pod.let.set()
            assert (await watch.read()).status == SERVING

            await start
            stop = asyncio.create_task(app.stop())
            assert (await watch.read()).status == NOT_SERVING
            await stop


async def test_a_pod_that_never_answers_does_not_keep_it_from_being_ready(
    tmp_path: Path, transport: str
) -> None:
    async with starting(tmp_path, transport, startup_timeout_seconds=0.1) as (app, _, start):
        await start

        assert await health(app.transport.port, "readiness") == SERVING
