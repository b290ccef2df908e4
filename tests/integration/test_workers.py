"""A router with several workers, as real processes behind a real Envoy."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.envoy import free_port
from tests.integration.certificates import Certificates
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import write_pods
from tests.integration.routers import Load, Site, site
from tests.integration.served import Served
from tests.integration.test_certificate_renewal import presented, renew
from tests.integration.test_envoy_tls import settings_of
from tests.integration.test_signals import lines

MODEL = "only-1"
"""Only one pod serves it. A request for it that another pod gets was not routed, but balanced by
Envoy."""
ANSWERS = 150
"""More than an Envoy puts on one connection, so that it opens a second one."""


def pods(count: int = 3) -> list[EchoPod]:
    return [EchoPod(f"vllm-{number}", adapters=(f"only-{number}",)) for number in range(count)]


async def workers(served: Served) -> dict[str, dict[str, Any]]:
    """What ``/readyz`` says of the workers, by number."""
    _, page = await served.readiness()
    found = page.get("workers", {})
    assert isinstance(found, dict)
    return found


async def until(
    condition: Callable[[dict[str, dict[str, Any]]], bool], served: Served, seconds: float = 60
) -> None:
    async with asyncio.timeout(seconds):
        while not condition(await workers(served)):
            await asyncio.sleep(0.05)


def both_serve(found: dict[str, dict[str, Any]]) -> bool:
    return len(found) == 2 and all(each["streams"] > 20 for each in found.values())


def all_ready(found: dict[str, dict[str, Any]]) -> bool:
    return len(found) == 2 and all(each["ready"] for each in found.values())


async def both_serve_soon(served: Served) -> bool:
    with suppress(TimeoutError):
        await until(both_serve, served, seconds=5)
        return True
    return False


async def page(served: Served) -> list[str]:
    url = f"http://127.0.0.1:{served.admin_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return (await response.text()).splitlines()


async def metric(served: Served, series: str) -> float:
    lines = await page(served)
    return sum(float(line.split()[-1]) for line in lines if line.startswith(series))


def runs(pid: int) -> bool:
    """Return whether a process runs, and is not just waited for by nobody."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def until_gone(pids: list[int]) -> None:
    async with asyncio.timeout(60):
        while any(map(runs, pids)):
            await asyncio.sleep(0.05)


@asynccontextmanager
async def two_workers(tmp_path: Path, **config: object) -> AsyncIterator[Site]:
    """Run pods, a router with two workers, and an Envoy that knows what the router allows."""
    async with site(tmp_path, pods(), routers=1, workers=2, **config) as gate:
        # Until its first answer, an Envoy does not know how many streams a connection may have.
        assert await gate.request(Load(), MODEL) == "vllm-1"
        for pod in gate.pods:
            pod.received.clear()
        yield gate


@asynccontextmanager
async def running(gate: Site) -> AsyncIterator[Load]:
    """Run many answers in both workers, which end when the block does.

    A worker that stalls for a while gets no connection. Then further answers open one more.
    """
    load, served = Load(), gate.routers[0].served
    async with asyncio.TaskGroup() as group:
        async with asyncio.timeout(60):
            while not load.sent or not await both_serve_soon(served):
                for _ in range(ANSWERS):
                    group.create_task(gate.request(load, tokens=1, pause=0, waits=True))
                await asyncio.sleep(0)
                while load.statuses.total() < load.sent:
                    await asyncio.sleep(0.01)
        yield load
        for pod in gate.pods:
            pod.may_end.set()


def balanced_by_envoy(gate: Site) -> int:
    """Return how many requests for ``MODEL`` reached a pod that does not serve it."""
    others = (pod for pod in gate.pods if MODEL not in pod.adapters)
    return sum(MODEL.encode() in request.body for pod in others for request in pod.received)


