"""The debug pages show all processes that act as one: workers, and peers."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.routers import Load
from tests.integration.served import Served
from tests.integration.test_hosts import all_are_peers, echoing, gateway, running
from tests.integration.test_hosts import until as until_peers
from tests.integration.test_workers import two_workers

REQUESTS = 40


async def page(served: Served, name: str) -> dict[str, Any]:
    url = f"http://127.0.0.1:{served.admin_port}/debug/{name}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200, await response.text()
        found: dict[str, Any] = await response.json()
    return found


async def until(served: Served, name: str, is_so: Callable[[dict[str, Any]], bool]) -> None:
    found: dict[str, Any] = {}
    try:
        async with asyncio.timeout(60):
            while not is_so(found := await page(served, name)):
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"{name}: {found}")


async def test_the_pages_of_workers_are_merged(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as gate:
        served = gate.routers[0].served
        load = Load()
        for _ in range(REQUESTS):
            await gate.request(load, "only-1")
        assert load.lost == 0

        # A worker that is busy for long is missing on a page, so each page is asked for again.
        await until(served, "decisions", lambda found: len(found["decisions"]) == REQUESTS + 1)
        await until(
            served,
            "routers",
            lambda found: (
                len(found["routers"]) == 2
                and found["unreachable"] == []
                and sum(each["decisions"] for each in found["routers"]) == REQUESTS + 1
            ),
        )
        names = ["vllm-0", "vllm-1", "vllm-2"]
        await until(
            served, "pods", lambda found: sorted(each["name"] for each in found["pods"]) == names
        )


async def test_each_host_shows_the_routers_and_pods_of_all(tmp_path: Path) -> None:
    async with echoing(tmp_path) as (echo_pods, file), running(tmp_path, file, [2, 1]) as hosts:
        await until_peers(all_are_peers(3), hosts)
        async with gateway(tmp_path, hosts[0], echo_pods) as gate:
            load = Load()
            for _ in range(REQUESTS):
                await gate.request(load)
            assert load.lost == 0

            for host in hosts:
                served = host.served
                await until(served, "routers", lambda found: len(found["routers"]) == 3)
                await until(served, "decisions", lambda found: len(found["decisions"]) == REQUESTS)
                await until(served, "pods", lambda found: len(found["pods"]) == 3)
