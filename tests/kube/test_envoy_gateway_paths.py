"""Paths and upgrades behind Envoy Gateway: as the printed Envoy configuration has them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from tests.chart.rendering import render
from tests.envoy import free_port
from tests.integration.echo_pod import EchoPod
from tests.kube.binaries import GATEWAY_TRANSLATOR, why_not
from tests.kube.gateway_config import (
    bootstrap,
    connection_manager,
    processor,
    routes_of,
    translate,
)
from tests.kube.gateway_install import gateway_values, installed
from tests.kube.installed import Releases
from tests.kube.server import KubeClient, KubeServer
from tests.waiting import until

_missing = why_not(GATEWAY_TRANSLATOR)
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(_missing is not None, reason=str(_missing)),
    pytest.mark.usefixtures("resources"),
]

PODS = {("models", "base"): ["127.0.0.1:8001"]}


async def test_paths_are_normalised_and_upgrades_allowed(folder: Path) -> None:
    documents = render(gateway_values(("models", "base")))
    found = await translate(documents, folder, PODS)
    config = bootstrap(found, free_port())

    [listener] = config["static_resources"]["listeners"]
    manager = connection_manager(listener)
    assert manager["normalizePath"] is True
    assert manager["mergeSlashes"] is True
    assert manager["pathWithEscapedSlashesAction"] == "UNESCAPE_AND_FORWARD"
    for route in routes_of(config):
        kinds = [each["upgradeType"] for each in route["route"]["upgradeConfigs"]]
        assert kinds == ["websocket"]
    # With it, the router lets Envoy leave a body alone that nobody has to read.
    assert processor(config)["allowModeOverride"] is True


@pytest.mark.parametrize(
    "path", ["/v1/chat%2Fcompletions", "//v1//chat/completions", "/v1/x/../chat/completions"]
)
async def test_a_path_is_routed_as_the_pod_reads_it(
    path: str,
    kube: KubeServer,
    admin: KubeClient,
    namespace: str,
    releases: Releases,
    folder: Path,
) -> None:
    pods = [EchoPod("one", ("a1",)), EchoPod("two", ("a2",))]
    service = (namespace, "base")
    values = gateway_values(service)
    async with installed(kube, admin, releases, folder, {service: pods}, values) as gateway:
        url = URL(f"http://127.0.0.1:{gateway.envoy.port}{path}", encoded=True)
        for model, pod in (("a1", "one"), ("a2", "two")):
            async with gateway.client.post(url, json={"model": model}) as response:
                assert (response.status, response.headers["x-pod"]) == (200, pod)
        assert {each.path for pod in pods for each in pod.received} == {"/v1/chat/completions"}


class SpeakingPod(EchoPod):
    """Answers messages of a WebSocket with its name."""

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        opened = web.WebSocketResponse()
        await opened.prepare(request)
        async for message in opened:
            await opened.send_str(f"{self.name}: {message.data}")
        return opened


async def test_a_websocket_reaches_the_pod_of_its_model_and_counts_while_it_is_open(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    pods: list[EchoPod] = [SpeakingPod("one", ("a1",)), SpeakingPod("two", ("a2",))]
    service = (namespace, "base")
    values = gateway_values(service)
    async with installed(kube, admin, releases, folder, {service: pods}, values) as gateway:
        url = f"http://127.0.0.1:{gateway.envoy.port}/v1/realtime"
        for model, pod in (("a1", "one"), ("a2", "two")):
            async with (
                asyncio.timeout(60),
                gateway.client.ws_connect(f"{url}?model={model}") as opened,
            ):
                await opened.send_str("hello")
                assert await opened.receive_str() == f"{pod}: hello"
                assert gateway.app.fleet.ledger.total == 1
            await until(lambda: gateway.app.fleet.ledger.total == 0, 60)


class WaitingPod(EchoPod):
    """Says when a request begins to arrive."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.began = asyncio.Event()

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        self.began.set()
        return await super()._echo(request)


async def test_a_body_that_nobody_reads_is_not_buffered(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    pod = WaitingPod("one")
    service = (namespace, "base")
    values = gateway_values(service)
    piece, pieces = bytes(8 * 1024 * 1024), 5  # More than Envoy's buffer holds.
    async with installed(kube, admin, releases, folder, {service: [pod]}, values) as gateway:

        async def body() -> AsyncIterator[bytes]:
            yield piece
            # Envoy keeps what arrives before the router's answer to the headers.
            async with asyncio.timeout(60):
                await pod.began.wait()
            for _ in range(pieces - 1):
                yield piece

        url = f"http://127.0.0.1:{gateway.envoy.port}/v1/files"
        async with gateway.client.post(url, data=body()) as response:
            assert response.status == 200
        assert len(pod.received[-1].body) == pieces * len(piece)
