"""A complete gateway for tests: a real Envoy, the router, pods, and a client."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import aiohttp
import yaml

from lora_router.app import App
from lora_router.config.settings import Settings
from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from lora_router.simulator.simulated_pod import SimulatedPod
from tests.envoy import Envoy, free_port
from tests.integration.echo_pod import EchoPod, Received
from tests.integration.hasty_pod import HastyPod

HOST_MEMORY = 16
"""Adapters that fit into the host memory of a simulated pod."""


@dataclass
class Gateway:
    """A running Envoy, router and pods, and a client for them."""

    pods: Sequence[EchoPod]
    app: App
    envoy: Envoy
    settings: Settings
    client: aiohttp.ClientSession
    pods_file: Path

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self.envoy.port}"

    @property
    def received(self) -> list[Received]:
        """All requests that the pods received, in order of arrival."""
        received = (request for pod in self.pods for request in pod.received)
        return sorted(received, key=lambda request: request.arrival)

    @property
    def in_flight(self) -> int:
        """Requests in flight, from the ledger."""
        return self.app.fleet.ledger.total

    async def post(
        self,
        body: bytes | Mapping[str, object],
        path: str = "/v1/chat/completions",
        headers: dict[str, str] | None = None,
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """Send a request and read the complete response."""
        data = body if isinstance(body, bytes) else None
        document = None if isinstance(body, bytes) else body
        kind = {} if data is None else {"content-type": "application/json"}
        async with self.client.post(
            self.url + path, data=data, json=document, headers=kind | (headers or {})
        ) as response:
            return response, await response.read()

    async def until_envoy_knows(self, pod: EchoPod) -> None:
        """Wait until Envoy has a pod in its list. Until then it sends its requests to others."""
        clusters = f"http://127.0.0.1:{self.envoy.admin_port}/clusters"
        async with asyncio.timeout(60):
            while True:
                async with self.client.get(clusters) as response:
                    if f"::{pod.address}::" in await response.text():
                        return
                await asyncio.sleep(0.01)

    async def raw(self, data: bytes, *, end: bool = False) -> bytes:
        """Write bytes to Envoy and read until it closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.envoy.port)
        try:
            writer.write(data)
            if end:
                writer.write_eof()
            async with asyncio.timeout(60):
                return await reader.read()
        finally:
            writer.close()


def write_pods(path: Path, pods: Sequence[EchoPod | HastyPod | SimulatedPod]) -> None:
    """Write the pods file."""
    listed: list[dict[str, object]] = []
    for pod in pods:
        if isinstance(pod, SimulatedPod):
            listed.append(
                {
                    "name": pod.options.name,
                    "address": pod.address,
                    "max_cpu_loras": HOST_MEMORY,
                }
            )
        else:
            listed.append({"name": pod.name, "address": pod.address})
    path.write_text(yaml.safe_dump({"pods": listed}))


_PORTS = {"grpc_port": 64_701, "envoy_listen_port": 64_702, "envoy_admin_port": 64_703}
"""Ports that stand for those of a gateway in a bootstrap that several gateways share."""
_printed: dict[str, str] = {}


def _bootstrap(settings: Settings) -> str:
    """Return the printed bootstrap of a gateway.

    Printing takes as long as all else of a gateway's start. The gateways of a module often differ
    in nothing but their ports and the file of their pods, which Envoy does not see.
    """
    shared = settings.model_copy(update={**_PORTS, "endpoints": "pods.yaml"})
    key = shared.model_dump_json()
    text = _printed.get(key)
    if text is None:
        text = _printed[key] = bootstrap_yaml(shared)
    for name, port in _PORTS.items():
        if text.count(str(port)) != 1:
            return bootstrap_yaml(settings)
        text = text.replace(str(port), str(getattr(settings, name)))
    return text


@asynccontextmanager
async def gateway(
    tmp_path: Path,
    pods: Sequence[EchoPod | HastyPod | SimulatedPod],
    environ: Mapping[str, str] = MappingProxyType({}),
    bootstrap: Callable[[Settings], str] = bootstrap_yaml,
    /,
    *,
    patient: object = True,
    **changes: object,
) -> AsyncIterator[Gateway]:
    """Start the pods, the router, Envoy and a client. Stop them at the end.

    ``patient``: whether Envoy waits for a router that stalls. As printed, it does not.
    """
    async with AsyncExitStack() as stack:
        for pod in pods:
            await stack.enter_async_context(pod)
        pods_file = tmp_path / "pods.yaml"
        write_pods(pods_file, pods)
        grpc_port = free_port()
        settings = load_settings(
            file=None,
            environ={},
            flags={
                "endpoints": str(pods_file),
                "grpc_host": "127.0.0.1",
                "grpc_port": grpc_port,
                "admin_port": 0,
                "envoy_listen_host": "127.0.0.1",
                "envoy_listen_port": free_port(),
                "envoy_admin_port": free_port(),
                "drain_timeout_seconds": 1.0,
                # A busy machine lets pods, which are of this process, stall.
                "outlier_first_byte_seconds": 600.0,
                **changes,
            },
        ).settings
        app = App(settings, environ)
        stack.push_async_callback(app.stop)
        await app.start()
        printed = _bootstrap(settings) if bootstrap is bootstrap_yaml else bootstrap(settings)
        envoy = await stack.enter_async_context(Envoy(printed, tmp_path, patient=bool(patient)))
        client = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        recording = [pod for pod in pods if isinstance(pod, EchoPod)]
        yield Gateway(recording, app, envoy, settings, client, pods_file)
