"""Discovery through an InferencePool against a real API server, with the permissions it needs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lora_router.discovery.kubernetes import KubernetesOptions, KubernetesPods
from lora_router.discovery.kubernetes_api import Credentials
from lora_router.discovery.objectives import GIE, Objectives
from lora_router.discovery.pool_object import V1, V1ALPHA2, PoolGroup, pool_query
from lora_router.discovery.pool_pods import PoolPods
from lora_router.fleet.fleet import Fleet
from lora_router.routing.priorities import Priorities
from lora_router.supervision import Supervisor
from tests.kube import inference
from tests.kube.inference import X, objective, path, pool
from tests.kube.installed import Releases, install_router
from tests.kube.server import KubeClient, KubeServer
from tests.kube.test_pod_watch import Counts

pytestmark = pytest.mark.asyncio(loop_scope="session")

RULES = [
    {
        "apiGroups": [V1, V1ALPHA2],
        "resources": ["inferencepools"],
        "resourceNames": ["llama"],
        "verbs": ["list", "watch"],
    },
    {"apiGroups": [GIE], "resources": ["inferenceobjectives"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
]
"""What the chart's Role and docs/kubernetes.md allow."""


@pytest_asyncio.fixture(loop_scope="session")
async def installed(admin: KubeClient) -> None:
    """The custom resources."""
    await inference.install(admin)


class Router:
    """The discovery of a router, and its fleet."""

    def __init__(self, kubeconfig: Path, namespace: str, group: PoolGroup) -> None:
        self.namespace = namespace
        self.fleet = Fleet()
        self.priorities = Priorities()
        self.counts = Counts()
        credentials, supervisor = Credentials(kubeconfig), Supervisor()
        pods = KubernetesPods(
            self.fleet,
            KubernetesOptions(namespaces=(namespace,), credentials=credentials),
            self.counts,
            supervisor,
        )
        query = pool_query(namespace, "llama", group)
        self.discovery = PoolPods(
            pods,
            query,
            credentials,
            self.counts,
            supervisor,
            objectives=Objectives(query, GIE, credentials, self.priorities.put),
        )

    def endpoints(self) -> dict[str, str]:
        start = len(self.namespace) + 1
        return {state.pod.name[start:]: state.pod.address for state in self.fleet.ready()}

    def shown(self) -> Mapping[str, Any]:
        found = self.discovery.status()["inference_pool"]
        assert isinstance(found, dict)
        return found

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.02)

    async def until_endpoints(self, expected: dict[str, str]) -> None:
        await self.until(lambda: self.endpoints() == expected)


