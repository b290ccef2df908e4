"""The Helm chart on a real API server, and the router with the chart's permissions."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.chart import CHART
from tests.chart.combinations import COMBINATIONS
from tests.chart.rendering import Document, helm, render
from tests.kube import crds
from tests.kube.conftest import CHART_NAMESPACE
from tests.kube.installed import Releases, install_router
from tests.kube.server import KubeClient, KubeError, KubeServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

CASES = list(COMBINATIONS.items())


async def everything(admin: KubeClient) -> set[tuple[str, str, str]]:
    """Return the objects of every kind, except for those that the API server creates itself."""
    groups = (await admin.call("GET", "/apis"))["groups"]
    versions = [
        "/api/v1",
        *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups),
    ]
    found = set()
    for base in versions:
        for resource in (await admin.call("GET", base))["resources"]:
            if "list" not in resource["verbs"] or resource["name"] in {"events", "leases"}:
                continue
            for item in (await admin.call("GET", f"{base}/{resource['name']}"))["items"]:
                metadata = item["metadata"]
                found.add((resource["kind"], metadata.get("namespace", ""), metadata["name"]))
    return found


async def dry_run(
    admin: KubeClient, resources: crds.Resources, document: Document
) -> dict[str, Any]:
    path = await resources.path(document)
    options = {"dryRun": "All", "fieldValidation": "Strict"}
    answer: dict[str, Any]
    try:
        answer = await admin.call("POST", path, document, **options)
    except KubeError as error:
        # Definitions have fixed names, and other tests create some.
        if error.status != 409 or document["kind"] != "CustomResourceDefinition":
            raise
        one = await resources.path(document, of_one=True)
        merge = "application/merge-patch+json"
        answer = await admin.call("PATCH", one, document, content_type=merge, **options)
    return answer


@pytest.mark.parametrize(("name", "values"), CASES, ids=[name for name, _ in CASES])
async def test_the_api_server_takes_every_object(
    name: str, values: dict[str, object], admin: KubeClient, resources: crds.Resources
) -> None:
    for document in render(values, namespace=CHART_NAMESPACE):
        taken = await dry_run(admin, resources, document)
        assert taken["metadata"]["name"] == document["metadata"]["name"], name


@pytest.mark.parametrize("mode", ["none", "sidecar"])
async def test_pods_may_run_where_the_restricted_standard_is_enforced(
    mode: str, admin: KubeClient, namespace: str, resources: crds.Resources
) -> None:
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    await admin.call(
        "PATCH",
        f"/api/v1/namespaces/{namespace}",
        {"metadata": {"labels": enforce}},
        content_type="application/merge-patch+json",
    )
    documents = render({"gateway": {"mode": mode}}, namespace=namespace)
    [deployment] = [each for each in documents if each["kind"] == "Deployment"]
    [hook] = [each for each in documents if each["kind"] == "Pod"]
    template = deployment["spec"]["template"]
    template["metadata"]["name"] = "router"
    template |= {"apiVersion": "v1", "kind": "Pod"}
    template["metadata"]["namespace"] = namespace

    for pod in (template, hook):
        await dry_run(admin, resources, pod)
    pod["spec"]["containers"][0]["securityContext"]["capabilities"] = {"drop": []}
    with pytest.raises(KubeError, match="violates PodSecurity"):
        await dry_run(admin, resources, pod)


async def test_install_upgrade_roll_back_and_uninstall_leave_nothing(
    admin: KubeClient, namespace: str, resources: crds.Resources, releases: Releases
) -> None:
    async def deployment() -> Document:
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/mine-lora-router"
        found: Document = await admin.call("GET", path)
        return found

    def checksum(found: Document) -> str:
        return str(found["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    before = await everything(admin)
    full: dict[str, object] = {
        "gateway": {
            "mode": "envoy-gateway",
            "envoyGateway": {
                "createGateway": True,
                "backends": [
                    {"name": "llama", "port": 8000},
                    {
                        "name": "qwen",
                        "namespace": "more-models",
                        "port": 8000,
                        "referenceGrant": True,
                    },
                ],
            },
        },
        "discovery": {"scope": "cluster"},
        "autoscaling": {"enabled": True},
        "networkPolicy": {"enabled": True},
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    }

    installed = releases.install(CHART, "mine", full)
    assert installed["status"] == "deployed"
    first = await deployment()
    kinds = {kind for kind, *_ in await everything(admin) - before}
    assert {"BackendTrafficPolicy", "ReferenceGrant", "ClusterRole", "ServiceMonitor"} <= kinds

    changes = {"settings": {"log_level": "debug"}, "networkPolicy": {"enabled": False}}
    upgraded = releases.upgrade(CHART, "mine", {**full, **changes})
    assert upgraded["revision"] == 2
    assert checksum(await deployment()) != checksum(first)
    kinds = {kind for kind, *_ in await everything(admin) - before}
    assert "NetworkPolicy" not in kinds

    releases.rollback("mine", version=1)
    assert checksum(await deployment()) == checksum(first)
    releases.uninstall("mine")
    assert await everything(admin) == before


async def test_the_notes_name_the_next_three_commands(namespace: str, releases: Releases) -> None:
    backends = {"backends": [{"name": "vllm", "port": 8000}]}
    for mode in ("none", "sidecar", "envoy-gateway"):
        values = {"gateway": {"mode": mode, "envoyGateway": backends}}
        notes = releases.install(CHART, f"notes-{mode}", values, dry_run="client")["notes"]
        assert f"kubectl -n {namespace} rollout status deployment/notes-{mode}-lora-router" in notes
        assert f"helm test -n {namespace} notes-{mode}" in notes
        assert "   curl " in notes or "kubectl -n" in notes.partition("3. ")[2]


async def test_the_notes_warn_of_what_will_not_work(releases: Releases) -> None:
    def notes(name: str, values: Mapping[str, object]) -> str:
        image = {"image": {"repository": "registry.test/lora-router"}}
        return str(releases.install(CHART, name, {**image, **values}, dry_run="client")["notes"])

    assert "WARNING" not in notes("plain", {})
    assert "which no registry has" in notes("image", {"image": {"repository": "lora-router"}})
    scaled = notes("scaled", {"autoscaling": {"enabled": True}})
    assert "this cluster does not serve custom.metrics.k8s.io" in scaled
    by_cpu = notes("cpu", {"autoscaling": {"enabled": True, "source": "cpu"}})
    assert "WARNING" not in by_cpu
    apart = {"peering": {"enabled": False}}
    assert "do not know of each other" in notes("apart", apart)
    assert "WARNING" not in notes("alone", {**apart, "replicas": 1})


async def test_the_account_can_follow_pods_and_peers_and_do_nothing_else(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    releases.install(CHART, "mine")
    other = f"{namespace}-forbidden"
    await admin.namespace(other)
    token = await admin.token(namespace, "mine-lora-router")

    async with KubeClient(kube.url, kube.ssl_context(), token) as account:
        pods = f"/api/v1/namespaces/{namespace}/pods"
        assert (await account.call("GET", pods))["items"] == []
        await account.call("GET", pods, watch="true", timeoutSeconds=1)
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        assert (await account.call("GET", slices))["items"] == []
        await account.call("GET", slices, watch="true", timeoutSeconds=1)
        refused: Sequence[tuple[str, str]] = (
            ("GET", f"/api/v1/namespaces/{other}/pods"),
            ("GET", "/api/v1/pods"),
            ("GET", f"{pods}/one"),
            ("GET", f"{pods}/one/log"),
            ("POST", pods),
            ("DELETE", f"{pods}/one"),
            ("DELETE", pods),
            ("POST", f"{pods}/one/exec"),
            ("GET", f"/apis/discovery.k8s.io/v1/namespaces/{other}/endpointslices"),
            ("GET", "/apis/discovery.k8s.io/v1/endpointslices"),
            ("GET", f"{slices}/one"),
            ("POST", slices),
            ("DELETE", f"{slices}/one"),
            ("GET", f"/api/v1/namespaces/{namespace}/services"),
            ("GET", f"/api/v1/namespaces/{namespace}/secrets"),
            ("GET", f"/api/v1/namespaces/{namespace}/secrets/mine-lora-router-peers"),
            ("GET", f"/api/v1/namespaces/{namespace}/configmaps"),
            ("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments"),
            ("GET", "/api/v1/nodes"),
            ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
        )
        for method, path in refused:
            with pytest.raises(KubeError) as error:
                await account.call(method, path, {} if method == "POST" else None)
            assert error.value.status == 403, (method, path)


async def test_with_a_cluster_role_pods_of_all_namespaces_are_seen(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases
) -> None:
    releases.install(CHART, "wide", {"discovery": {"scope": "cluster"}})
    try:
        token = await admin.token(namespace, "wide-lora-router")
        async with KubeClient(kube.url, kube.ssl_context(), token) as account:
            await account.call("GET", "/api/v1/pods")
            with pytest.raises(KubeError):
                await account.call("GET", "/api/v1/secrets")
    finally:
        releases.uninstall("wide")


async def play_kubelet(admin: KubeClient, namespace: str) -> int:
    """Run the pod of ``helm test`` as a kubelet would. Returns its exit status."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    async with asyncio.timeout(60):
        while not (pods := (await admin.call("GET", path))["items"]):
            await asyncio.sleep(0.05)
    [pod] = pods
    [container] = pod["spec"]["containers"]
    service = f"mine-lora-router.{namespace}:"
    arguments = [text.replace(service, "127.0.0.1:") for text in container["args"]]
    arguments = [text.replace("--timeout=60", "--timeout=2") for text in arguments]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lora_router", *arguments), stdin=asyncio.subprocess.DEVNULL
    )
    status = await process.wait()
    await admin.call(
        "PATCH",
        f"{path}/{pod['metadata']['name']}/status",
        {"status": {"phase": "Failed" if status else "Succeeded"}},
        content_type="application/merge-patch+json",
    )
    return status


async def test_helm_test_tells_a_router_that_serves_from_one_that_does_not(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    router = await install_router(kube, admin, releases, folder)
    try:
        await router.start()
        testing = asyncio.create_task(asyncio.to_thread(releases.test, "mine", timeout=30))
        assert await play_kubelet(admin, namespace) == 0
        await testing
    finally:
        await router.stop()

    testing = asyncio.create_task(asyncio.to_thread(releases.test, "mine", timeout=30))
    assert await play_kubelet(admin, namespace) == 1
    with pytest.raises(helm.HelmError):
        await testing