async def test_requests_spread_over_the_workers_and_their_metrics_are_added_up(
    tmp_path: Path,
) -> None:
    async with two_workers(tmp_path) as gate:
        served = gate.routers[0].served
        assert all_ready(await workers(served))
        async with running(gate) as answers:
            assert await metric(served, "lora_router_open_streams") == answers.sent
            assert await metric(served, "lora_router_in_flight_requests") == answers.sent
            load = Load()
            assert {await gate.request(load, MODEL) for _ in range(20)} == {"vllm-1"}
        assert (answers.lost, load.lost) == (0, 0)
        assert await metric(served, "lora_router_requests_total{") == answers.sent + 21
        assert await metric(served, "lora_router_pods{") == 3
        assert await metric(served, "lora_router_ready_workers") == 2


async def test_workers_of_one_router_are_no_remote_peers(tmp_path: Path) -> None:
    """Otherwise nothing would show that routers with several workers do not find each other."""
    nobody = f"127.0.0.1:{free_port()}"
    async with site(tmp_path, pods(1), routers=1, workers=2, peers=nobody) as gate:
        served = gate.routers[0].served
        async with asyncio.timeout(60):
            while await metric(served, "lora_router_peers ") != 1:
                await asyncio.sleep(0.05)

        assert "lora_router_remote_peers 0.0" in await page(served)


async def test_a_worker_that_is_killed_is_started_again_and_costs_no_answer(
    tmp_path: Path,
) -> None:
    async with two_workers(tmp_path) as gate:
        served = gate.routers[0].served
        async with running(gate) as answers, gate.traffic(50, MODEL) as load:
            before = await metric(served, "lora_router_requests_total{")
            killed = (await workers(served))["1"]["pid"]
            os.kill(killed, signal.SIGKILL)
            async with asyncio.timeout(60):
                while (answer := await served.readiness())[1]["worker_restarts"] != 1:
                    await asyncio.sleep(0.02)
            assert answer[0] == 200
            await until(all_ready, served)
            assert (await workers(served))["1"]["pid"] != killed
            # Counters do not fall when a worker ends.
            assert await metric(served, "lora_router_requests_total{") >= before
            await asyncio.sleep(1)
        assert answers.lost == 0
        assert load.lost + balanced_by_envoy(gate) <= load.sent * 0.05
        assert await metric(served, "lora_router_worker_restarts_total") == 1
        async with asyncio.timeout(60):
            while await metric(served, "lora_router_open_streams"):
                await asyncio.sleep(0.05)
        assert await metric(served, "lora_router_reservations") == 0


async def test_a_worker_that_hangs_does_not_get_connections_and_is_named(tmp_path: Path) -> None:
    async with EchoPod("vllm-0") as pod:
        write_pods(tmp_path / "pods.yaml", [pod])
        served = Served(tmp_path, {"workers": 2})
        async with served.run():
            await served.until_ready()
            stopped = (await workers(served))["2"]["pid"]
            os.kill(stopped, signal.SIGSTOP)
            async with asyncio.timeout(60):
                # On a starved machine, the other one can be late too.
                while True:
                    status, page = await served.readiness()
                    reason = str(page["reason"])
                    if reason.startswith("ready; worker 2 is not ready: no report for"):
                        break
                    await asyncio.sleep(0.05)
            assert status == 200
            os.kill(stopped, signal.SIGCONT)
            await until(all_ready, served)


async def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text("pods: []")
    served = Served(tmp_path, {"workers": 2})
    async with served.run() as process:
        await served.until_ready()
        found = await workers(served)
        pids = [each["pid"] for each in found.values()]
        # One that hangs ends too: a thread of it waits for the parent.
        os.kill(process.pid, signal.SIGKILL)
        await until_gone(pids)
    assert b"the parent has ended" in served.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_all_workers(tmp_path: Path, number: signal.Signals) -> None:
    async with two_workers(tmp_path, drain_timeout_seconds=20) as gate:
        router = gate.routers[0]
        pids = [each["pid"] for each in (await workers(router.served)).values()]
        async with gate.running(ANSWERS, 3.0) as answers:
            os.kill(router.process.pid, number)
            async with asyncio.timeout(60):
                assert await router.process.wait() == 0
        assert answers.lost == 0
        await until_gone(pids)
    assert router.served.output.count(b"drained; 0 open streams closed") == 2
    assert b"Traceback" not in router.served.output


