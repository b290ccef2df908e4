"""Two routers that are peers, an Envoy, three pods, and requests whose number is known."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import write_pods
from tests.integration.routers import Router
from tests.waiting import until

ADAPTERS = ("a1", "a2", "a3")
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


class Pod(EchoPod):
    """A pod that can fail, and whose answers say how many tokens they took."""

    fails = False

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(status=500) if self.fails else await super()._metrics(request)

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        if self.fails:
            self._record(request, await request.read())
            return web.json_response({"error": {"message": "broken"}}, status=500)
        body = await request.read()
        if b'"tokens"' in body:
            return await super()._echo(request)
        self._record(request, body)
        document = {"model": json.loads(body)["model"], "usage": USAGE, "choices": []}
        return web.json_response(document, headers={"x-pod": self.name})


class Traffic:
    """The processes, and what was sent."""

    def __init__(self, pods: tuple[Pod, ...], routers: tuple[Router, ...]) -> None:
        self.pods = pods
        self.routers = routers
        self.statuses: Counter[int] = Counter()
        self.url = ""
        self.client: aiohttp.ClientSession

    @property
    def targets(self) -> list[str]:
        """Where Prometheus finds the routers."""
        return [f"127.0.0.1:{router.served.admin_port}" for router in self.routers]

    async def request(self, model: str, **more: object) -> int:
        """Send a request, read the answer, and return its status."""
        document = {"model": model, "prompt": "p", **more}
        async with self.client.post(f"{self.url}/v1/completions", json=document) as response:
            await response.read()
        self.statuses[response.status] += 1
        return response.status

    async def ordinary(self) -> None:
        """Send requests of each kind, which all succeed.

        One after the other: each router may hold only one, if its peer has not yet said that a
        slot is free.
        """
        for model in ("base", *ADAPTERS):
            assert [await self.request(model) for _ in range(3)] == [200] * 3

    async def held_and_refused(self) -> None:
        """Let one request wait for a slot, and others be refused because it waits."""
        for pod in self.pods:
            pod.may_end.clear()
        waiting = {"tokens": 1, "pause": 0, "waits": True}
        running: list[asyncio.Task[int]] = []
        try:
            # Each slot of the fleet gets an adapter that stays, one after the other: two routers
            # that decide at the same moment could pick the same pod.
            for number, model in enumerate(ADAPTERS[:2], start=1):
                running.append(asyncio.create_task(self.request(model, **waiting)))
                await self._until("lora_router_in_flight_requests", number)
                await self._until("lora_router_peer_in_flight_requests", number)
            # Each router holds one request. The others are refused.
            further = [asyncio.create_task(self.request("a3")) for _ in range(30)]
            async with asyncio.timeout(60):
                while await self.metric("lora_router_held_requests") != len(self.routers):
                    # A router that took the other one for dead knows of free slots, or Envoy
                    # took one of them for dead and asked the other one alone.
                    if _unfinished(further) < len(self.routers):
                        further.append(asyncio.create_task(self.request("a3")))
                    await asyncio.sleep(0.02)
            await until(lambda: _unfinished(further) <= len(self.routers))
        finally:
            for pod in self.pods:
                pod.may_end.set()
        assert await asyncio.gather(*running) == [200] * 2
        statuses = Counter(await asyncio.gather(*further))
        assert statuses.keys() == {200, 429}, statuses
        assert statuses[200] >= len(self.routers), statuses
        assert statuses[429] >= 20, statuses

    async def fail(self) -> None:
        """Let one pod answer with an error until it is ejected, and until a scrape failed.

        The other pods are kept busy, so that few requests succeed: more than one in twenty fails.
        """
        self.pods[0].fails = True
        for pod in self.pods[1:]:
            pod.may_end.clear()
        sent: list[asyncio.Task[int]] = []

        def failures() -> int:
            return sum(each.done() and each.result() == 500 for each in sent)

        async def is_ejected() -> bool:
            return await self.metric("lora_router_pod_ejections_total", cause="status-5xx") > 0

        async def all_count() -> bool:
            """Whether the routers count every request that runs, and no other."""
            counted = await self.metric("lora_router_in_flight_requests")
            # What runs is looked at after that: requests end while the page is read.
            return counted == _unfinished(sent)

        async with asyncio.timeout(60):
            # A router that saw two failures lets its own probe decide, so that three may not come.
            while failures() < 3 and not await is_ejected():
                request = self.request("base", tokens=1, pause=0, waits=True)
                sent.append(asyncio.create_task(request))
                # The next one is sent to a pod in view of all others.
                while not sent[-1].done() and not await all_count():
                    await asyncio.sleep(0.02)
            while not await is_ejected():
                await asyncio.sleep(0.02)
            while not await self.metric("lora_router_scrape_failures_total"):
                await asyncio.sleep(0.02)
        for pod in self.pods[1:]:
            pod.may_end.set()
        statuses = Counter(await asyncio.gather(*sent))
        # By chance, all of them may go to the pod that fails.
        assert {500} <= statuses.keys() <= {200, 500}, statuses

    async def _until(self, metric: str, value: float) -> None:
        async with asyncio.timeout(60):
            while await self.metric(metric) != value:
                await asyncio.sleep(0.02)

    async def metric(self, name: str, **labels: str) -> float:
        """Return a metric, added up over the routers and over all series with these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = 0.0
        for target in self.targets:
            async with self.client.get(f"http://{target}/metrics") as response:
                lines = (await response.text()).splitlines()
            found += sum(
                float(line.split()[-1])
                for line in lines
                if line.split("{")[0].split()[0] == name and all(each in line for each in wanted)
            )
        return found


def _unfinished(requests: list[asyncio.Task[int]]) -> int:
    return sum(not each.done() for each in requests)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Traffic]:
    """Start everything, and stop it at the end."""
    async with AsyncExitStack() as stack:
        # Two pods have one slot each; the third one is for the base model alone.
        pods = (
            Pod("vllm-0", max_lora=1),
            Pod("vllm-1", ADAPTERS, max_lora=1),
            Pod("vllm-2", ADAPTERS, max_lora=1),
        )
        for pod in pods:
            await stack.enter_async_context(pod)
        write_pods(folder / "pods.yaml", pods)
        config: dict[str, object] = {
            "endpoints": str(folder / "pods.yaml"),
            "drain_timeout_seconds": 1,
            "max_held_requests": 1,
            "tokens": "on",
            # On a busy machine, every request is decided by a router all the same, is held until
            # the test lets it go, and no pod is ejected because it is slow.
            "envoy_fail_open": False,
            "envoy_message_timeout_seconds": 60,
            "max_hold_seconds": 120,
            "outlier_first_byte_seconds": 60,
        }
        routers = tuple(Router(folder / f"router-{number}", config) for number in (1, 2))
        peers = ",".join(router.address for router in routers)
        for router in routers:
            file = router.served.file
            file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "peers": peers}))
            stack.push_async_callback(router.close)
        await asyncio.gather(*(router.start() for router in routers))
        settings = load_settings(
            file=routers[0].served.file, environ={}, flags={"envoy_router_address": peers}
        ).settings
        envoy = await stack.enter_async_context(Envoy(bootstrap_yaml(settings), folder))
        traffic = Traffic(pods, routers)
        traffic.client = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        traffic.url = f"http://127.0.0.1:{envoy.port}"
        yield traffic
