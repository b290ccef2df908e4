"""Declared adapters with several processes: workers of one router, and two routers."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.simulated_pod import PodOptions, SimulatedPod
from tests.envoy import Envoy
from tests.integration.routers import Router

pytestmark = pytest.mark.envoy

ENGINE = EngineOptions(disk_load_seconds=0.02, host_load_seconds=0.0, step_seconds=0.005)


@dataclass
class Fleet:
    """Pods, routers and an Envoy."""

    pods: Sequence[SimulatedPod]
    routers: Sequence[Router]
    envoy: Envoy
    client: aiohttp.ClientSession
    adapters: Path

    def declare(self, *names: str) -> None:
        listed = [
            {"name": name, "base_model": "base", "source": f"/adapters/{name}"} for name in names
        ]
        new = self.adapters.with_suffix(".new")
        new.write_text(yaml.safe_dump({"adapters": listed}))
        new.replace(self.adapters)

    async def ask(self, model: str) -> int:
        url = f"http://127.0.0.1:{self.envoy.port}/v1/completions"
        document = {"model": model, "prompt": "x", "max_tokens": 2}
        async with self.client.post(url, json=document) as response:
            await response.read()
            return response.status

    async def until_served(self, model: str) -> None:
        async with asyncio.timeout(60):
            while await self.ask(model) != 200:
                await asyncio.sleep(0.05)

    def listed(self) -> set[str]:
        return {name for pod in self.pods for name in pod.adapters.roots}


@asynccontextmanager
async def running(
    folder: Path, names: Sequence[str], routers: int, **config: Any
) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(SimulatedPod(PodOptions(f"pod-{n}", engine=ENGINE)))
            for n in range(2)
        ]
        pods = [
            {"name": pod.options.name, "address": pod.address, "max_cpu_loras": 8} for pod in made
        ]
        (folder / "pods.yaml").write_text(yaml.safe_dump({"pods": pods}))
        adapters = folder / "adapters.yaml"
        common = {
            "endpoints": str(folder / "pods.yaml"),
            "adapters_file": str(adapters),
            "drain_timeout_seconds": 1,
            "drain_delay_seconds": 0,
            "pod_metric_refresh_interval_ms": 500,
            **config,
        }
        found = [Router(folder / f"router-{number}", common) for number in range(routers)]
        if routers > 1:
            for router in found:
                document = yaml.safe_load(router.served.file.read_text())
                document["peers"] = ",".join(each.address for each in found)
                router.served.file.write_text(yaml.safe_dump(document))
        for router in found:
            stack.push_async_callback(router.close)
        settings = load_settings(
            file=found[0].served.file,
            environ={},
            flags={"envoy_router_address": ",".join(router.address for router in found)},
        ).settings
        client = await stack.enter_async_context(aiohttp.ClientSession())
        envoy = Envoy(bootstrap_yaml(settings), folder)
        fleet = Fleet(made, found, envoy, client, adapters)
        fleet.declare(*names)
        await asyncio.gather(*(router.start() for router in found))
        await stack.enter_async_context(envoy)
        yield fleet


async def loads(router: Router) -> float:
    """Return how many adapters a router has loaded."""
    url = f"http://127.0.0.1:{router.served.admin_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        lines = (await response.text()).splitlines()
    series = 'lora_router_adapter_calls_total{action="load",outcome="done"} '
    return sum(float(line.split()[-1]) for line in lines if line.startswith(series))


async def test_the_parent_loads_what_requests_in_its_workers_wait_for(tmp_path: Path) -> None:
    async with running(tmp_path, ["a0", "a1"], 1, workers=2) as fleet:
        await fleet.until_served("a0")

        fleet.declare("a0", "a1", "a2")
        await fleet.until_served("a2")
        answers = await asyncio.gather(*(fleet.ask(name) for name in ("a0", "a1", "a2") * 10))

        assert set(answers) == {200}
        fleet.declare("a0")
        async with asyncio.timeout(60):
            while fleet.listed() != {"a0"}:
                await asyncio.sleep(0.05)


async def test_one_of_two_routers_loads_and_the_other_one_takes_over(tmp_path: Path) -> None:
    names = [f"a{number}" for number in range(6)]
    async with running(tmp_path, names, 2) as fleet:
        async with asyncio.timeout(60):
            while fleet.listed() != set(names):
                await asyncio.sleep(0.05)
        assert set(await asyncio.gather(*(fleet.ask(name) for name in names * 4))) == {200}
        # While they do not hear each other, as on a starved machine, both may load.
        for attempt in range(8):
            before = [await loads(router) for router in fleet.routers]
            names.append(f"more-{attempt}")
            fleet.declare(*names)
            await fleet.until_served(names[-1])
            rises = [await loads(each) - n for each, n in zip(fleet.routers, before, strict=True)]
            if min(rises) == 0 < max(rises):
                break
        assert min(rises) == 0 < max(rises)

        first = rises.index(max(rises))
        await fleet.routers[first].end(signal.SIGKILL)
        fleet.declare(*names, "new")
        await fleet.until_served("new")

        other = fleet.routers[1 - first]
        async with asyncio.timeout(60):
            while await loads(other) == before[1 - first]:
                await asyncio.sleep(0.05)