async def narrow_kubeconfig(
    kube: KubeServer, admin: KubeClient, namespace: str, folder: Path
) -> Path:
    """Return a kubeconfig of an account that may do what ``RULES`` allow."""
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    await admin.call(
        "POST",
        f"/api/v1/namespaces/{namespace}/serviceaccounts",
        {"metadata": {"name": "router"}},
    )
    await admin.call("POST", f"{rbac}/roles", {"metadata": {"name": "router"}, "rules": RULES})
    await admin.call(
        "POST",
        f"{rbac}/rolebindings",
        {
            "metadata": {"name": "router"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": "router",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "router", "namespace": namespace}],
        },
    )
    token = await admin.token(namespace, "router")
    return kube.write_kubeconfig(folder / "router.kubeconfig", token=token)


@asynccontextmanager
async def running(
    kube: KubeServer,
    admin: KubeClient,
    namespace: str,
    folder: Path,
    group: PoolGroup = V1,
) -> AsyncIterator[Router]:
    router = Router(await narrow_kubeconfig(kube, admin, namespace, folder), namespace, group)
    await router.discovery.start()
    try:
        yield router
    finally:
        await router.discovery.stop()


@pytest.mark.usefixtures("installed")
async def test_a_pool_comes_changes_is_deleted_and_comes_back(
    kube: KubeServer, admin: KubeClient, namespace: str, folder: Path
) -> None:
    await admin.pod(namespace, "a", ip="10.0.0.1", labels={"app": "vllm"})
    await admin.pod(namespace, "b", ip="fd00::2", labels={"app": "sglang"})
    async with running(kube, admin, namespace, folder) as router:
        await router.until(lambda: router.shown().get("error") == "it does not exist")
        assert not router.fleet.synced

        picker = {"name": "lora-router", "port": {"number": 50052}}
        first = pool("llama", "vllm", 8000, endpointPickerRef=picker)
        await admin.call("POST", path(namespace), first)
        await router.until_endpoints({"a": "10.0.0.1:8000"})
        assert router.shown()["failure_mode"] == "FailClose"
        assert router.shown()["app_protocol"] == "http"

        changed = pool("llama", "sglang", 8000, 8001)
        await admin.call(
            "PATCH",
            path(namespace, name="llama"),
            {"spec": changed["spec"]},
            content_type="application/merge-patch+json",
        )
        both = {"b-rank-0": "[fd00::2]:8000", "b-rank-1": "[fd00::2]:8001"}
        await router.until_endpoints(both)

        await admin.call("DELETE", path(namespace, name="llama"))
        await router.until(lambda: router.shown().get("error") == "it does not exist")
        assert router.endpoints() == both

        await admin.pod_status(namespace, "b", ip="fd00::2", ready=False)
        await router.until_endpoints({})

        await admin.call("POST", path(namespace), pool("llama", "vllm", 9000))
        await router.until_endpoints({"a": "10.0.0.1:9000"})
        assert "error" not in router.shown()


@pytest.mark.usefixtures("installed")
async def test_another_pool_is_of_no_concern(
    kube: KubeServer, admin: KubeClient, namespace: str, folder: Path
) -> None:
    await admin.pod(namespace, "a", ip="10.0.0.1", labels={"app": "vllm"})
    await admin.call("POST", path(namespace), pool("llama", "vllm", 8000))
    async with running(kube, admin, namespace, folder) as router:
        await router.until_endpoints({"a": "10.0.0.1:8000"})
        await admin.call("POST", path(namespace), pool("qwen", "vllm", 9000))
        await admin.pod(namespace, "c", ip="10.0.0.3", labels={"app": "vllm"})
        await router.until_endpoints({"a": "10.0.0.1:8000", "c": "10.0.0.3:8000"})


@pytest.mark.usefixtures("installed")
async def test_a_pool_of_the_former_group(
    kube: KubeServer, admin: KubeClient, namespace: str, folder: Path
) -> None:
    await admin.pod(namespace, "a", ip="10.0.0.1", labels={"app": "vllm"})
    document = {
        "apiVersion": f"{X}/v1alpha2",
        "kind": "InferencePool",
        "metadata": {"name": "llama"},
        "spec": {
            "selector": {"app": "vllm"},
            "targetPortNumber": 8100,
            "extensionRef": {"name": "epp", "failureMode": "FailOpen"},
        },
    }
    await admin.call("POST", path(namespace, group=X), document)
    async with running(kube, admin, namespace, folder, V1ALPHA2) as router:
        await router.until_endpoints({"a": "10.0.0.1:8100"})
        assert router.shown()["failure_mode"] == "FailOpen"


@pytest.mark.usefixtures("installed")
async def test_objectives_are_followed(
    kube: KubeServer, admin: KubeClient, namespace: str, folder: Path
) -> None:
    objectives = path(namespace, "inferenceobjectives", X)
    await admin.call("POST", objectives, objective("chat", 10, "llama"))
    await admin.call("POST", objectives, objective("other", 10, "qwen"))
    async with running(kube, admin, namespace, folder) as router:
        await router.until(lambda: router.priorities.by_objective == {"chat": 10})

        await admin.call("POST", objectives, objective("batch", -10, "llama"))
        await router.until(lambda: router.priorities.of("batch") == -10)

        await admin.call("DELETE", path(namespace, "inferenceobjectives", X, "chat"))
        await router.until(lambda: router.priorities.by_objective == {"batch": -10})


@pytest.mark.usefixtures("installed", "resources")
async def test_the_chart_installs_a_pool_and_a_router_that_may_follow_it(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    await admin.pod(namespace, "a", ip="127.0.0.1", labels={"app": "vllm"})
    pool_values = {"matchLabels": {"app": "vllm"}, "targetPorts": [8000, 8001]}
    router = await install_router(
        kube,
        admin,
        releases,
        folder,
        {
            "gateway": {"mode": "inferencepool", "inferencePool": pool_values},
            "settings": {"startup_timeout_seconds": 0},
        },
    )
    created = await admin.call("GET", path(namespace, name="mine-lora-router"))
    picker = created["spec"]["endpointPickerRef"]
    service = await admin.call("GET", f"/api/v1/namespaces/{namespace}/services/{picker['name']}")
    assert picker["port"]["number"] in [port["port"] for port in service["spec"]["ports"]]

    objectives = path(namespace, "inferenceobjectives", X)
    await admin.call("POST", objectives, objective("chat", 10, "mine-lora-router"))
    try:
        await router.start()
        addresses = {state.pod.name: state.pod.address for state in router.fleet.ready()}
        assert addresses == {
            f"{namespace}/a-rank-0": "127.0.0.1:8000",
            f"{namespace}/a-rank-1": "127.0.0.1:8001",
        }
        details = router.readiness().details
        pool_details = details["inference_pool"]
        assert isinstance(pool_details, dict)
        assert pool_details["failure_mode"] == "FailOpen"
        assert "error" not in pool_details
        async with asyncio.timeout(60):
            while router.director.priorities.of("chat") != 10:
                await asyncio.sleep(0.02)
    finally:
        await router.stop()
