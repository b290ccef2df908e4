"""A router that follows an InferencePool, behind a real Envoy. The API server is a scripted one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from lora_router.app import App
from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy, free_port
from tests.integration.echo_pod import EchoPod
from tests.unit.discovery.api_server import (
    OBJECTIVES,
    PODS,
    POOLS,
    ApiServer,
    inference_objective,
    inference_pool,
    ready_pod,
)
from tests.waiting import until


class Site:
    """A running router and Envoy, and a client."""

    def __init__(self, app: App, envoy: Envoy, client: aiohttp.ClientSession) -> None:
        self.app = app
        self.envoy = envoy
        self._client = client

    async def post(self, model: str, objective: str = "", **body: object) -> str:
        """Send a request; return the pod that served it."""
        headers = {"x-gateway-inference-objective": objective} if objective else {}
        url = f"http://127.0.0.1:{self.envoy.port}/v1/chat/completions"
        async with self._client.post(url, json={"model": model, **body}, headers=headers) as answer:
            await answer.read()
            return answer.headers.get("x-pod", str(answer.status))


@asynccontextmanager
async def site(folder: Path, server: ApiServer, pods: Sequence[EchoPod]) -> AsyncIterator[Site]:
    """Start pods of one address, an API server with their pool, a router and an Envoy."""
    async with AsyncExitStack() as stack:
        for pod in pods:
            await stack.enter_async_context(pod)
        ports = [int(pod.address.rpartition(":")[2]) for pod in pods]
        await server.put(POOLS, inference_pool(*ports))
        await server.put(PODS, ready_pod("vllm", "127.0.0.1"))
        kubeconfig = await stack.enter_async_context(server.run(folder))
        settings = load_settings(
            file=None,
            environ={},
            flags={
                "inference_pool": "ml/pool",
                "kubernetes_kubeconfig": str(kubeconfig),
                "grpc_port": free_port(),
                "admin_port": 0,
                "envoy_listen_port": free_port(),
                "envoy_admin_port": free_port(),
                "drain_timeout_seconds": 0.5,
            },
        ).settings
        app = App(settings)
        stack.push_async_callback(app.stop)
        await app.start()
        envoy = await stack.enter_async_context(
            Envoy(bootstrap_yaml(settings), folder, patient=True)
        )
        client = await stack.enter_async_context(aiohttp.ClientSession())
        async with asyncio.timeout(60):
            while await envoy.stat("cluster.pods.membership_total") != len(pods):
                await asyncio.sleep(0.02)
        yield Site(app, envoy, client)


async def test_requests_go_to_the_ranks_of_the_pools_pods_and_follow_its_changes(
    tmp_path: Path,
) -> None:
    server = ApiServer()
    pods = [EchoPod("rank-0", adapters=("a",)), EchoPod("rank-1", adapters=("b",))]
    async with site(tmp_path, server, pods) as found:
        assert [await found.post(model) for model in ("a", "b")] == ["rank-0", "rank-1"]

        await server.put(POOLS, inference_pool(int(pods[1].address.rpartition(":")[2])))
        await until(lambda: len(found.app.fleet) == 1, 60)
        await until(lambda: "b" in found.app.fleet.models(), 60)
        async with asyncio.timeout(60):
            while await found.envoy.stat("cluster.pods.membership_total") != 1:
                await asyncio.sleep(0.02)
        assert await found.post("b") == "rank-1"
        assert await found.post("a") == "404"


async def test_of_requests_that_wait_for_a_slot_the_highest_priority_goes_first(
    tmp_path: Path,
) -> None:
    server = ApiServer()
    await server.put(OBJECTIVES, inference_objective("chat", 10))
    pod = EchoPod("vllm", adapters=("a", "b", "c"), max_lora=1)
    async with site(tmp_path, server, [pod]) as found:
        director = found.app.director
        await until(lambda: director.priorities.of("chat") == 10, 60)

        running = asyncio.create_task(found.post("a", tokens=1, pause=0, waits=True))
        await until(lambda: len(pod.received) == 1, 60)
        usual = asyncio.create_task(found.post("b"))
        await until(lambda: director.held == 1, 60)
        important = asyncio.create_task(found.post("c", "chat"))
        await until(lambda: director.held == 2, 60)
        pod.may_end.set()
        await asyncio.wait_for(asyncio.gather(running, usual, important), 60)

        assert [request.header("model") for request in pod.received] == [["a"], ["c"], ["b"]]