async def test_a_hangup_reloads_all_workers_and_a_second_signal_ends_a_drain(
    tmp_path: Path,
) -> None:
    async with two_workers(tmp_path, drain_delay_seconds=300, log_level="warning") as gate:
        router = gate.routers[0]
        file = router.served.file
        file.write_text(file.read_text().replace("warning", "debug"))
        os.kill(router.process.pid, signal.SIGHUP)
        await lines(router.process, "settings reloaded: log_level=debug")
        async with running(gate) as answers:
            os.kill(router.process.pid, signal.SIGTERM)
            await lines(router.process, "received a signal, draining")
            os.kill(router.process.pid, signal.SIGTERM)
            async with asyncio.timeout(60):
                assert await router.process.wait() == 0
        assert answers.lost == 0
    assert b"INFO    worker 1: " in router.served.output
    assert b"INFO    worker 2: " in router.served.output


async def test_pods_that_join_and_leave_reach_the_workers(tmp_path: Path) -> None:
    async with two_workers(tmp_path, models_refresh_interval_seconds=1) as gate:
        served, load = gate.routers[0].served, Load()
        async with EchoPod("vllm-9", adapters=("only-9",)) as other:
            write_pods(tmp_path / "pods.yaml", [*gate.pods, other])
            await until(lambda found: all(w["ready_pods"] == 4 for w in found.values()), served)
            async with asyncio.timeout(60):
                while await gate.request(load, "only-9") != "vllm-9":
                    await asyncio.sleep(0.05)
        write_pods(tmp_path / "pods.yaml", gate.pods)
        await until(lambda found: all(w["pods"] == 3 for w in found.values()), served)


async def test_an_adapter_that_was_just_loaded_is_found_by_another_read(tmp_path: Path) -> None:
    async with two_workers(tmp_path, models_refresh_interval_seconds=300) as gate:
        load = Load()
        await gate.request(load, "new")
        assert load.statuses[404] == 1
        gate.pods[2].adapters = (*gate.pods[2].adapters, "new")
        async with asyncio.timeout(60):  # Lists that are recent are not read again.
            while await gate.request(load, "new") != "vllm-2":
                await asyncio.sleep(0.1)


async def test_a_port_that_is_taken_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text("pods: []")
    served = Served(tmp_path, {"workers": 2})
    (tmp_path / "other").mkdir()
    second = Served(tmp_path / "other", {"workers": 2, "grpc_port": served.grpc_port})
    (tmp_path / "other/pods.yaml").write_text("pods: []")
    async with served.run():
        await served.until_ready()
        async with second.run() as process:
            async with asyncio.timeout(60):
                assert await process.wait() == 1
    assert b"for gRPC (grpc_host, grpc_port): Address already in use" in second.output
    assert b"Traceback" not in second.output


async def test_all_workers_use_a_renewed_certificate(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    (tmp_path / "pods.yaml").write_text("pods: []")
    served = Served(tmp_path, {"workers": 2, **settings_of(certificates, mutual=True)})
    async with served.run() as process:
        await served.until_ready()
        before = await presented(served.grpc_port, certificates)
        renew(certificates, certificates.authority)
        os.kill(process.pid, signal.SIGHUP)
        # New connections go to both workers in turn, because open ones are counted.
        async with asyncio.timeout(60):
            while before in [await presented(served.grpc_port, certificates) for _ in range(4)]:
                await asyncio.sleep(0.1)


async def test_files_that_cannot_be_used_end_the_start(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    (tmp_path / "pods.yaml").write_text("pods: []")
    served = Served(tmp_path, {"workers": 2, **settings_of(certificates, mutual=False)})
    certificates.key.write_text("not a key")
    async with served.run() as process:
        async with asyncio.timeout(60):
            assert await process.wait() == 2
    assert b"Traceback" not in served.output
    assert str(certificates.key).encode() in served.output
