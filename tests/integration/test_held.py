"""Requests that wait in the router for a slot, through a real Envoy."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import gateway, write_pods
from tests.integration.served import Served
from tests.waiting import until

ADAPTERS = ("a1", "a2", "a3")


def long_answer(model: str) -> dict[str, object]:
    """Return a request whose answer ends when the pod's ``may_end`` is set."""
    return {"model": model, "tokens": 1, "pause": 0, "waits": True}


async def test_a_request_waits_for_a_slot_and_one_too_many_is_told_to_come_back(
    tmp_path: Path, transport: str
) -> None:
    pod = EchoPod("vllm-0", ADAPTERS, max_lora=1)
    async with gateway(tmp_path, [pod], transport=transport, max_held_requests=1) as gate:
        running = asyncio.create_task(gate.post(long_answer("a1")))
        await until(lambda: gate.in_flight == 1)
        waiting = asyncio.create_task(gate.post({"model": "a2"}))
        await until(lambda: gate.app.director.held == 1)

        refused, body = await gate.post({"model": "a3"})
        assert refused.status == 429
        assert json.loads(body)["error"]["code"] == "too_many_held_requests"
        assert refused.headers["x-error-overloaded"] == "true"
        assert int(refused.headers["retry-after"]) > 0

        pod.may_end.set()
        assert (await running)[0].status == 200
        assert (await waiting)[0].status == 200
    assert [json.loads(each.body)["model"] for each in pod.received] == ["a1", "a2"]


async def test_of_requests_that_wait_the_one_with_the_highest_priority_goes_first(
    tmp_path: Path, transport: str
) -> None:
    pod = EchoPod("vllm-0", ADAPTERS, max_lora=1)
    async with gateway(tmp_path, [pod], transport=transport, priority_header="x-priority") as gate:
        running = asyncio.create_task(gate.post(long_answer("a1")))
        await until(lambda: gate.in_flight == 1)
        low = asyncio.create_task(gate.post({"model": "a2"}, headers={"x-priority": "low"}))
        await until(lambda: gate.app.director.held == 1)
        high = asyncio.create_task(gate.post({"model": "a3"}, headers={"x-priority": "10"}))
        await until(lambda: gate.app.director.held == 2)

        pod.may_end.set()
        assert [(await each)[0].status for each in (running, low, high)] == [200, 200, 200]
        assert gate.app.director.priorities.ignored == 1
    assert [json.loads(each.body)["model"] for each in pod.received] == ["a1", "a3", "a2"]


@dataclass
class Site:
    """A router of its own, a request that runs on the only slot, and one that waits for it."""

    process: asyncio.subprocess.Process
    served: Served
    pod: EchoPod
    running: "asyncio.Task[int]"
    waiting: "asyncio.Task[int]"


@asynccontextmanager
async def one_runs_and_one_waits(
    tmp_path: Path, transport: str, *, drain_seconds: float
) -> AsyncIterator[Site]:
    async with EchoPod("vllm-0", ADAPTERS, max_lora=1) as pod:
        write_pods(tmp_path / "pods.yaml", [pod])
        config: dict[str, object] = {
            "transport": transport,
            "drain_timeout_seconds": drain_seconds,
        }
        served = Served(tmp_path, config)
        settings = load_settings(file=served.file, environ={}, flags={}).settings
        async with served.run() as process, aiohttp.ClientSession() as client:
            await served.until_ready()
            async with Envoy(bootstrap_yaml(settings), tmp_path, patient=True) as envoy:
                url = f"http://127.0.0.1:{envoy.port}/v1/completions"

                async def post(document: dict[str, object]) -> int:
                    async with client.post(url, json=document) as response:
                        await response.read()
                        return response.status

                async def held() -> int:
                    page = f"http://127.0.0.1:{served.admin_port}/metrics"
                    async with client.get(page) as response:
                        lines = (await response.text()).splitlines()
                    (line,) = (each for each in lines if each.startswith("lora_router_held_req"))
                    return int(float(line.split()[-1]))

                running = asyncio.create_task(post(long_answer("a1")))
                await until(lambda: len(pod.received) == 1)
                waiting = asyncio.create_task(post({"model": "a2"}))
                async with asyncio.timeout(60):
                    while await held() == 0:
                        await asyncio.sleep(0.01)
                yield Site(process, served, pod, running, waiting)
                pod.may_end.set()
                assert await running == 200


async def test_a_request_that_waits_at_sigterm_gets_the_slot_that_becomes_free(
    tmp_path: Path, transport: str
) -> None:
    async with one_runs_and_one_waits(tmp_path, transport, drain_seconds=120.0) as site:
        site.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            while (await site.served.readiness())[0] == 200:
                await asyncio.sleep(0.01)
        assert not site.waiting.done()
        site.pod.may_end.set()

        assert await site.waiting == 200
        assert await site.running == 200
        assert await asyncio.wait_for(site.process.wait(), 60) == 0
    assert site.pod.received[-1].header("target-pod") == [site.pod.address]


async def test_a_request_that_waits_at_sigterm_is_decided_before_the_drain_ends(
    tmp_path: Path, transport: str
) -> None:
    async with one_runs_and_one_waits(tmp_path, transport, drain_seconds=2.0) as site:
        site.process.send_signal(signal.SIGTERM)

        assert await site.waiting == 200
        assert not site.running.done()
        # A pod that Envoy chose by itself after the drain would not see who chose it.
        assert site.pod.received[-1].header("target-pod") == [site.pod.address]
        assert await asyncio.wait_for(site.process.wait(), 60) == 0
