"""From the chart's values to a routed request, through Envoy Gateway's own translation."""

import asyncio
from pathlib import Path

import pytest

from tests.chart.rendering import render
from tests.envoy import free_port
from tests.integration.certificates import Certificates
from tests.integration.echo_pod import EchoPod
from tests.kube.binaries import GATEWAY_TRANSLATOR, why_not
from tests.kube.gateway_config import (
    Document,
    bootstrap,
    cluster_of,
    processor,
    refusals,
    routes_of,
    translate,
)
from tests.kube.gateway_install import Installed, gateway_values, installed
from tests.kube.installed import Releases
from tests.kube.server import KubeClient, KubeServer

_missing = why_not(GATEWAY_TRANSLATOR)
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(_missing is not None, reason=str(_missing)),
    pytest.mark.usefixtures("resources"),
]

PODS = {("models", "base"): ["127.0.0.1:8001", "127.0.0.1:8002"]}
_NEVER_SENT = "connect-failure,refused-stream,reset-before-request"


async def translated(folder: Path, values: dict[str, object]) -> Document:
    """Return the bootstrap for the chart with these values. Everything must be accepted."""
    documents = render(values)
    found = await translate(documents, folder, PODS)
    assert refusals(found) == []
    return bootstrap(found, free_port())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hostnames": ["llm.example.test"], "pathPrefixes": ["/v1", "/tokenize"]},
        {"gatewayNamespace": "gateways"},
        {"createClientTrafficPolicy": False},
        {"failOpen": False},
    ],
    ids=[
        "as it comes",
        "hosts and paths",
        "a Gateway elsewhere",
        "no ClientTrafficPolicy",
        "failing closed",
    ],
)
async def test_the_pods_are_one_cluster_of_which_the_router_picks(
    changes: dict[str, object], folder: Path
) -> None:
    config = await translated(folder, gateway_values(("models", "base"), **changes))

    names = {route["route"]["cluster"] for route in routes_of(config)}
    assert names == {"httproute/models/test-lora-router/rule/0"}
    pods = cluster_of(config, "httproute/")
    [policy] = pods["loadBalancingPolicy"]["policies"]
    override = policy["typedExtensionConfig"]["typedConfig"]
    assert override["@type"].endswith("override_host.v3.OverrideHost")
    assert override["overrideHostSources"] == [{"header": "x-gateway-destination-endpoint"}]
    [fallback] = override["fallbackPolicy"]["policies"]
    assert fallback["typedExtensionConfig"]["name"].endswith(".least_request")


async def test_a_request_is_sent_again_only_if_no_pod_has_seen_it(folder: Path) -> None:
    values = gateway_values(("models", "base")) | {"settings": {"fallbacks": 2}}
    for route in routes_of(await translated(folder, values)):
        assert route["route"]["retryPolicy"]["retryOn"] == _NEVER_SENT
        assert route["route"]["retryPolicy"]["numRetries"] == 2
        assert "perTryTimeout" not in route["route"]["retryPolicy"]
        assert route["route"]["timeout"] == "0s"


async def test_connections_to_pods_are_closed_before_the_pods_close_them(folder: Path) -> None:
    config = await translated(folder, gateway_values(("models", "base")))

    options = cluster_of(config, "httproute/")["typedExtensionProtocolOptions"]
    [http] = options.values()
    assert http["commonHttpProtocolOptions"]["idleTimeout"] == "3s"


async def test_the_router_is_called_as_envoy_config_would_have_it(folder: Path) -> None:
    config = await translated(folder, gateway_values(("models", "base")))

    filter_ = processor(config)
    assert filter_["failureModeAllow"] is True
    assert filter_["messageTimeout"] == "35s"
    assert filter_["processingMode"]["responseHeaderMode"] == "SEND"
    assert filter_["responseAttributes"] == [
        "upstream.address",
        "response.code",
        "response.code_details",
    ]
    router = cluster_of(config, "envoyextensionpolicy/")
    [check] = router["healthChecks"]
    assert check["grpcHealthCheck"] == {"serviceName": "readiness"}
    assert router["commonLbConfig"] == {"healthyPanicThreshold": {}}


@pytest.mark.parametrize("fail_open", [True, False])
async def test_while_no_router_is_ready_envoy_gateway_leaves_the_router_out_or_refuses(
    fail_open: bool, folder: Path
) -> None:
    documents = render(gateway_values(("models", "base"), failOpen=fail_open))
    for document in documents:
        if document["kind"] == "Service":  # The router's.
            document["spec"]["clusterIP"] = "None"

    found = await translate(documents, folder, PODS)
    assert ["no ready endpoints" in each for each in refusals(found)] == [True]
    [route] = routes_of(bootstrap(found, free_port()))
    if fail_open:
        assert route["route"]["cluster"] == "httproute/models/test-lora-router/rule/0"
    else:
        assert route["directResponse"] == {"status": 500}


