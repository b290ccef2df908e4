"""Several routers as processes, one Envoy before them, and requests at a steady rate."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import write_pods
from tests.integration.served import Served


class Router:
    """A router that can be killed and started again on the same ports."""

    def __init__(self, directory: Path, config: dict[str, object]) -> None:
        directory.mkdir()
        self.served = Served(directory, config)
        self._stack = AsyncExitStack()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.served.grpc_port}"

    async def start(self) -> None:
        self.process = await self._stack.enter_async_context(self.served.run())
        await self.served.until_ready()

    async def end(self, number: signal.Signals) -> None:
        """Send a signal that ends it, and wait until it has ended."""
        self.process.send_signal(number)
        async with asyncio.timeout(60):
            await self.process.wait()
        await self._stack.aclose()

    async def close(self) -> None:
        await self._stack.aclose()


@dataclass
class Load:
    """What became of requests."""

    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    cut: int = 0
    """Answers that broke after their status."""

    @property
    def lost(self) -> int:
        """Requests that got no whole answer with status 200."""
        return self.sent - self.statuses[200] + self.cut


@dataclass
class Site:
    """Pods, routers, an Envoy, and a client."""

    pods: Sequence[EchoPod]
    routers: Sequence[Router]
    envoy: Envoy
    client: aiohttp.ClientSession

    async def until_it_has_routers(self, count: int) -> None:
        """Wait until Envoy asks so many routers."""
        async with asyncio.timeout(60):
            while await self.envoy.stat("cluster.lora-router.membership_healthy") != count:
                await asyncio.sleep(0.05)

    async def request(self, load: Load, model: str = "base", **more: object) -> str:
        """Send a request, and count what becomes of it; return the pod, or an empty string."""
        load.sent += 1
        url = f"http://127.0.0.1:{self.envoy.port}/v1/completions"
        try:
            async with self.client.post(url, json={"model": model, **more}) as response:
                load.statuses[response.status] += 1
                body = await response.read()
                if "tokens" in more and not body.endswith(b"[DONE]\n\n"):
                    load.cut += 1
                return response.headers.get("x-pod", "")
        except aiohttp.ClientPayloadError:
            load.cut += 1
        except aiohttp.ClientError:
            load.statuses[0] += 1
        return ""

    @asynccontextmanager
    async def running(self, answers: int, seconds: float) -> AsyncIterator[Load]:
        """Run answers that last some seconds; they have ended when the block has."""
        load = Load()
        async with asyncio.TaskGroup() as group:
            for _ in range(answers):
                group.create_task(self.request(load, tokens=round(seconds / 0.1), pause=0.1))
            async with asyncio.timeout(60):
                while load.statuses.total() < answers:
                    await asyncio.sleep(0.01)
            yield load

    @asynccontextmanager
    async def traffic(self, per_second: float, model: str = "base") -> AsyncIterator[Load]:
        """Send short requests at a steady rate while the block runs."""
        load = Load()

        async def keep_sending() -> None:
            async with asyncio.TaskGroup() as group:
                loop = asyncio.get_running_loop()
                begin, number = loop.time(), 0
                while not done.is_set():
                    group.create_task(self.request(load, model))
                    number += 1
                    await asyncio.sleep(max(0.0, begin + number / per_second - loop.time()))

        done = asyncio.Event()
        sender = asyncio.create_task(keep_sending())
        try:
            yield load
        finally:
            done.set()
            await sender


@asynccontextmanager
async def site(
    tmp_path: Path,
    pods: Sequence[EchoPod],
    *,
    routers: int,
    patient: object = False,
    **config: object,
) -> AsyncIterator[Site]:
    """Start pods, routers and an Envoy. Stop them at the end.

    ``patient``: whether Envoy waits for a router that stalls. As printed, it does not.
    """
    async with AsyncExitStack() as stack:
        for pod in pods:
            await stack.enter_async_context(pod)
        pods_file = tmp_path / "pods.yaml"
        write_pods(pods_file, pods)
        common = {"endpoints": str(pods_file), "drain_timeout_seconds": 5, **config}
        made = [Router(tmp_path / f"router-{number}", common) for number in range(routers)]
        for router in made:
            stack.push_async_callback(router.close)
        await asyncio.gather(*(router.start() for router in made))
        settings = load_settings(
            file=made[0].served.file,
            environ={},
            flags={"envoy_router_address": ",".join(router.address for router in made)},
        ).settings
        envoy = await stack.enter_async_context(
            Envoy(bootstrap_yaml(settings), tmp_path, patient=bool(patient))
        )
        connector = aiohttp.TCPConnector(limit=0)
        client = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        yield Site(pods, made, envoy, client)
