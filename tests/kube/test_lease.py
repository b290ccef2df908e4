"""Routers as processes, a Lease of a real API server, and the permissions that the docs name."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy, free_port
from tests.faults.machine import taken_seconds
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import write_pods
from tests.integration.routers import Load, Router, Site
from tests.kube.proxy import Proxy
from tests.kube.server import KubeClient, KubeError, KubeServer
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEASE = "lora-router"
RULES = [
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [LEASE],
        "verbs": ["get", "update", "watch"],
    },
]


async def account(admin: KubeClient, namespace: str, rules: Sequence[object]) -> str:
    """Create a service account with permissions. Returns its token."""
    await admin.call(
        "POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "router"}}
    )
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    await admin.call("POST", f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "router", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    binding = {"metadata": {"name": "r"}, "subjects": [subject], "roleRef": role}
    await admin.call("POST", f"{rbac}/rolebindings", binding)
    return await admin.token(namespace, "router")


class Replica(Router):
    """One of two routers. It is started when it could lead, ready or not."""

    leads = False
    reason = ""

    async def start(self) -> None:
        self.process = await self._stack.enter_async_context(self.served.run())
        self._watch = asyncio.create_task(self._follow())
        async with asyncio.timeout(60):
            while (await self.page("?exclude=leader"))[0] != 200:
                await asyncio.sleep(0.02)

    async def end(self, number: signal.Signals) -> None:
        """Send a signal unless it has ended, and wait until it has."""
        self._watch.cancel()
        self.leads = False
        self.signal(number)
        async with asyncio.timeout(60):
            await self.process.wait()
        await self._stack.aclose()

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self.process.returncode is None:
                os.kill(self.process.pid, number)

    async def close(self) -> None:
        self._watch.cancel()
        await super().close()

    async def page(self, query: str = "") -> tuple[int, dict[str, Any]]:
        url = f"http://127.0.0.1:{self.served.admin_port}/readyz{query}"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                return response.status, await response.json()
        except aiohttp.ClientError:
            return 0, {}

    async def _follow(self) -> None:
        url = f"http://127.0.0.1:{self.served.admin_port}/readyz"
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(url) as response:
                        self.leads = response.status == 200
                        self.reason = (await response.json())["reason"]
                except aiohttp.ClientError:
                    self.leads = False
                await asyncio.sleep(0.01)


@asynccontextmanager
async def replicas(
    folder: Path, kubeconfig: Path, namespace: str, count: int = 2
) -> AsyncIterator[list[Replica]]:
    """Start routers one after the other. The first one leads."""
    if not (folder / "pods.yaml").exists():
        (folder / "pods.yaml").write_text("pods: []")
    ports = [free_port() for _ in range(count)]
    made = []
    async with AsyncExitStack() as stack:
        for number, port in enumerate(ports):
            config = {
                "endpoints": str(folder / "pods.yaml"),
                "grpc_port": port,
                "peers": ",".join(f"127.0.0.1:{each}" for each in ports),
                "replication": "lease",
                "lease_name": LEASE,
                "lease_namespace": namespace,
                "kubernetes_kubeconfig": str(kubeconfig),
                "drain_delay_seconds": 2,
                "drain_timeout_seconds": 5,
            }
            replica = Replica(folder / f"router-{number}", config)
            replica.served.grpc_port = port
            made.append(replica)
            await replica.start()
            stack.push_async_callback(replica.close)
            if number == 0:
                await until(lambda: made[0].leads)
        yield made


def undisturbed(replica: Replica) -> float:
    """Return a time in seconds that passes while neither this replica nor the tests lack a core."""
    return time.monotonic() - taken_seconds((os.getpid(), replica.process.pid))


async def lease(admin: KubeClient, namespace: str) -> dict[str, Any]:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}"
    document: dict[str, Any] = await admin.call("GET", path)
    return document


async def test_one_router_leads_and_the_other_follows_within_the_time_that_is_promised(
    kube: KubeServer, admin: KubeClient, namespace: str, folder: Path
) -> None:
    token = await account(admin, namespace, RULES)
    config = kube.write_kubeconfig(folder / "config", token=token)
    async with replicas(folder, config, namespace) as (first, second):
        assert (await lease(admin, namespace))["spec"]["leaseDurationSeconds"] == 2
        _, page = await second.page()
        assert page["reason"].startswith(f"standby: {page['leader']} leads since 20")
        assert page["leader"] == (await first.page())[1]["router"]
        assert page["leader"] in page["peers"]
        assert (await second.page())[0] == 503
        assert (await second.page("?exclude=leader"))[0] == 200

        # It hangs. When it continues, it is a standby.
        first.signal(signal.SIGSTOP)
        await until(lambda: second.leads)
        first.signal(signal.SIGCONT)
        await until(lambda: "leads since" in first.reason and not first.leads)
        assert [first.leads, second.leads] == [False, True]
        second.signal(signal.SIGSTOP)
        await until(lambda: first.leads)
        second.signal(signal.SIGCONT)
        await until(lambda: "leads since" in second.reason and not second.leads)

        # It dies: nothing is released.
        began = undisturbed(second)
        first.signal(signal.SIGKILL)
        await until(lambda: second.leads)
        killed = undisturbed(second) - began
        await first.end(signal.SIGKILL)
        await first.start()
        assert not first.leads

        # It leaves.
        began = undisturbed(first)
        second.signal(signal.SIGTERM)
        await until(lambda: first.leads)
        left = undisturbed(first) - began
        await until(lambda: not second.leads)
        assert (await lease(admin, namespace))["spec"]["leaseTransitions"] >= 5
        await second.end(signal.SIGTERM)

        print(f"take-over: {killed:.2f} s after SIGKILL, {left:.2f} s after SIGTERM")
        # The goals are 3 s and 0.5 s. A slow machine needs more for its own work.
        assert killed < 3 + 3
        assert left < 0.5 + 3
        # When all have left, nobody holds it.
        await first.end(signal.SIGTERM)
        assert not (await lease(admin, namespace))["spec"].get("holderIdentity")


async def test_what_others_wrote_into_the_lease_stays(
    kube: KubeServer, admin: KubeClient, namespace: str, folder: Path
) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    metadata = {"name": LEASE, "labels": {"team": "ml"}, "annotations": {"note": "ours"}}
    await admin.call("POST", path, {"metadata": metadata})
    async with replicas(folder, kube.kubeconfig, namespace, 1):
        await asyncio.sleep(1)
        found = await lease(admin, namespace)
        assert found["spec"]["holderIdentity"]
        assert found["metadata"]["labels"] == {"team": "ml"}
        assert found["metadata"]["annotations"] == {"note": "ours"}
        await admin.call("DELETE", f"{path}/{LEASE}")
        async with asyncio.timeout(60):
            while True:
                try:
                    assert (await lease(admin, namespace))["spec"]["holderIdentity"]
                    break
                except KubeError:
                    await asyncio.sleep(0.05)


async def test_without_the_permissions_the_reason_says_so(
    kube: KubeServer, admin: KubeClient, namespace: str, folder: Path
) -> None:
    token = await account(admin, namespace, RULES[:1])
    config = kube.write_kubeconfig(folder / "config", token=token)
    (folder / "pods.yaml").write_text("pods: []")
    served_config: dict[str, object] = {
        "endpoints": str(folder / "pods.yaml"),
        "peers": f"127.0.0.1:{free_port()}",
        "replication": "lease",
        "lease_namespace": namespace,
        "kubernetes_kubeconfig": str(config),
    }
    router = Replica(folder / "router", served_config)
    try:
        await router.start()
        await until(lambda: "status 403" in router.reason)
        assert f"no router leads; cannot use lease {namespace}/lora-router: " in router.reason
        assert 'cannot get resource "leases"' in router.reason
        assert "get, update and watch for this one" in router.reason
    finally:
        await router.close()
    assert b"cannot use lease" in router.served.output


@asynccontextmanager
async def gateway(
    folder: Path, kubeconfig: Path, namespace: str, pods: Sequence[EchoPod]
) -> AsyncIterator[tuple[Site, list[Replica]]]:
    """Start pods, two routers and an Envoy before them."""
    async with AsyncExitStack() as stack:
        for pod in pods:
            await stack.enter_async_context(pod)
        write_pods(folder / "pods.yaml", pods)
        both = await stack.enter_async_context(replicas(folder, kubeconfig, namespace))
        settings = load_settings(
            file=both[0].served.file,
            environ={},
            flags={"envoy_router_address": ",".join(each.address for each in both)},
        ).settings
        envoy = await stack.enter_async_context(Envoy(bootstrap_yaml(settings), folder))
        client = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        yield Site(pods, both, envoy, client), both


async def routed(replica: Replica) -> float:
    """Return the number of requests that a router has routed."""
    url = f"http://127.0.0.1:{replica.served.admin_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        lines = (await response.text()).splitlines()
    rows = (line for line in lines if line.startswith("lora_router_requests_total"))
    return sum(float(row.rpartition(" ")[2]) for row in rows)


async def test_envoy_sends_requests_to_the_leader_and_moves_on_with_it(
    kube: KubeServer, namespace: str, folder: Path
) -> None:
    pods = [EchoPod(f"vllm-{number}", adapters=(f"only-{number}",)) for number in range(2)]
    async with gateway(folder, kube.kubeconfig, namespace, pods) as (site, (first, second)):
        await _until_only_healthy(site, first)
        load = Load()
        for _ in range(20):
            assert await site.request(load, "only-1") == "vllm-1"
        assert (await routed(first), await routed(second)) == (20, 0)

        # The leader leaves: answers that run go on, and no request is lost or unrouted.
        async with site.running(10, 4.0) as answers, site.traffic(30, "only-1") as traffic:
            await asyncio.sleep(0.5)
            first.signal(signal.SIGTERM)
            await until(lambda: second.leads)
            await _until_only_healthy(site, second)
        assert (answers.lost, traffic.lost) == (0, 0)
        await first.end(signal.SIGTERM)
        assert not any(b"only-1" in request.body for request in pods[0].received)

        # The leader dies. Until Envoy knows the new one, it asks any.
        await first.start()
        await _until_only_healthy(site, second)
        async with site.traffic(30, "only-1") as traffic:
            await asyncio.sleep(0.5)
            began = time.monotonic()
            second.signal(signal.SIGKILL)
            await until(lambda: first.leads)
            await _until_only_healthy(site, first)
            print(f"Envoy knows the new leader {time.monotonic() - began:.2f} s after SIGKILL")
        assert traffic.lost <= traffic.sent * 0.05
        strays = sum(b"only-1" in request.body for request in pods[0].received)
        assert strays <= traffic.sent * 0.05

        # No router is left. Envoy asks them in vain, and balances by itself.
        await first.end(signal.SIGKILL)
        alone = Load()
        for _ in range(10):
            assert await site.request(alone) != ""
        assert alone.lost == 0


async def test_without_an_api_server_envoy_asks_any_router(
    kube: KubeServer, namespace: str, folder: Path
) -> None:
    pods = [EchoPod(f"vllm-{number}", adapters=(f"only-{number}",)) for number in range(2)]
    async with Proxy(kube.port) as proxy:
        config = kube.write_kubeconfig(folder / "config", port=proxy.port)
        async with gateway(folder, config, namespace, pods) as (site, both):
            await _until_only_healthy(site, both[0])
            proxy.silence()
            async with site.traffic(30, "only-1") as traffic:
                await until(lambda: not both[0].leads)
                await asyncio.sleep(3)
            assert traffic.lost == 0
            assert not any(each.leads for each in both)
            assert not any(b"only-1" in request.body for request in pods[0].received)
            assert "no router leads" in both[1].reason
            proxy.speak()
            await until(lambda: any(each.leads for each in both))
            assert not all(each.leads for each in both)


async def _until_only_healthy(site: Site, leader: Replica) -> None:
    """Wait until Envoy's health checks say that one router is well, and the others are not."""
    async with asyncio.timeout(60):
        while await _healthy(site) != {leader.address}:
            await asyncio.sleep(0.02)


async def _healthy(site: Site) -> set[str]:
    url = f"http://127.0.0.1:{site.envoy.admin_port}/clusters?format=json"
    async with site.client.get(url) as response:
        clusters = (await response.json(content_type=None))["cluster_statuses"]
    [hosts] = [each["host_statuses"] for each in clusters if each["name"] == "lora-router"]
    return {
        "{address}:{port_value}".format(**host["address"]["socket_address"])
        for host in hosts
        if not host["health_status"].get("failed_active_health_check")
        and not host["health_status"].get("failed_outlier_check")
    }
