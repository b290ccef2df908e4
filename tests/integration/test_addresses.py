"""Pods with IPv6 addresses and pods with several ports, behind a real Envoy."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import yaml

from lora_router.app import App
from lora_router.config.settings import Settings
from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy, free_port
from tests.integration.echo_pod import EchoPod

KINDS = ("override-host", "original-dst")


def has_ipv6() -> bool:
    """Return whether this machine has a loopback address of both families."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return socket.has_dualstack_ipv6()
    except OSError:
        return False


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@dataclass
class Site:
    """A router that listens on its default addresses, an Envoy, and a client."""

    app: App
    envoy: Envoy
    settings: Settings
    client: aiohttp.ClientSession

    async def served(self, count: int, host: str = "127.0.0.1") -> Counter[str]:
        """Send requests; return how many each pod served. Other statuses count by their number."""
        found: Counter[str] = Counter()
        url = f"http://{host}:{self.envoy.port}/v1/chat/completions"
        for _ in range(count):
            async with self.client.post(url, json={"model": "base"}) as response:
                found[response.headers.get("x-pod", str(response.status))] += 1
        return found


@asynccontextmanager
async def site(
    folder: Path, pods: Sequence[EchoPod], entry: dict[str, object], kind: str, **changes: object
) -> AsyncIterator[Site]:
    """Start pods that one entry of the pods file describes, a router and an Envoy."""
    async with AsyncExitStack() as stack:
        for pod in pods:
            await stack.enter_async_context(pod)
        ports = [int(pod.address.rpartition(":")[2]) for pod in pods]
        file = folder / "pods.yaml"
        file.write_text(yaml.safe_dump({"pods": [{"name": "vllm", "ports": ports, **entry}]}))
        flags: dict[str, object] = {
            "endpoints": str(file),
            "grpc_port": free_port(),
            "admin_port": 0,
            "envoy_listen_port": free_port(),
            "envoy_admin_port": free_port(),
            "envoy_pods": kind,
            "drain_timeout_seconds": 0.5,
            "algorithm": "least-request",
            **changes,
        }
        settings = load_settings(file=None, environ={}, flags=flags).settings
        app = App(settings)
        stack.push_async_callback(app.stop)
        await app.start()
        envoy = await stack.enter_async_context(
            Envoy(bootstrap_yaml(settings), folder, patient=True)
        )
        client = await stack.enter_async_context(aiohttp.ClientSession())
        if kind == "override-host":
            async with asyncio.timeout(60):
                while await envoy.stat("cluster.pods.membership_total") != len(pods):
                    await asyncio.sleep(0.02)
        yield Site(app, envoy, settings, client)


@pytest.mark.parametrize("kind", KINDS)
async def test_each_port_of_a_pod_is_an_endpoint(tmp_path: Path, kind: str) -> None:
    pods = [EchoPod("rank-0"), EchoPod("rank-1")]
    async with site(tmp_path, pods, {"address": "127.0.0.1"}, kind) as found:
        names = {state.pod.name: state.pod.address for state in found.app.fleet.ready()}
        assert names == {"vllm-rank-0": pods[0].address, "vllm-rank-1": pods[1].address}
        assert all(state.metrics is not None for state in found.app.fleet.ready())

        served = await found.served(40)
        assert served.keys() == {"rank-0", "rank-1"}
        for pod in pods:
            assert {request.header("target-pod")[0] for request in pod.received} == {pod.address}


@ipv6
@pytest.mark.parametrize("kind", KINDS)
async def test_pods_router_and_envoy_are_reached_over_ipv6(
    tmp_path: Path, kind: str, transport: str
) -> None:
    port = free_port()
    pods = [EchoPod("six", host="::1"), EchoPod("other", host="::1")]
    here = {"grpc_port": port, "envoy_router_address": f"[::1]:{port}", "transport": transport}
    async with site(tmp_path, pods, {"address": "::1"}, kind, **here) as found:
        for host in ("[::1]", "127.0.0.1"):
            served = await found.served(20, host)
            assert served.keys() <= {"six", "other"}
        assert all(pod.address.startswith("[::1]:") for pod in pods)
        request = next(request for pod in pods for request in pod.received)
        [endpoint] = request.header("target-pod")
        assert endpoint in {pod.address for pod in pods}
        assert all(state.metrics is not None for state in found.app.fleet.ready())
