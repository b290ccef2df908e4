"""Routers with several workers on several hosts, as real processes: all workers are peers."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy, free_port
from tests.integration.certificates import Certificates
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import write_pods
from tests.integration.routers import Load, Router, Site
from tests.integration.test_scrape_sharing import CountingPod, write_file
from tests.integration.test_workers import metric, workers
from tests.redis_server import RedisProcess

SECRET = "a-secret-of-more-than-16-characters"
ANSWERS = 40


def names(page: dict[str, Any]) -> dict[str, set[str]]:
    """Return the routers of a host, each with its peers, as ``/readyz`` shows them."""
    routers = page.get("workers") or {"": page}
    return {each["router"]: set(each["peers"]) for each in routers.values() if "router" in each}


async def met(hosts: Sequence[Router]) -> dict[str, set[str]]:
    """Return all routers of all hosts with their peers."""
    found: dict[str, set[str]] = {}
    for host in hosts:
        found |= names((await host.served.readiness())[1])
    return found


async def until(condition: Callable[[dict[str, set[str]]], bool], hosts: Sequence[Router]) -> None:
    found: dict[str, set[str]] = {}
    try:
        async with asyncio.timeout(60):
            while not condition(found := await met(hosts)):
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"peers: {found}")


def all_are_peers(count: int) -> Callable[[dict[str, set[str]]], bool]:
    def met_all(found: dict[str, set[str]]) -> bool:
        return len(found) == count and all(
            peers == found.keys() - {router} for router, peers in found.items()
        )

    return met_all


@asynccontextmanager
async def running(
    folder: Path, pods: Path, counts: Sequence[int], **config: object
) -> AsyncIterator[list[Router]]:
    """Run a host for each number of workers."""
    async with AsyncExitStack() as stack:
        ports = [free_port() for _ in counts]
        common: dict[str, object] = {
            "endpoints": str(pods),
            "drain_timeout_seconds": 5,
            "peers": ",".join(f"127.0.0.1:{port}" for port in ports),
            **config,
        }
        if common["peers"] is None:
            del common["peers"]
        hosts = []
        for number, (port, count) in enumerate(zip(ports, counts, strict=True)):
            values = {**common, "grpc_port": port, "workers": count}
            host = Router(folder / f"host-{number}", values)
            host.served.grpc_port = port
            stack.push_async_callback(host.close)
            hosts.append(host)
        await asyncio.gather(*(host.start() for host in hosts))
        yield hosts


@asynccontextmanager
async def echoing(folder: Path) -> AsyncIterator[tuple[list[EchoPod], Path]]:
    """Run pods; yield them with the file that lists them."""
    async with AsyncExitStack() as stack:
        pods = [EchoPod(f"vllm-{number}") for number in range(3)]
        for pod in pods:
            await stack.enter_async_context(pod)
        file = folder / "pods.yaml"
        write_pods(file, pods)
        yield pods, file


def secret_of(folder: Path) -> dict[str, object]:
    file = folder / "secret"
    file.write_text(SECRET)
    return {"peer_secret_file": str(file)}


@asynccontextmanager
async def gateway(folder: Path, host: Router, pods: Sequence[EchoPod]) -> AsyncIterator[Site]:
    """Run an Envoy that knows one host only."""
    settings = load_settings(
        file=host.served.file, environ={}, flags={"envoy_router_address": host.address}
    ).settings
    async with (
        Envoy(bootstrap_yaml(settings), folder) as envoy,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client,
    ):
        yield Site(pods, [host], envoy, client)


async def check_that_hosts_work_together(
    folder: Path, hosts: list[Router], pods: Sequence[EchoPod]
) -> None:
    one, other = hosts
    await until(all_are_peers(4), hosts)

    # What one host has in flight, the other one knows.
    async with gateway(folder, one, pods) as gate, asyncio.TaskGroup() as group:
        load = Load()
        assert await gate.request(load)
        for _ in range(ANSWERS):
            group.create_task(gate.request(load, tokens=1, pause=0, waits=True))
        in_flight = "lora_router_peer_in_flight_requests"
        async with asyncio.timeout(60):
            while await metric(other.served, in_flight) != ANSWERS:
                await asyncio.sleep(0.05)
        assert await metric(other.served, "lora_router_in_flight_requests") == 0
        for pod in pods:
            pod.may_end.set()
    assert load.lost == 0
    async with asyncio.timeout(60):
        while await metric(other.served, in_flight):
            await asyncio.sleep(0.05)

    # A worker that is killed is forgotten by all, and the one in its place is met by all.
    before = await workers(other.served)
    killed = before["1"]["router"]
    os.kill(before["1"]["pid"], signal.SIGKILL)
    await until(lambda found: not any(killed in peers for peers in found.values()), hosts)
    await until(all_are_peers(4), hosts)

    # A host that stops is forgotten.
    await other.end(signal.SIGTERM)
    await until(all_are_peers(2), [one])
    assert (await one.served.readiness())[0] == 200


async def test_all_workers_of_two_hosts_are_peers_over_the_mesh(tmp_path: Path) -> None:
    async with (
        echoing(tmp_path) as (pods, file),
        running(tmp_path, file, [2, 2], **secret_of(tmp_path)) as hosts,
    ):
        await check_that_hosts_work_together(tmp_path, hosts, pods)


async def test_all_workers_of_two_hosts_are_peers_over_a_valkey(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path / "server")
    server.start()
    try:
        peering = f"redis://127.0.0.1:{server.port}/0"
        async with (
            echoing(tmp_path) as (pods, file),
            running(
                tmp_path, file, [2, 2], peers=None, peering=peering, **secret_of(tmp_path)
            ) as hosts,
        ):
            await check_that_hosts_work_together(tmp_path, hosts, pods)
    finally:
        server.stop()


@pytest.mark.parametrize(("counts", "later"), [([1, 3], [2, 1]), ([3, 1], [2])])
async def test_hosts_may_have_different_numbers_of_workers(
    counts: list[int], later: list[int], tmp_path: Path
) -> None:
    async with (
        echoing(tmp_path) as (_, file),
        running(tmp_path, file, counts, **secret_of(tmp_path)) as hosts,
    ):
        await until(all_are_peers(sum(counts)), hosts)
        # A host that comes back with another number of workers is met again.
        for count in later:
            await hosts[1].end(signal.SIGKILL)
            await until(all_are_peers(counts[0]), hosts[:1])
            config = yaml.safe_load(hosts[1].served.file.read_text())
            hosts[1].served.file.write_text(yaml.safe_dump({**config, "workers": count}))
            await hosts[1].start()
            await until(all_are_peers(counts[0] + count), hosts)


async def test_workers_prove_who_they_are_by_mutual_tls(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    tls = {
        "grpc_tls_cert_file": str(certificates.certificate),
        "grpc_tls_key_file": str(certificates.key),
        "grpc_tls_client_ca_file": str(certificates.client_ca),
    }
    async with echoing(tmp_path) as (_, file), running(tmp_path, file, [2, 2], **tls) as hosts:
        await until(all_are_peers(4), hosts)


@pytest.mark.parametrize("shares", [True, False])
async def test_hosts_share_the_reads_of_pods(shares: bool, tmp_path: Path) -> None:
    # Of so many pods, each host reads some, whatever the names of its workers are.
    pods = [CountingPod(f"pod-{number}") for number in range(14)]
    async with AsyncExitStack() as stack:
        for pod in pods:
            await stack.enter_async_context(pod.run())
        file = tmp_path / "pods.yaml"
        write_file(file, pods)
        config = {"scrape_sharing": shares, **secret_of(tmp_path)}
        hosts = await stack.enter_async_context(running(tmp_path, file, [2, 2], **config))
        await until(all_are_peers(4), hosts)
        if not shares:
            return
        for host in hosts:
            async with asyncio.timeout(60):
                while not await metric(host.served, "lora_router_peer_readings_total{"):
                    await asyncio.sleep(0.05)
        await asyncio.sleep(1)

        async def reads_in_three_seconds() -> int:
            before = sum(len(pod.reads) for pod in pods)
            await asyncio.sleep(3)
            return sum(len(pod.reads) for pod in pods) - before

        # Two hosts that do not share read each of the pods 24 times.
        fewest = min([await reads_in_three_seconds() for _ in range(3)])
        assert fewest < len(pods) * 24 * 0.75

        # The worker that tells the other host what this one reads is killed: another one does.
        speaker = (await workers(hosts[0].served))["1"]["pid"]
        os.kill(speaker, signal.SIGKILL)
        await until(all_are_peers(4), hosts)
        sent = 'lora_router_peer_readings_total{direction="received"}'
        before = await metric(hosts[1].served, sent)
        async with asyncio.timeout(60):
            while await metric(hosts[1].served, sent) <= before + 6:
                await asyncio.sleep(0.05)


async def test_a_secret_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump({"pods": []}))
    values = {
        "endpoints": str(tmp_path / "pods.yaml"),
        "workers": 2,
        "peers": "127.0.0.1:1",
        "peer_secret_file": str(tmp_path / "missing"),
    }
    host = Router(tmp_path / "host", values)
    async with host.served.run() as process:
        assert await asyncio.wait_for(process.wait(), 60) != 0
    assert b"peer_secret_file" in host.served.output
    assert b"Traceback" not in host.served.output