async def test_a_request_for_an_adapter_goes_to_its_pod(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    pods = [EchoPod("one", ("a1",)), EchoPod("two", ("a2",))]
    service = (namespace, "base")
    values = gateway_values(service)
    async with installed(kube, admin, releases, folder, {service: pods}, values) as gateway:
        assert await gateway.post({"model": "a2"}) == (200, "two")
        assert await gateway.post({"model": "a1"}) == (200, "one")
        assert (await gateway.post({"model": "unknown"}))[0] == 404

        # A large prompt, and a client that names a pod and an address.
        assert await gateway.post({"model": "a1", "prompt": "x" * 8_000_000}) == (200, "one")
        for address in (pods[1].address, "127.0.0.1:1"):
            stolen = {"target-pod": address, "x-gateway-destination-endpoint": address}
            assert await gateway.post({"model": "a1"}, stolen) == (200, "one")
        [address] = pods[0].received[-1].header("target-pod")
        assert address == pods[0].address

        # A pod that is no longer ready receives no requests; a new one does.
        await admin.pod_status(namespace, "two", ip="127.0.0.1", ready=False)
        await until_status(gateway, {"model": "a2"}, 503)
        await admin.pod_status(namespace, "two", ip="127.0.0.1", ready=True)
        await until_status(gateway, {"model": "a2"}, 200)


async def test_envoy_gateway_calls_the_router_over_tls(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    pods = [EchoPod("one", ("a1",)), EchoPod("two", ("a2",))]
    service = (namespace, "base")
    certificates = Certificates(folder)
    async with installed(
        *(kube, admin, releases, folder, {service: pods}, gateway_values(service)),
        certificates=certificates,
    ) as gateway:
        assert await gateway.post({"model": "a2"}) == (200, "two")
        assert await gateway.post({"model": "a1"}) == (200, "one")


async def test_without_a_router_requests_reach_pods_and_running_responses_continue(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    pods = [EchoPod("one"), EchoPod("two")]
    service = (namespace, "base")
    values = gateway_values(service)
    async with installed(kube, admin, releases, folder, {service: pods}, values) as gateway:
        running = asyncio.create_task(gateway.post({"model": "base", "tokens": 6, "pause": 0.3}))
        async with asyncio.timeout(60):
            while not any(pod.received for pod in pods):
                await asyncio.sleep(0.01)
        await gateway.app.stop()

        answers = [await gateway.post({"model": "base"}) for _ in range(20)]
        assert {status for status, _ in answers} == {200}
        assert {pod for _, pod in answers} == {"one", "two"}
        assert (await running)[0] == 200
        assert sum(pod.aborted for pod in pods) == 0


@pytest.mark.parametrize("policy", ["", "ClientTrafficPolicy"])
async def test_without_a_router_no_client_can_choose_an_address(
    policy: str,
    kube: KubeServer,
    admin: KubeClient,
    namespace: str,
    releases: Releases,
    folder: Path,
) -> None:
    """Also where the policy that removes the headers is not in effect."""
    async with EchoPod("elsewhere") as elsewhere:
        service = (namespace, "base")
        async with installed(
            *(kube, admin, releases, folder, {service: [EchoPod("one")]}, gateway_values(service)),
            without=policy,
        ) as gateway:
            await gateway.app.stop()
            for name in (
                "target-pod",
                "x-gateway-destination-endpoint",
                "x-envoy-original-dst-host",
            ):
                stolen = {name: elsewhere.address}
                assert await gateway.post({"model": "base"}, stolen) == (200, "one")
        assert elsewhere.received == []


async def test_where_failing_open_is_off_nothing_gets_through_without_the_router(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    pods = [EchoPod("one", ("a1",))]
    service = (namespace, "base")
    values = gateway_values(service, failOpen=False)
    async with installed(kube, admin, releases, folder, {service: pods}, values) as gateway:
        assert await gateway.post({"model": "a1"}) == (200, "one")
        await gateway.app.stop()
        assert (await gateway.post({"model": "a1"}))[0] >= 500
        assert len(pods[0].received) == 1


async def test_a_pod_that_refuses_connections_costs_no_request(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    pods = [EchoPod("one"), EchoPod("two")]
    service = (namespace, "base")
    values = gateway_values(service)
    async with installed(kube, admin, releases, folder, {service: pods}, values) as gateway:
        await pods[0].__aexit__(None, None, None)
        answers = [await gateway.post({"model": "base"}) for _ in range(20)]
        assert answers == [(200, "two")] * 20


async def until_status(gateway: Installed, body: Document, status: int) -> None:
    async with asyncio.timeout(60):
        while (await gateway.post(body))[0] != status:
            await asyncio.sleep(0.05)
