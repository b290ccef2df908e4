"""Routers of one release of which one leads, with the chart's settings and permissions."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from lora_router.app import App
from tests.chart import CHART
from tests.envoy import free_port
from tests.integration.echo_pod import EchoPod
from tests.kube.binaries import GATEWAY_TRANSLATOR, why_not
from tests.kube.gateway_install import gateway_values, installed
from tests.kube.installed import Releases, install_router, installed_router
from tests.kube.server import KubeClient, KubeError, KubeServer
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
VALUES = {"replication": "lease", "drain": {"delaySeconds": 0}}


_missing = why_not(GATEWAY_TRANSLATOR)


def decided(app: App) -> float:
    """Return how many requests a router has decided."""
    lines = app.telemetry.page().decode().splitlines()
    counted = [line for line in lines if line.startswith("lora_router_requests_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in counted)


def leaders(*apps: App) -> list[App]:
    return [app for app in apps if app.readiness().ready]


async def test_one_router_of_a_release_leads_and_another_takes_over(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    first = await install_router(kube, admin, releases, folder, VALUES)
    ports = {"grpc_port": free_port(), "admin_port": free_port()}
    second = await installed_router(kube, admin, releases, folder, ports)

    async with AsyncExitStack() as stack:
        for app in (first, second):
            stack.push_async_callback(app.stop)
            await app.start()
        await until(lambda: len(leaders(first, second)) == 1)
        [leader] = leaders(first, second)
        [standby] = {first, second} - {leader}
        # What the chart's readiness probe asks for.
        assert standby.readiness().standby
        leases = (await admin.call("GET", LEASES.format(namespace)))["items"]
        assert [each["metadata"]["name"] for each in leases] == ["mine-lora-router"]

        await leader.stop()
        await until(lambda: leaders(standby) == [standby])


async def test_the_account_can_hold_the_lease_of_its_release_and_no_other(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases
) -> None:
    releases.install(CHART, "mine", VALUES)
    token = await admin.token(namespace, "mine-lora-router")
    path = LEASES.format(namespace)
    async with KubeClient(kube.url, kube.ssl_context(), token) as account:
        for name in ("mine-lora-router", "another"):
            await account.call("POST", path, {"metadata": {"name": name}, "spec": {}})
        lease = await account.call("GET", f"{path}/mine-lora-router")
        lease["spec"]["holderIdentity"] = "me"
        await account.call("PUT", f"{path}/mine-lora-router", lease)

        for method, refused in (
            ("GET", f"{path}/another"),
            ("PUT", f"{path}/another"),
            ("DELETE", f"{path}/mine-lora-router"),
            ("GET", path),
            ("POST", LEASES.format("kube-system")),
        ):
            with pytest.raises(KubeError) as error:
                await account.call(method, refused, None if method == "GET" else {})
            assert error.value.status == 403, (method, refused)


async def test_without_a_lease_the_account_cannot_touch_any(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases
) -> None:
    releases.install(CHART, "mine")
    token = await admin.token(namespace, "mine-lora-router")
    async with KubeClient(kube.url, kube.ssl_context(), token) as account:
        with pytest.raises(KubeError) as error:
            await account.call("POST", LEASES.format(namespace), {"metadata": {"name": "mine"}})
        assert error.value.status == 403


@pytest.mark.skipif(_missing is not None, reason=str(_missing))
@pytest.mark.usefixtures("resources")
async def test_envoy_asks_the_leader_and_then_its_successor(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    service = (namespace, "base")
    pods = {service: [EchoPod("one", ("a1",))]}
    values = gateway_values(service) | VALUES
    async with installed(kube, admin, releases, folder, pods, values, routers=2) as gateway:
        [leader] = leaders(*gateway.apps)
        [standby] = set(gateway.apps) - {leader}

        async def asked(app: App) -> float:
            before = decided(app)
            for _ in range(20):
                assert await gateway.post({"model": "a1"}) == (200, "one")
            return decided(app) - before

        async with asyncio.timeout(60):  # Before the first health checks, Envoy asks both.
            while await asked(standby):
                await asyncio.sleep(0.2)
        assert await asked(leader) == 20

        await leader.stop()
        await until(lambda: leaders(standby) == [standby])
        assert await asked(standby) == 20
