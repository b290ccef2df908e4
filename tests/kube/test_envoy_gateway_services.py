"""Several Services behind one HTTPRoute: base models, and other namespaces."""

from hashlib import sha256
from pathlib import Path

import pytest

from tests.chart.rendering import Document, render
from tests.envoy import free_port
from tests.integration.echo_pod import EchoPod
from tests.kube.binaries import GATEWAY_TRANSLATOR, why_not
from tests.kube.gateway_config import bootstrap, refusals, routes_of, translate
from tests.kube.gateway_install import gateway_values, installed
from tests.kube.installed import Releases
from tests.kube.server import KubeClient, KubeServer

_missing = why_not(GATEWAY_TRANSLATOR)
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(_missing is not None, reason=str(_missing)),
    pytest.mark.usefixtures("resources"),
]

HERE, THERE = ("models", "llama"), ("more-models", "qwen")
PODS = {HERE: ["127.0.0.1:8001"], THERE: ["127.0.0.1:8002"]}


def routes(translated: Document) -> list[Document]:
    return routes_of(bootstrap(translated, free_port()))


async def test_each_service_is_a_cluster_of_its_own_that_the_routers_header_selects(
    folder: Path,
) -> None:
    documents = render(gateway_values(HERE, THERE))

    translated = await translate(documents, folder, PODS)
    assert refusals(translated) == []
    found = routes(translated)
    selected = [
        (header["stringMatch"]["exact"], route["route"]["cluster"])
        for route in found
        for header in route["match"].get("headers", [])
    ]
    assert sorted(selected) == [
        ("models/llama", "httproute/models/test-lora-router/rule/0"),
        ("more-models/qwen", "httproute/models/test-lora-router/rule/1"),
    ]
    # Without a header: any pod of any of them.
    assert "headers" not in found[-1]["match"]
    assert found[-1]["route"]["cluster"] == "httproute/models/test-lora-router/rule/2"


async def test_one_rule_for_all_would_fail_with_each_service_that_has_no_pod(folder: Path) -> None:
    """Why there is a rule for each: Envoy Gateway answers an empty Service's share with 503."""
    *_, without_header = routes(
        await translate(render(gateway_values(HERE, THERE)), folder, {HERE: PODS[HERE]})
    )

    shares = {
        cluster["name"]: cluster["weight"]
        for cluster in without_header["route"]["weightedClusters"]["clusters"]
    }
    assert shares["invalid-backend-cluster"] == 1
    assert len(shares) == 2


async def test_without_a_reference_grant_another_namespace_is_refused(folder: Path) -> None:
    documents = [
        each for each in render(gateway_values(HERE, THERE)) if each["kind"] != "ReferenceGrant"
    ]

    refused = refusals(await translate(documents, folder, PODS))
    assert any("not permitted by any ReferenceGrant" in each for each in refused)


async def test_requests_reach_the_pods_of_all_services_and_an_empty_one_costs_nothing(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    other = f"{namespace}-other"
    await admin.namespace(other)
    services = {
        (namespace, "llama"): [EchoPod("llama", ("sql",))],
        (other, "qwen"): [EchoPod("qwen", ("chat",))],
        (other, "empty"): [],
    }
    values = gateway_values(*services)
    async with installed(kube, admin, releases, folder, services, values) as gateway:
        for _ in range(10):
            assert await gateway.post({"model": "sql"}) == (200, "llama")
            assert await gateway.post({"model": "chat"}) == (200, "qwen")
            # A client's own choice of a Service has no effect.
            stolen = {"x-lora-router-pool": f"{other}/qwen"}
            assert await gateway.post({"model": "sql"}, stolen) == (200, "llama")
        assert (await gateway.post({"model": "unknown"}))[0] == 404
        # Requests that name no model go to any pod.
        for _ in range(20):
            url = f"http://127.0.0.1:{gateway.envoy.port}/version"
            async with gateway.client.get(url) as response:
                assert response.status == 200


async def test_one_service_in_each_namespace_needs_no_name_of_a_model(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    other = f"{namespace}-other"
    await admin.namespace(other)
    # In another namespace than the release's, a release of the same name may have a Service too.
    release = sha256(namespace.encode()).hexdigest()[:8]
    services = {
        (namespace, "mine-lora-router-pods"): [EchoPod("here", ("sql",))],
        (other, f"mine-lora-router-{release}-pods"): [EchoPod("there", ("chat",))],
    }
    values = gateway_values(createService=True)
    values["discovery"] = {
        "namespaces": [namespace, other],
        "selector": "app=vllm",
    }
    async with installed(kube, admin, releases, folder, services, values) as gateway:
        for _ in range(10):
            assert await gateway.post({"model": "sql"}) == (200, "here")
            assert await gateway.post({"model": "chat"}) == (200, "there")


async def test_while_no_pod_is_ready_the_router_says_so(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    services: dict[tuple[str, str], list[EchoPod]] = {(namespace, "llama"): []}
    async with installed(
        kube, admin, releases, folder, services, gateway_values(*services)
    ) as gateway:
        url = f"http://127.0.0.1:{gateway.envoy.port}/v1/chat/completions"
        async with gateway.client.post(url, json={"model": "llama"}) as response:
            assert response.status == 503
            assert (await response.json())["error"]["code"]
