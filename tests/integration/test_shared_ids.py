"""Routers and workers tell each other which pod made which ID, with real Envoys before them."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from lora_router.app import App
from lora_router.config.settings import Settings
from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy, free_port
from tests.integration.gateway import write_pods
from tests.integration.id_pod import IdPod
from tests.integration.routers import site
from tests.waiting import until

pytestmark = pytest.mark.envoy

CHAINS = 6


def pods() -> list[IdPod]:
    return [IdPod(f"pod-{number}", ("sql",)) for number in range(4)]


async def check(client: aiohttp.ClientSession, urls: Sequence[str]) -> None:
    """Make responses through one gateway and use them at once through the next one."""
    for chain in range(CHAINS):
        makes, uses = urls[chain % len(urls)], urls[(chain + 1) % len(urls)]
        async with asyncio.timeout(60):
            # A router that does not run for a while tells late what it learned.
            while not await is_known_at_once(client, makes, uses):
                pass


async def is_known_at_once(client: aiohttp.ClientSession, makes: str, uses: str) -> bool:
    """Make a response through one gateway. Return whether another one knows its ID at once."""
    document = {"model": "sql", "input": "x"}
    async with client.post(f"{makes}/v1/responses", json=document) as response:
        assert response.status == 200, await response.text()
        made, pod = (await response.json())["id"], response.headers["x-pod"]
    document["previous_response_id"] = made
    async with client.post(f"{uses}/v1/responses", json=document) as response:
        if response.status == 404:
            assert (await response.json())["error"]["code"] == "response_not_found"
            return False
        assert response.status == 200, await response.text()
        assert response.headers["x-pod"] == pod
    async with client.get(f"{uses}/v1/responses/{made}") as response:
        assert response.headers["x-pod"] == pod
    return True


async def test_an_id_that_one_router_learned_is_known_to_its_peer(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        served = [await stack.enter_async_context(pod) for pod in pods()]
        write_pods(tmp_path / "pods.yaml", served)
        ports = [free_port(), free_port()]
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        all_settings = [
            Settings(
                endpoints=tmp_path / "pods.yaml",
                grpc_host="127.0.0.1",
                grpc_port=port,
                admin_port=0,
                peers=addresses,
                drain_timeout_seconds=0.5,
                envoy_router_address=f"127.0.0.1:{port}",
                envoy_listen_host="127.0.0.1",
                envoy_listen_port=free_port(),
                envoy_admin_port=free_port(),
            )
            for port in ports
        ]
        apps = [App(settings) for settings in all_settings]
        for app in apps:
            stack.push_async_callback(app.stop)
        await asyncio.gather(*(app.start() for app in apps))
        for app in apps:
            peering = app.peering
            assert peering is not None
            await until(lambda hub=peering.hub: bool(hub.peers), 60)  # type: ignore[misc]
            await until(
                lambda fleet=app.fleet: all(state.models_known for state in fleet),  # type: ignore[misc]
                60,
            )
        envoys = [
            await stack.enter_async_context(Envoy(bootstrap_yaml(settings), tmp_path, patient=True))
            for settings in all_settings
        ]
        client = await stack.enter_async_context(aiohttp.ClientSession())

        await check(client, [f"http://127.0.0.1:{envoy.port}" for envoy in envoys])


async def test_an_id_that_one_worker_learned_is_known_to_the_other(tmp_path: Path) -> None:
    async with site(tmp_path, pods(), routers=1, patient=True, workers=2) as gate:
        settings = load_settings(
            file=gate.routers[0].served.file,
            environ={},
            flags={
                "envoy_router_address": gate.routers[0].address,
                "envoy_listen_port": free_port(),
                "envoy_admin_port": free_port(),
            },
        ).settings
        # Its connection goes to the worker that has none.
        async with Envoy(bootstrap_yaml(settings), tmp_path, patient=True) as second:
            urls = [f"http://127.0.0.1:{envoy.port}" for envoy in (gate.envoy, second)]
            for url in urls:  # Each opens its connection.
                async with gate.client.get(f"{url}/v1/models") as response:
                    assert json.loads(await response.read())["data"]

            await check(gate.client, urls)
