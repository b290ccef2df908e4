"""The chart's other way to the pods: ORIGINAL_DST, which needs EnvoyPatchPolicy."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.chart.rendering import render
from tests.envoy import free_port
from tests.integration.echo_pod import EchoPod
from tests.kube.binaries import GATEWAY_TRANSLATOR, why_not
from tests.kube.gateway_config import (
    bootstrap,
    cluster_of,
    processor,
    refusals,
    routes_of,
    translate,
)
from tests.kube.gateway_install import gateway_values, installed
from tests.kube.installed import Releases
from tests.kube.server import KubeClient, KubeServer

_missing = why_not(GATEWAY_TRANSLATOR)
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(_missing is not None, reason=str(_missing)),
    pytest.mark.usefixtures("resources"),
]


def values(changes: Mapping[str, object], *, namespace: str = "models") -> dict[str, object]:
    given = gateway_values(destination="original-dst", **changes)
    return given | {"discovery": {"namespaces": [namespace]}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hostnames": ["llm.example.test"], "pathPrefixes": ["/v1", "/tokenize"]},
        {"gatewayNamespace": "gateways"},
        {"createClientTrafficPolicy": False},
        {"failOpen": True},
    ],
    ids=[
        "as it comes",
        "hosts and paths",
        "a Gateway elsewhere",
        "no ClientTrafficPolicy",
        "failing open",
    ],
)
async def test_envoy_gateway_accepts_all_of_it(changes: dict[str, object], folder: Path) -> None:
    documents = render(values(changes))

    found = await translate(documents, folder)
    assert refusals(found) == []
    config = bootstrap(found, free_port())
    routes = routes_of(config)
    assert {route["route"]["cluster"] for route in routes} == {"test-lora-router-pods"}
    retried = {route["route"]["retryPolicy"]["retryOn"] for route in routes}
    assert retried == {"connect-failure,refused-stream,reset-before-request"}
    assert processor(config)["maxMessageTimeout"] == "35s"
    assert processor(config).get("failureModeAllow", False) is changes.get("failOpen", False)
    pods = cluster_of(config, "-pods")
    assert pods["type"] == "ORIGINAL_DST"
    [options] = pods["typedExtensionProtocolOptions"].values()
    assert options["commonHttpProtocolOptions"]["idleTimeout"] == "3s"


async def test_a_request_for_an_adapter_goes_to_its_pod(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    pods = [EchoPod("one", ("a1",)), EchoPod("two", ("a2",))]
    services = {(namespace, "base"): pods}
    async with installed(
        kube, admin, releases, folder, services, values({}, namespace=namespace)
    ) as gateway:
        assert await gateway.post({"model": "a2"}) == (200, "two")
        assert await gateway.post({"model": "a1"}) == (200, "one")
        assert (await gateway.post({"model": "unknown"}))[0] == 404
        stolen = {"target-pod": "127.0.0.1:1", "x-gateway-destination-endpoint": "127.0.0.1:1"}
        assert await gateway.post({"model": "a1"}, stolen) == (200, "one")


@pytest.mark.parametrize("fail_open", [None, True])
async def test_without_the_router_nothing_gets_through(
    fail_open: bool | None,
    kube: KubeServer,
    admin: KubeClient,
    namespace: str,
    releases: Releases,
    folder: Path,
) -> None:
    """Where it fails open, the listener has removed the client's headers, so no address is left."""
    pods = [EchoPod("one", ("a1",))]
    services = {(namespace, "base"): pods}
    async with installed(
        *(
            kube,
            admin,
            releases,
            folder,
            services,
            values({"failOpen": fail_open}, namespace=namespace),
        )
    ) as gateway:
        assert await gateway.post({"model": "a1"}) == (200, "one")
        await gateway.app.stop()
        stolen = {"target-pod": pods[0].address}
        assert (await gateway.post({"model": "a1"}, stolen))[0] >= 500
        assert len(pods[0].received) == 1


async def test_where_patches_are_off_requests_are_refused(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    """Requests reach the router's own port, which serves no models (docs/kubernetes.md)."""
    pods = [EchoPod("one", ("a1",))]
    services = {(namespace, "base"): pods}
    async with installed(
        *(kube, admin, releases, folder, services, values({}, namespace=namespace)),
        without="EnvoyPatchPolicy",
    ) as gateway:
        stolen = {"target-pod": pods[0].address}
        assert (await gateway.post({"model": "a1"}, stolen))[0] == 415
        assert (await gateway.post({"model": "unknown"}, stolen))[0] == 404
        assert pods[0].received == []
