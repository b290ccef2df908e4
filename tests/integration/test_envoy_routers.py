"""The loss of routers, as seen by clients of the gateway: answers that run, and new requests.

``tests/faults`` has more of it, on the built-in transport. Here: over grpcio, and whether requests
are still routed, not only served.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy, free_port
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import gateway, write_pods
from tests.integration.routers import Load, Site, site
from tests.integration.served import Served
from tests.waiting import until

TRIES = 4
MODEL = "only-1"
"""Only one pod serves it. A request for it that another pod gets was not routed, but balanced by
Envoy."""


def pods(count: int = 3) -> list[EchoPod]:
    return [EchoPod(f"vllm-{number}", adapters=(f"only-{number}",)) for number in range(count)]


def balanced_by_envoy(gate: Site) -> int:
    """Return how many requests for ``MODEL`` reached a pod that does not serve it."""
    others = (pod for pod in gate.pods if MODEL not in pod.adapters)
    return sum(MODEL.encode() in request.body for pod in others for request in pod.received)


async def kill_one(gate: Site) -> None:
    """Kill one of two routers, and start it again."""
    await gate.routers[0].end(signal.SIGKILL)
    await asyncio.sleep(2)
    await gate.routers[0].start()
    await gate.until_it_has_routers(2)
    await asyncio.sleep(1)


async def restart_both(gate: Site) -> None:
    """Restart two routers, one after the other."""
    for router in gate.routers:
        await router.end(signal.SIGTERM)
        await asyncio.sleep(0.5)
        await router.start()
        await gate.until_it_has_routers(2)
        await asyncio.sleep(1)


@pytest.mark.parametrize("change", [kill_one, restart_both])
async def test_nothing_is_lost_and_nearly_all_is_routed_while_routers_end(
    tmp_path: Path, change: Callable[[Site], Awaitable[None]]
) -> None:
    # On a busy machine, requests pile up in a router that ends. So one of some runs has to show it.
    shares = []
    for number in range(TRIES):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        async with site(folder, pods(), routers=2, transport="grpcio", patient=True) as gate:
            await gate.until_it_has_routers(2)
            async with gate.running(30, 6.0) as answers, gate.traffic(50, MODEL) as load:
                await asyncio.sleep(1)
                await change(gate)
            assert answers.lost == 0
            if change is restart_both:
                assert load.lost == 0
            shares.append((load.lost + balanced_by_envoy(gate)) / load.sent)
        if shares[-1] <= 0.01:
            return
    pytest.fail(f"shares of requests that were not routed: {shares}")


async def test_the_only_router_is_killed_and_comes_back(tmp_path: Path) -> None:
    async with site(tmp_path, pods(), routers=1, transport="grpcio", patient=True) as gate:
        async with gate.running(30, 5.0) as answers, gate.traffic(50) as load:
            await asyncio.sleep(1)
            await gate.routers[0].end(signal.SIGKILL)
            before = load.statuses[200]
            await asyncio.sleep(2)
            await until(lambda: load.statuses[200] > before)
            await gate.routers[0].start()
            await gate.until_it_has_routers(1)
            await asyncio.sleep(1)
        assert (answers.lost, load.lost) == (0, 0)
        # Requests are routed again: each adapter is served by the only pod that has it.
        again = Load()
        for number in range(3):
            assert await gate.request(again, f"only-{number}") == f"vllm-{number}"


@pytest.mark.parametrize("kind", ["override-host", "original-dst"])
async def test_answers_that_run_are_not_lost_with_the_router(tmp_path: Path, kind: str) -> None:
    async with site(tmp_path, pods(), routers=1, envoy_pods=kind, patient=True) as gate:
        async with gate.running(20, 3.0) as answers:
            await gate.routers[0].end(signal.SIGKILL)
        assert answers.lost == 0


async def test_a_second_signal_ends_the_drain_and_no_answer_is_cut(
    tmp_path: Path, transport: str
) -> None:
    """Envoy ends all streams of a connection whose GOAWAYs name a rising last stream."""
    config = {"transport": transport, "drain_delay_seconds": 0, "drain_timeout_seconds": 30}
    async with site(
        tmp_path, pods(), routers=1, envoy_fail_open=False, patient=True, **config
    ) as gate:
        await gate.until_it_has_routers(1)
        router = gate.routers[0]
        async with gate.running(20, 6.0) as answers:
            router.process.send_signal(signal.SIGTERM)
            # Open streams are waited for, and the gateway has read that no new ones are served.
            await asyncio.sleep(1.5)
            await router.end(signal.SIGTERM)
        assert (answers.cut, answers.lost) == (0, 0)


async def test_a_name_stands_for_all_its_addresses_and_those_that_answer_are_used(
    tmp_path: Path,
) -> None:
    """``localhost`` is also ``::1``, where this router does not listen."""
    port = free_port()
    config = {"grpc_port": port, "envoy_router_address": f"localhost:{port}"}
    async with gateway(tmp_path, pods(), patient=False, **config) as gate:
        for _ in range(5):
            response, _ = await gate.post({"model": MODEL})
            assert (response.status, response.headers["x-pod"]) == (200, "vllm-1")


async def test_an_envoy_that_starts_before_the_router_learns_the_pods_from_it(
    tmp_path: Path, transport: str
) -> None:
    async with EchoPod("vllm-0") as pod, aiohttp.ClientSession() as client:
        write_pods(tmp_path / "pods.yaml", [pod])
        served = Served(tmp_path, {"transport": transport})
        settings = load_settings(file=served.file, environ={}, flags={}).settings
        async with Envoy(bootstrap_yaml(settings), tmp_path) as envoy:
            url = f"http://127.0.0.1:{envoy.port}/v1/completions"
            async with client.post(url, json={"model": "base"}) as response:
                assert response.status == 503
                assert (await response.json())["error"]["code"] == "no_pod_available"
            async with served.run():
                await served.until_ready()
                # Envoy tries to reach the router once a second.
                async with asyncio.timeout(60):
                    while await envoy.stat("cluster.pods.membership_total") != 1:
                        await asyncio.sleep(0.05)
                async with client.post(url, json={"model": "base"}) as response:
                    assert response.status == 200
