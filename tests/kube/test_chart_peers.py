"""Routers of one release as peers: on a real API server, with the chart's settings and permissions.

The API server has no controllers. So the tests write the EndpointSlices of the routers' Service.
"""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from lora_router.app import App
from lora_router.peering import addresses
from lora_router.workers.parent import Parent
from tests.chart import CHART
from tests.envoy import free_port
from tests.kube.installed import (
    Releases,
    install_router,
    installed_router,
    installed_settings,
    peer_secret,
)
from tests.kube.server import KubeClient, KubeServer
from tests.redis_server import RedisProcess
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

SERVICE = "mine-lora-router-peers"
ELSEWHERE = "192.0.2.1"
"""Stands for 127.0.0.1, which the API server does not accept in an EndpointSlice."""


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_target", lambda ip, port: f"127.0.0.1:{port}")


def endpoint_slice(name: str, port: int) -> dict[str, Any]:
    """Return what the controller writes for one pod, except that each has a port of its own."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": SERVICE}},
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ELSEWHERE], "conditions": {"ready": False}}],
    }


async def publish(admin: KubeClient, namespace: str, ports: Iterable[int]) -> None:
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    for port in ports:
        await admin.call("POST", path, endpoint_slice(f"router-{port}", port))


def peers(app: App) -> int:
    assert app.peering is not None
    return len(app.peering.hub.peers)


def workers_of(parent: Parent) -> list[dict[str, Any]]:
    """Return what a router with workers shows of those that have reported."""
    workers = parent.crew.status()["workers"]
    assert isinstance(workers, dict)
    return [each for each in workers.values() if "peers" in each]


def port_of(app: App) -> int:
    """Return the gRPC port that the router will listen on."""
    return app._settings.grpc_port


async def test_two_routers_of_a_release_find_each_other(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    first = await install_router(kube, admin, releases, folder)
    ports = {"grpc_port": free_port(), "admin_port": free_port()}
    second = await installed_router(kube, admin, releases, folder, ports)

    async with AsyncExitStack() as stack:
        await publish(admin, namespace, [port_of(first), port_of(second)])
        for app in (first, second):
            stack.push_async_callback(app.stop)
        await asyncio.gather(first.start(), second.start())

        await until(lambda: peers(first) == peers(second) == 1)
        assert first.readiness().ready
        assert first.peering is not None
        assert first.peering.secret is not None


@pytest.mark.parametrize("mutual", [False, True], ids=["TLS", "mutual TLS"])
async def test_one_certificate_serves_envoy_and_the_peers(
    mutual: bool,
    kube: KubeServer,
    admin: KubeClient,
    namespace: str,
    releases: Releases,
    folder: Path,
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert(f"mine-lora-router.{namespace}.svc")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    certificate.private_key_pem.write_to_path(folder / "tls.key")
    certificate.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    flags: dict[str, object] = {
        "grpc_tls_cert_file": str(folder / "tls.crt"),
        "grpc_tls_key_file": str(folder / "tls.key"),
        "peer_tls_ca_file": str(folder / "ca.crt"),
    }
    if mutual:
        flags["grpc_tls_client_ca_file"] = str(folder / "ca.crt")
    values = {"tls": {"secretName": "router-tls", "requireClientCertificate": mutual}}
    first = await install_router(kube, admin, releases, folder, values, flags)
    ports = {"grpc_port": free_port(), "admin_port": free_port()}
    second = await installed_router(kube, admin, releases, folder, flags | ports)

    async with AsyncExitStack() as stack:
        await publish(admin, namespace, [port_of(first), port_of(second)])
        for app in (first, second):
            stack.push_async_callback(app.stop)
            await app.start()
        await until(lambda: peers(first) == peers(second) == 1)


async def test_routers_of_a_release_find_each_other_through_a_redis(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    server = RedisProcess(folder / "redis", "--requirepass", "hidden")
    address = {"url": f"redis://:hidden@127.0.0.1:{server.port}"}
    await admin.call(
        "POST",
        f"/api/v1/namespaces/{namespace}/secrets",
        {"metadata": {"name": "redis"}, "stringData": address},
    )
    values = {"peering": {"redis": {"secretName": "redis"}}}
    first = await install_router(kube, admin, releases, folder, values)
    ports = {"grpc_port": free_port(), "admin_port": free_port()}
    second = await installed_router(kube, admin, releases, folder, ports)

    async with AsyncExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        for app in (first, second):
            stack.push_async_callback(app.stop)
            await app.start()
        await until(lambda: peers(first) == peers(second) == 1)


async def test_the_workers_of_all_pods_of_a_release_are_peers(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    releases.install(CHART, "mine", {"workers": 2})
    parents = []
    for _ in range(2):
        ports = {"grpc_port": free_port(), "admin_port": free_port()}
        settings = await installed_settings(kube, admin, releases, folder, ports)
        assert settings.workers == 2
        parents.append(Parent(settings))

    def all_are_peers() -> bool:
        workers = [each for parent in parents for each in workers_of(parent)]
        return len(workers) == 4 and all(len(each["peers"]) == 3 for each in workers)

    async with AsyncExitStack() as stack:
        await publish(admin, namespace, [parent._settings.grpc_port for parent in parents])
        for parent in parents:
            stack.push_async_callback(parent.stop)
        await asyncio.gather(*(parent.start() for parent in parents))
        await until(all_are_peers)
        assert all(parent.readiness().ready for parent in parents)


async def test_a_router_of_an_upgrade_joins_the_ones_that_it_replaces(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    old = await install_router(kube, admin, releases, folder)
    ports = {"grpc_port": free_port(), "admin_port": free_port()}
    releases.upgrade(CHART, "mine", {"settings": {"log_level": "debug", **ports}})
    new = await installed_router(kube, admin, releases, folder)
    assert new._settings.log_level == "debug"

    async with AsyncExitStack() as stack:
        stack.push_async_callback(old.stop)
        await old.start()
        await publish(admin, namespace, [port_of(old), port_of(new)])
        stack.push_async_callback(new.stop)
        await new.start()
        await until(lambda: peers(old) == peers(new) == 1)


async def test_the_key_of_the_peers_survives_upgrades_and_rollbacks(
    admin: KubeClient, namespace: str, releases: Releases
) -> None:
    releases.install(CHART, "mine")
    key = await peer_secret(admin, namespace)

    releases.upgrade(CHART, "mine", {"replicas": 3})
    assert await peer_secret(admin, namespace) == key
    releases.upgrade(CHART, "mine", {"settings": {"log_level": "debug"}})
    assert await peer_secret(admin, namespace) == key
    releases.rollback("mine", version=1)
    assert await peer_secret(admin, namespace) == key


async def test_two_releases_do_not_share_a_key(
    admin: KubeClient, namespace: str, releases: Releases
) -> None:
    releases.install(CHART, "mine")
    releases.install(CHART, "other")

    path = f"/api/v1/namespaces/{namespace}/secrets/other-lora-router-peers"
    other = (await admin.call("GET", path))["data"]["peer-secret"]
    path = f"/api/v1/namespaces/{namespace}/secrets/mine-lora-router-peers"
    assert (await admin.call("GET", path))["data"]["peer-secret"] != other
