"""From the chart's values to a routed request, through Envoy Gateway's own translation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from lora_router.app import App
from tests.chart.rendering import render
from tests.envoy import Envoy, free_port
from tests.integration.certificates import Certificates
from tests.integration.echo_pod import EchoPod
from tests.kube.binaries import GATEWAY_TRANSLATOR, why_not
from tests.kube.gateway_config import (
    Document,
    bootstrap,
    connection_manager,
    refusals,
    translate,
)
from tests.kube.installed import Releases, install_router
from tests.kube.server import KubeClient, KubeServer

_missing = why_not(GATEWAY_TRANSLATOR)
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(_missing is not None, reason=str(_missing)),
    pytest.mark.usefixtures("resources"),
]


def values(**changes: object) -> dict[str, Any]:
    ours = {"createGateway": True, "gatewayName": "llm", "gatewayPort": free_port()}
    return {"gateway": {"mode": "envoy-gateway", "envoyGateway": ours | changes}}


@dataclass
class Gateway:
    """A client of an Envoy that Envoy Gateway configured, and the servers behind it."""

    envoy: Envoy
    app: App
    client: aiohttp.ClientSession

    async def post(self, body: Any, headers: dict[str, str] | None = None) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.envoy.port}/v1/chat/completions"
        async with self.client.post(url, json=body, headers=headers) as response:
            await response.read()
            return response.status, response.headers.get("x-pod", "")


@asynccontextmanager
async def installed(
    kube: KubeServer,
    admin: KubeClient,
    releases: Releases,
    folder: Path,
    pods: list[EchoPod],
    *,
    without: str = "",
    certificates: Certificates | None = None,
    **seconds: str,
) -> AsyncIterator[Gateway]:
    """Install the chart, and run the router and an Envoy as it specifies.

    Args:
        without: A kind of object that Envoy Gateway does not look at.
        certificates: For TLS between the two.
        seconds: Times in Envoy's call of the router that are set otherwise.
    """
    given, flags = values(), {}
    if certificates is not None:
        given["tls"] = {
            "secretName": "router-tls",
            "caConfigMapName": "ca",
            "hostname": "localhost",
        }
        flags = {
            "grpc_tls_cert_file": str(certificates.certificate),
            "grpc_tls_key_file": str(certificates.key),
        }
    async with AsyncExitStack() as stack:
        app = await install_router(kube, admin, releases, folder, given, flags)
        release = releases.get_all("mine")
        namespace = release["summary"]["namespace"]
        for pod in pods:
            await stack.enter_async_context(pod)
            port = pod.address.rpartition(":")[2]
            labels = {"model.aibrix.ai/name": "base", "model.aibrix.ai/port": port}
            await admin.pod(namespace, pod.name, labels=labels)
        stack.push_async_callback(app.stop)
        await app.start()
        documents = [
            document
            for document in render(release["config"], release="mine", namespace=namespace)
            if document["kind"] != without
        ]
        ca = ""
        if certificates is not None:
            ca = certificates.client_ca.read_text()
            documents.append(authority(namespace, ca))
        translated = await translate(documents, folder, "xds")
        config = bootstrap(translated, f"{namespace}/llm", free_port(), ca=ca)
        for name, text in seconds.items():
            processor(config)["grpcService"][name] = text
        envoy = await stack.enter_async_context(Envoy(yaml.safe_dump(config), folder))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield Gateway(envoy, app, client)


def authority(namespace: str, ca: str) -> Document:
    """Return the ConfigMap with the authority that Envoy trusts."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "ca", "namespace": namespace},
        "data": {"ca.crt": ca},
    }


