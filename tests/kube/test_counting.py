"""In every mode of the chart, a request counts until its last byte, on the pod that serves it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from lora_router.app import App
from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy, free_port
from tests.integration.echo_pod import EchoPod
from tests.kube.binaries import GATEWAY_TRANSLATOR, why_not
from tests.kube.gateway_config import Document, cluster_of, processor
from tests.kube.gateway_install import Installed, gateway_values, installed
from tests.kube.installed import Releases, install_router
from tests.kube.server import KubeClient, KubeServer
from tests.waiting import until

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.usefixtures("resources"),
]
_missing = why_not(GATEWAY_TRANSLATOR)
_needs_translator = pytest.mark.skipif(_missing is not None, reason=str(_missing))

TOKENS = 6


def in_flight(app: App, pod: str) -> int:
    """Return the requests that count on a pod."""
    [state] = [state for state in app.fleet if state.pod.name.endswith(f"/{pod}")]
    return state.in_flight


async def stream(gateway: Installed, model: str) -> AsyncIterator[int]:
    """Send a request for a streamed response. Yields the number of each token as it arrives."""
    url = f"http://127.0.0.1:{gateway.envoy.port}/v1/chat/completions"
    body = {"model": model, "tokens": TOKENS, "pause": 0.1}
    async with gateway.client.post(url, json=body) as response:
        assert response.status == 200
        async for line in response.content:
            if line.startswith(b"data: ") and line[6:].strip().isdigit():
                yield int(line[6:])


@asynccontextmanager
async def sidecar(
    kube: KubeServer, admin: KubeClient, releases: Releases, folder: Path, pods: list[EchoPod]
) -> AsyncIterator[Installed]:
    """Install the chart with an Envoy in the router's pod, and run both as in one pod."""
    async with AsyncExitStack() as stack:
        app = await install_router(kube, admin, releases, folder, {"gateway": {"mode": "sidecar"}})
        namespace = releases.get_all("mine")["summary"]["namespace"]
        for pod in pods:
            await stack.enter_async_context(pod)
            port = pod.address.rpartition(":")[2]
            labels = {"model.aibrix.ai/name": "base", "model.aibrix.ai/port": port}
            await admin.pod(namespace, pod.name, labels=labels)
        stack.push_async_callback(app.stop)
        await app.start()
        here = {
            "envoy_listen_host": "127.0.0.1",
            "envoy_listen_port": free_port(),
            "envoy_admin_port": free_port(),
        }
        settings = load_settings(file=folder / "config.yaml", environ={}, flags=here).settings
        envoy = await stack.enter_async_context(Envoy(bootstrap_yaml(settings), folder))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield Installed(envoy, [app], client)


async def counts_until_the_last_byte(gateway: Installed) -> None:
    tokens = 0
    async for number in stream(gateway, "a1"):
        assert in_flight(gateway.app, "one") == 1, f"after token {number}"
        tokens += 1
    assert tokens == TOKENS
    await until(lambda: gateway.app.fleet.ledger.total == 0)


@_needs_translator
@pytest.mark.parametrize("destination", ["endpoint-override", "original-dst"])
async def test_behind_envoy_gateway_a_request_counts_until_its_last_byte(
    destination: str,
    kube: KubeServer,
    admin: KubeClient,
    namespace: str,
    releases: Releases,
    folder: Path,
) -> None:
    """Envoy Gateway sets a timeout for the call to the router, which does not limit its stream."""

    def limit_call(config: Document) -> None:
        processor(config)["grpcService"]["timeout"] = "0.25s"

    service = (namespace, "base")
    services = {service: [EchoPod("one", ("a1",)), EchoPod("two")]}
    values = gateway_values(service, destination=destination)
    async with installed(
        *(kube, admin, releases, folder, services, values), change=limit_call
    ) as gateway:
        await counts_until_the_last_byte(gateway)


async def test_beside_a_sidecar_a_request_counts_until_its_last_byte(
    kube: KubeServer, admin: KubeClient, releases: Releases, folder: Path
) -> None:
    pods = [EchoPod("one", ("a1",)), EchoPod("two")]
    async with sidecar(kube, admin, releases, folder, pods) as gateway:
        await counts_until_the_last_byte(gateway)


@_needs_translator
async def test_a_request_that_envoy_sends_elsewhere_counts_there(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    """Envoy Gateway learns of a pod later than the router."""
    pods = [EchoPod("one", ("a1",)), EchoPod("two")]
    service = (namespace, "base")

    def forget_first(config: Document) -> None:
        [locality] = cluster_of(config, "httproute/")["loadAssignment"]["endpoints"]
        del locality["lbEndpoints"][0]

    values = gateway_values(service)
    async with installed(
        *(kube, admin, releases, folder, {service: pods}, values), change=forget_first
    ) as gateway:
        async for _ in stream(gateway, "a1"):
            await until(lambda: in_flight(gateway.app, "two") == 1)
            assert in_flight(gateway.app, "one") == 0
        assert len(pods[1].received) == 1
        await until(lambda: gateway.app.fleet.ledger.total == 0)
