"""Two routers behind one Envoy: with peering they place adapters as one router would."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import yaml

from lora_router.app import App
from lora_router.config.settings import Settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.simulated_pod import PodOptions, SimulatedPod
from tests.envoy import Envoy, free_port
from tests.waiting import until

PODS = 8
ADAPTERS = tuple(f"lora-{number}" for number in range(PODS))
TOKENS = 8_000
"""Each takes 30 ms, so that all requests of a test overlap: none ends before the test does."""
TRIES = 4
"""Routers that are alone miss each other by chance in one of 70 tries."""


@asynccontextmanager
async def site(
    folder: Path, *, peering: bool
) -> AsyncIterator[tuple[list[SimulatedPod], list[App], str]]:
    """Run pods with one slot each, two routers, and an Envoy that calls both."""
    async with AsyncExitStack() as stack:
        pods = [
            await stack.enter_async_context(
                SimulatedPod(
                    PodOptions(
                        name=f"pod-{number}",
                        adapters=("warm", *ADAPTERS),
                        engine=EngineOptions(max_loras=4, step_seconds=0.03, disk_load_seconds=0.1),
                    )
                )
            )
            for number in range(PODS)
        ]
        # From now on their metrics tell how many slots they have.
        for pod in pods:
            await complete(f"http://{pod.address}", "warm", tokens=1)
        listed = [{"name": pod.options.name, "address": pod.address} for pod in pods]
        (folder / "pods.yaml").write_text(yaml.safe_dump({"pods": listed}))
        ports = [free_port(), free_port()]
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        all_settings = [
            Settings(
                endpoints=folder / "pods.yaml",
                grpc_host="127.0.0.1",
                grpc_port=port,
                admin_port=0,
                peers=addresses if peering else None,
                # Scrapes after the first ones tell nothing within the test.
                pod_metric_refresh_interval_ms=3_600_000,
                metrics_max_age_seconds=3600,
                drain_timeout_seconds=0.5,
                envoy_router_address=addresses,
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
        envoy = await stack.enter_async_context(
            Envoy(bootstrap_yaml(all_settings[0]), folder, patient=True)
        )
        if peering:
            await until(lambda: all(app.peering and app.peering.hub.peers for app in apps))
        yield pods, apps, f"http://127.0.0.1:{envoy.port}"


async def complete(url: str, adapter: str, tokens: int = TOKENS) -> None:
    async with (
        aiohttp.ClientSession() as client,
        client.post(
            f"{url}/v1/completions",
            json={"model": adapter, "prompt": "x", "max_tokens": tokens},
        ) as response,
    ):
        await response.read()
        assert response.status == 200


async def slot_conflicts(folder: Path, *, peering: bool) -> int:
    """Send a request for each adapter; return how many went to a pod whose slot was taken."""
    folder.mkdir()
    async with site(folder, peering=peering) as (pods, apps, url):

        def known() -> int:
            """Return how many requests the routers know of, their own and those of peers."""
            own = sum(state.in_flight for app in apps for state in app.fleet)
            return own + sum(app.peering.hub.load().requests for app in apps if app.peering)

        before = [pod.engine.loads for pod in pods]
        requests = []
        for number, adapter in enumerate(ADAPTERS, 1):
            requests.append(asyncio.create_task(complete(url, adapter)))
            routers_that_know = len(apps) if peering else 1
            await until(lambda count=number * routers_that_know: known() == count)  # type: ignore[misc]

        def loads() -> list[int]:
            return [pod.engine.loads - count for pod, count in zip(pods, before, strict=True)]

        await until(lambda: sum(loads()) == len(ADAPTERS))
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
    return sum(max(0, count - 1) for count in loads())


async def test_peers_place_adapters_like_one_router_and_routers_that_are_alone_do_not(
    tmp_path: Path,
) -> None:
    assert await slot_conflicts(tmp_path / "together", peering=True) == 0
    # Each of the two places four adapters on eight pods.
    for number in range(TRIES):
        if await slot_conflicts(tmp_path / f"alone-{number}", peering=False):
            return
    raise AssertionError(f"routers that are alone did not meet on a pod in {TRIES} tries")
