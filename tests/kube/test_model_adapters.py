"""ModelAdapters on a real API server: declared, loaded into pods, and their status.

The routers have the settings and the permissions of the chart. The pods of the cluster are
simulated servers on loopback, which take vLLM's calls.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from lora_router.app import App
from lora_router.discovery.kubernetes_api import ApiError, Credentials
from lora_router.discovery.model_adapter_object import AIBRIX_FINALIZER, ModelAdapterStatus
from lora_router.discovery.model_adapter_record import Key
from lora_router.discovery.model_adapter_store import KubernetesStatus
from lora_router.peering import addresses
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.simulated_pod import PodOptions, SimulatedPod
from tests.chart import CHART
from tests.envoy import free_port
from tests.kube import crds
from tests.kube.installed import Releases, install_router, installed_router
from tests.kube.server import KubeClient, KubeError, KubeServer
from tests.kube.test_chart_peers import port_of, publish
from tests.unit.discovery.model_adapter_objects import record
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENGINE = EngineOptions(disk_load_seconds=0.01, host_load_seconds=0.0, step_seconds=0.005)
VALUES: Mapping[str, object] = {
    "adapters": {"sources": ["/adapters", "org"], "modelAdapters": {"enabled": True}},
    "settings": {"pod_metric_refresh_interval_ms": 500},
}
MERGE = "application/merge-patch+json"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_target", lambda ip, port: f"127.0.0.1:{port}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def defined(kube: KubeServer) -> None:
    """The definition of the chart."""
    async with kube.admin() as admin:
        await crds.install_model_adapters(admin)


class Adapters:
    """The ModelAdapters of one namespace."""

    def __init__(self, admin: KubeClient, namespace: str) -> None:
        self._admin = admin
        self.path = f"/apis/model.aibrix.ai/v1alpha1/namespaces/{namespace}/modeladapters"

    async def create(
        self, name: str, metadata: Mapping[str, object] | None = None, **spec: object
    ) -> None:
        document = {
            "apiVersion": "model.aibrix.ai/v1alpha1",
            "kind": "ModelAdapter",
            "metadata": {"name": name, **(metadata or {})},
            "spec": {"baseModel": "base", "artifactURL": f"/adapters/{name}", **spec},
        }
        await self._admin.call("POST", self.path, document, fieldValidation="Strict")

    async def change(self, name: str, document: Mapping[str, object]) -> None:
        await self._admin.call("PATCH", f"{self.path}/{name}", document, content_type=MERGE)

    async def delete(self, name: str) -> None:
        await self._admin.call("DELETE", f"{self.path}/{name}")

    async def get(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._admin.call("GET", f"{self.path}/{name}")
        return found

    async def status_when(
        self, name: str, is_right: Callable[[dict[str, Any]], object]
    ) -> dict[str, Any]:
        """Return the status once it is right."""
        status: dict[str, Any] = {}
        try:
            async with asyncio.timeout(60):
                while not (status and is_right(status)):
                    await asyncio.sleep(0.05)
                    status = (await self.get(name)).get("status") or {}
        except TimeoutError:
            raise AssertionError(f"the status of {name} is {status}") from None
        return status

    async def running(self, name: str, pods: int) -> dict[str, Any]:
        return await self.status_when(
            name, lambda found: found["phase"] == "Running" and found["readyReplicas"] == pods
        )

    async def instances(self, name: str, *pods: str) -> None:
        await self.status_when(name, lambda found: found["instances"] == list(pods))


def condition(status: Mapping[str, Any], kind: str) -> tuple[str, str, str]:
    [found] = [each for each in status["conditions"] if each["type"] == kind]
    return found["status"], found["reason"], found["message"]


@asynccontextmanager
async def servers(
    admin: KubeClient, namespace: str, options: Sequence[PodOptions]
) -> AsyncIterator[list[SimulatedPod]]:
    """Run model servers, as pods of the cluster."""
    async with AsyncExitStack() as stack:
        found = []
        for each in options:
            pod = await stack.enter_async_context(SimulatedPod(replace(each, engine=ENGINE)))
            labels = {
                "model.aibrix.ai/name": "base",
                "model.aibrix.ai/port": pod.address.rpartition(":")[2],
                "lora-router/max-cpu-loras": "8",
                "pod": each.name,
            }
            await admin.pod(namespace, each.name, labels=labels)
            found.append(pod)
        yield found


TWO = (PodOptions("vllm-0"), PodOptions("vllm-1"))


async def test_resources_are_loaded_changed_and_unloaded_and_their_status_is_right(
    kube: KubeServer,
    admin: KubeClient,
    namespace: str,
    releases: Releases,
    folder: Any,
    defined: None,
) -> None:
    adapters = Adapters(admin, namespace)
    router = await install_router(kube, admin, releases, folder, VALUES)
    async with AsyncExitStack() as stack:
        pods = await stack.enter_async_context(servers(admin, namespace, TWO))
        stack.push_async_callback(router.stop)
        await router.start()

        await adapters.create("sql")
        await adapters.create("chat", replicas=1, podSelector={"matchLabels": {"pod": "vllm-1"}})
        await adapters.create("evil", artifactURL="/etc/passwd")
        await adapters.create("away", artifactURL="/adapters/../x")
        status = await adapters.running("sql", 2)
        assert (status["candidates"], status["desiredReplicas"]) == (2, 2)
        assert status["instances"] == ["vllm-0", "vllm-1"]
        assert condition(status, "Ready")[:2] == ("True", "ModelAdapterAvailable")
        status = await adapters.running("chat", 1)
        assert (status["candidates"], status["instances"]) == (1, ["vllm-1"])
        status = await adapters.status_when("evil", lambda found: found["phase"] == "Failed")
        held, reason, message = condition(status, "Ready")
        assert (held, reason) == ("False", "ValidationFailed")
        assert message.startswith("spec.artifactURL='/etc/passwd': must begin with a prefix in ")
        assert [set(pod.adapters.roots) for pod in pods] == [{"sql"}, {"sql", "chat"}]

        # Another source is loaded beside the old one, which is then unloaded.
        await adapters.change("chat", {"spec": {"artifactURL": "huggingface://org/chat"}})
        await until(lambda: "org/chat" in pods[1].adapters.roots.values())
        await until(lambda: "chat" not in pods[1].adapters.roots)
        status = await adapters.running("chat", 1)
        generation = (await adapters.get("chat"))["metadata"]["generation"]
        await adapters.status_when(
            "chat", lambda found: found["conditions"][0]["observedGeneration"] == generation
        )

        # It moves to other pods, and then to more and to fewer of them.
        await adapters.change("chat", {"spec": {"podSelector": {"matchLabels": {"pod": "vllm-0"}}}})
        await adapters.instances("chat", "vllm-0")
        await adapters.change("chat", {"spec": {"podSelector": None, "replicas": 2}})
        await adapters.instances("chat", "vllm-0", "vllm-1")
        await adapters.change("chat", {"spec": {"replicas": 1}})
        await adapters.status_when("chat", lambda found: len(found["instances"]) == 1)

        # An invalid edit leaves it as it is.
        await adapters.change("chat", {"spec": {"artifactURL": "/etc/passwd"}})
        status = await adapters.status_when(
            "chat", lambda found: found["conditions"][0]["status"] == "False"
        )
        assert condition(status, "Ready")[:2] == ("True", "ModelAdapterAvailable")
        assert "the last valid spec stays in use" in condition(status, "Initialized")[2]
        await adapters.change("chat", {"spec": {"artifactURL": "huggingface://org/chat"}})

        # One that was refused is mended.
        await adapters.change("evil", {"spec": {"artifactURL": "/adapters/good"}})
        await adapters.running("evil", 2)

        await adapters.delete("sql")
        await until(lambda: not any("sql" in pod.adapters.roots for pod in pods))
        shown = router.readiness().details["model_adapters"]
        assert isinstance(shown, dict)
        assert shown["resources"] == 3
        assert list(shown["problems"]) == [f"{namespace}/away"]


async def test_a_failure_is_told_and_a_finalizer_of_aibrix_delays_no_unload(
    kube: KubeServer,
    admin: KubeClient,
    namespace: str,
    releases: Releases,
    folder: Any,
    defined: None,
) -> None:
    adapters = Adapters(admin, namespace)
    values = {**VALUES, "adapters": {**VALUES["adapters"], "sources": ["/adapters", "/unfit"]}}  # type: ignore[dict-item]
    router = await install_router(kube, admin, releases, folder, values)
    await adapters.create("kept", {"finalizers": [AIBRIX_FINALIZER]})
    async with AsyncExitStack() as stack:
        blocked = PodOptions("vllm-0", runtime_loading=False)
        [pod, other] = await stack.enter_async_context(
            servers(admin, namespace, (PodOptions("vllm-1"), blocked))
        )
        stack.push_async_callback(router.stop)
        await router.start()

        await adapters.create("big", artifactURL="/unfit/big", replicas=1)
        status = await adapters.status_when("big", lambda found: found["phase"] == "Failed")
        assert condition(status, "Bound")[1] == "ModelAdapterLoadingError"
        assert "LoRA rank 64 is greater than max_lora_rank 16" in condition(status, "Bound")[2]

        await adapters.running("kept", 1)
        assert "kept" in pod.adapters.roots
        await adapters.delete("kept")
        await until(lambda: "kept" not in pod.adapters.roots)
        status = await adapters.status_when("kept", lambda found: found["phase"] == "Unknown")
        assert condition(status, "Ready")[1] == "Deleting"
        assert AIBRIX_FINALIZER in condition(status, "Ready")[2]
        await adapters.change("kept", {"metadata": {"finalizers": None}})
        with pytest.raises(KubeError, match="404"):
            await adapters.get("kept")
        assert not other.adapters.roots


async def test_one_of_two_routers_loads_and_the_other_takes_over(
    kube: KubeServer,
    admin: KubeClient,
    namespace: str,
    releases: Releases,
    folder: Any,
    defined: None,
) -> None:
    adapters = Adapters(admin, namespace)
    values = {**VALUES, "drain": {"delaySeconds": 0}}
    first = await install_router(kube, admin, releases, folder, values)
    ports = {"grpc_port": free_port(), "admin_port": free_port()}
    second = await installed_router(kube, admin, releases, folder, ports)
    async with AsyncExitStack() as stack:
        pods = await stack.enter_async_context(servers(admin, namespace, TWO))
        await publish(admin, namespace, [port_of(first), port_of(second)])
        for router in (first, second):
            stack.push_async_callback(router.stop)
            await router.start()
        await until(lambda: len(loaders(first, second)) == 1)
        [loader] = loaders(first, second)
        [other] = {first, second} - {loader}
        for number in range(4):
            await adapters.create(f"a-{number}")
        for number in range(4):
            await adapters.running(f"a-{number}", 2)
        assert (loads(loader), loads(other)) == (8, 0)
        assert (writes(loader) > 0, writes(other)) == (True, 0)
        lease = (
            f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/mine-lora-router-loader"
        )
        assert (await admin.call("GET", lease))["spec"]["holderIdentity"] == loader.name
        # Both know all names.
        assert {first.readiness().ready, second.readiness().ready} == {True}

        await loader.stop()
        await adapters.create("new")
        await adapters.running("new", 2)
        assert loaders(first, second) == [other]
        assert all("new" in pod.adapters.roots for pod in pods)
        assert loads(other) == 2


def loaders(*apps: App) -> list[App]:
    return [app for app in apps if app.loader is not None and app.loader.loader.loads]


def loads(app: App) -> float:
    """Return how many adapters a router has loaded."""
    series = 'lora_router_adapter_calls_total{action="load",outcome="done"} '
    lines = app.telemetry.page().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(series))


def writes(app: App) -> int:
    """Return how many statuses a router has written."""
    assert app.loader is not None
    assert app.loader.resources is not None
    return app.loader.resources.writer.writes["written"]


async def test_the_account_can_follow_model_adapters_and_write_their_status_and_nothing_else(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, defined: None
) -> None:
    releases.install(CHART, "mine", VALUES)
    adapters = Adapters(admin, namespace)
    await adapters.create("sql")
    token = await admin.token(namespace, "mine-lora-router")
    own = f"{adapters.path}/sql"
    async with KubeClient(kube.url, kube.ssl_context(), token) as account:
        listed = await account.call("GET", adapters.path)
        assert [each["metadata"]["name"] for each in listed["items"]] == ["sql"]
        await account.call("GET", adapters.path, watch="true", timeoutSeconds=1)
        status = {"metadata": {"finalizers": ["a.b/c"]}, "status": {"phase": "Running"}}
        await account.call("PATCH", f"{own}/status", status, content_type=MERGE)
        found = await adapters.get("sql")
        assert found["status"] == {"phase": "Running"}
        assert "finalizers" not in found["metadata"]

        others = Adapters(admin, "default").path
        for method, path in (
            ("GET", own),
            ("PATCH", own),
            ("PUT", own),
            ("PUT", f"{own}/status"),
            ("DELETE", own),
            ("POST", adapters.path),
            ("GET", others),
            ("PATCH", f"{others}/sql/status"),
            ("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"),
            ("DELETE", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/any"),
        ):
            body: object = None if method in {"GET", "DELETE"} else {}
            kind = MERGE if method == "PATCH" else "application/json"
            with pytest.raises(KubeError) as error:
                await account.call(method, path, body, content_type=kind)
            assert error.value.status == 403, (method, path)


async def test_a_status_is_written_over_the_version_that_was_seen_only(
    kube: KubeServer, admin: KubeClient, namespace: str, defined: None
) -> None:
    adapters = Adapters(admin, namespace)
    await adapters.create("sql")
    metadata = (await adapters.get("sql"))["metadata"]
    seen = replace(
        record(),
        key=Key(namespace, "sql"),
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
    )
    store = await KubernetesStatus.open(Credentials(kube.kubeconfig), "lora-router/test")
    try:
        version = await store.write(seen, ModelAdapterStatus("Pending"))
        found = (await adapters.get("sql"))["metadata"]
        assert found["resourceVersion"] == version
        writers = [each["manager"] for each in found["managedFields"] if "subresource" in each]
        assert writers == ["lora-router/test"]
        causes = []
        for _ in range(2):
            with pytest.raises(ApiError) as error:
                await store.write(seen, ModelAdapterStatus("Running"))
            causes.append(error.value.cause)
            if len(causes) == 1:
                await adapters.delete("sql")
        assert causes == ["conflict", "missing"]
    finally:
        await store.close()