def processor(config: Document) -> Document:
    [listener] = config["static_resources"]["listeners"]
    first, _ = connection_manager(listener)["httpFilters"]
    found: Document = first["typedConfig"]
    assert found["@type"].endswith("ExternalProcessor")
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hostnames": ["llm.example.test"], "pathPrefixes": ["/v1", "/tokenize"]},
        {"gatewayNamespace": "gateways"},
        {"createClientTrafficPolicy": False},
    ],
    ids=["as it comes", "hosts and paths", "a Gateway elsewhere", "no ClientTrafficPolicy"],
)
async def test_envoy_gateway_accepts_all_of_it(changes: dict[str, object], folder: Path) -> None:
    documents = render(values(**changes))

    assert refusals(await translate(documents, folder, "gateway-api")) == []
    [(name, translated)] = (await translate(documents, folder, "xds"))["xds"].items()
    config = bootstrap({"xds": {name: translated}}, name, free_port())
    [listener] = config["static_resources"]["listeners"]
    hosts = connection_manager(listener)["routeConfig"]["virtualHosts"]
    clusters = {route["route"]["cluster"] for host in hosts for route in host["routes"]}
    assert clusters == {"test-lora-router-pods"}
    assert processor(config)["maxMessageTimeout"] == "35s"


async def test_a_request_for_an_adapter_goes_to_its_pod(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    pods = [EchoPod("one", ("a1",)), EchoPod("two", ("a2",))]
    async with installed(kube, admin, releases, folder, pods) as gateway:
        assert await gateway.post({"model": "a2"}) == (200, "two")
        assert await gateway.post({"model": "a1"}) == (200, "one")
        assert (await gateway.post({"model": "unknown"}))[0] == 404

        # A large prompt, and a client that sends an address.
        assert await gateway.post({"model": "a1", "prompt": "x" * 8_000_000}) == (200, "one")
        stolen = {"target-pod": "127.0.0.1:1", "x-gateway-destination-endpoint": "127.0.0.1:1"}
        assert await gateway.post({"model": "a1"}, stolen) == (200, "one")
        [address] = pods[0].received[-1].header("target-pod")
        assert address == pods[0].address

        # A pod that is no longer ready receives no requests; a new one does.
        await admin.pod_status(namespace, "two", ip="127.0.0.1", ready=False)
        await until_status(gateway, {"model": "a2"}, 503)
        await admin.pod_status(namespace, "two", ip="127.0.0.1", ready=True)
        await until_status(gateway, {"model": "a2"}, 200)


async def test_envoy_gateway_calls_the_router_over_tls(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    pods = [EchoPod("one", ("a1",)), EchoPod("two", ("a2",))]
    certificates = Certificates(folder)
    async with installed(kube, admin, releases, folder, pods, certificates=certificates) as gateway:
        assert await gateway.post({"model": "a2"}) == (200, "two")
        assert await gateway.post({"model": "a1"}) == (200, "one")


async def test_the_router_is_told_of_a_request_until_its_end(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    """Envoy Gateway sets a timeout for the call to the router, which does not limit its stream."""
    pods = [EchoPod("one", ("a1",))]
    async with installed(kube, admin, releases, folder, pods, timeout="0.5s") as gateway:
        body = {"model": "a1", "tokens": 4, "pause": 0.5}
        asking = asyncio.create_task(gateway.post(body))
        await asyncio.sleep(1.2)
        assert gateway.app.fleet.ledger.total == 1
        assert await asking == (200, "one")
        async with asyncio.timeout(5):
            while gateway.app.fleet.ledger.total:
                await asyncio.sleep(0.01)


async def test_without_the_router_nothing_gets_through(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    pods = [EchoPod("one", ("a1",))]
    async with installed(kube, admin, releases, folder, pods) as gateway:
        assert await gateway.post({"model": "a1"}) == (200, "one")
        await gateway.app.stop()
        stolen = {"target-pod": pods[0].address}
        assert (await gateway.post({"model": "a1"}, stolen))[0] >= 500
        assert len(pods[0].received) == 1


async def test_where_patches_are_off_requests_are_refused(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    """Requests reach the router's own port, which serves no models (docs/kubernetes.md)."""
    pods = [EchoPod("one", ("a1",))]
    async with installed(
        kube, admin, releases, folder, pods, without="EnvoyPatchPolicy"
    ) as gateway:
        stolen = {"target-pod": pods[0].address}
        assert (await gateway.post({"model": "a1"}, stolen))[0] == 415
        assert (await gateway.post({"model": "unknown"}, stolen))[0] == 404
        assert pods[0].received == []


async def until_status(gateway: Gateway, body: Document, status: int) -> None:
    async with asyncio.timeout(10):
        while (await gateway.post(body))[0] != status:
            await asyncio.sleep(0.05)
