"""The pod watcher against a real API server: changes of pods, and lost connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.config import incluster_config

from lora_router.discovery import object_watch
from lora_router.discovery.kubernetes import KubernetesOptions, KubernetesPods
from lora_router.discovery.kubernetes_api import Credentials
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from tests.kube.proxy import Proxy
from tests.kube.server import KubeClient, KubeServer
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Counts:
    """Counts what the watcher reports."""

    def __init__(self) -> None:
        self.events: dict[str, int] = {}
        self.lost: list[str] = []

    def pod_events(self, kind: str, count: int) -> None:
        self.events[kind] = self.events.get(kind, 0) + count

    def discovery_lost(self, cause: str) -> None:
        self.lost.append(cause)


class Watcher:
    """A watcher and its fleet."""

    def __init__(self, options: KubernetesOptions) -> None:
        self.fleet = Fleet()
        self.counts = Counts()
        self.pods = KubernetesPods(self.fleet, options, self.counts)

    def pod(self, name: str) -> Pod | None:
        state = self.fleet.get(name)
        return None if state is None else state.pod

    def names(self, *, ready: bool = True) -> set[str]:
        return {state.pod.name for state in self.fleet if state.pod.ready is ready}


@asynccontextmanager
async def watching(
    kubeconfig: Path | None,
    *namespaces: str,
    seconds: int = 30,
    selector: str = "model.aibrix.ai/name",
) -> AsyncIterator[Watcher]:
    watcher = Watcher(
        KubernetesOptions(
            namespaces=namespaces,
            selector=selector,
            credentials=Credentials(kubeconfig),
            watch_seconds=seconds,
        )
    )
    await watcher.pods.start()
    try:
        async with asyncio.timeout(60):
            await watcher.pods.synced()
        yield watcher
    finally:
        await watcher.pods.stop()


async def test_a_pod_comes_gets_ready_fails_moves_and_goes(
    kube: KubeServer, admin: KubeClient, namespace: str
) -> None:
    name = f"{namespace}/a"
    async with watching(kube.kubeconfig, namespace) as watcher:
        assert watcher.fleet.synced
        assert len(watcher.fleet) == 0

        await admin.pod(namespace, "a", ip=None)
        await admin.pod_status(namespace, "a", ip="10.1.2.3", ready=False)
        await until(lambda: watcher.names(ready=False) == {name})
        assert watcher.fleet.ready() == ()

        await admin.pod_status(namespace, "a", ip="10.1.2.3", ready=True)
        await until(lambda: watcher.names() == {name})
        pod = watcher.pod(name)
        assert pod is not None
        assert pod.address == "10.1.2.3:8000"
        assert pod.uid
        [state] = watcher.fleet.serving("base").pods
        assert state.pod is pod

        await admin.pod_status(namespace, "a", ip="10.1.2.3", ready=False)
        await until(lambda: watcher.names() == set())

        await admin.pod_status(namespace, "a", ip="10.1.2.4", ready=True)
        await until(lambda: watcher.names() == {name})
        assert watcher.fleet.ready()[0].pod.address == "10.1.2.4:8000"
        assert watcher.fleet.ready()[0] is not state

        await admin.delete_pod(namespace, "a")
        await until(lambda: len(watcher.fleet) == 0)


async def test_a_terminating_pod_gets_no_new_request_and_keeps_its_own(
    kube: KubeServer, admin: KubeClient, namespace: str
) -> None:
    await admin.pod(namespace, "a")
    async with watching(kube.kubeconfig, namespace) as watcher:
        [state] = watcher.fleet.ready()
        reservation = watcher.fleet.ledger.reserve(state, None)

        await admin.delete_pod(namespace, "a", grace=600)
        await until(lambda: watcher.fleet.ready() == ())
        assert watcher.fleet.get(f"{namespace}/a") is state
        assert state.in_flight == 1

        await admin.delete_pod(namespace, "a")
        await until(lambda: len(watcher.fleet) == 0)
        reservation.release()
        assert watcher.fleet.ledger.total == 0


async def test_a_pod_with_the_name_of_an_earlier_one_is_another(
    kube: KubeServer, admin: KubeClient, namespace: str
) -> None:
    await admin.pod(namespace, "a")
    async with watching(kube.kubeconfig, namespace) as watcher:
        [first] = watcher.fleet.ready()
        await admin.delete_pod(namespace, "a")
        await admin.pod(namespace, "a")
        await until(lambda: watcher.names() != set() and watcher.fleet.ready()[0] is not first)


async def test_a_pod_with_several_servers_comes_changes_and_goes(
    kube: KubeServer, admin: KubeClient, namespace: str
) -> None:
    await admin.pod(namespace, "a", annotations={"lora-router/ports": "8000,8001"})
    async with watching(kube.kubeconfig, namespace) as watcher:
        both = {f"{namespace}/a-rank-0", f"{namespace}/a-rank-1"}
        assert watcher.names() == both
        assert len({state.pod.uid for state in watcher.fleet}) == 1

        await admin.pod_status(namespace, "a", ip="127.0.0.1", ready=False)
        await until(lambda: watcher.names(ready=False) == both)

        await admin.pod_status(namespace, "a", ip="127.0.0.1", ready=True)
        await admin.call(
            "PATCH",
            f"/api/v1/namespaces/{namespace}/pods/a",
            {"metadata": {"annotations": {"lora-router/ports": "8001"}}},
            content_type="application/merge-patch+json",
        )
        await until(lambda: watcher.names() == {f"{namespace}/a"})
        assert watcher.fleet.ready()[0].pod.address == "127.0.0.1:8001"

        await admin.delete_pod(namespace, "a")
        await until(lambda: len(watcher.fleet) == 0)


async def test_the_port_of_a_native_sidecar_is_seen(
    kube: KubeServer, admin: KubeClient, namespace: str
) -> None:
    proxy = {
        "name": "proxy",
        "restartPolicy": "Always",
        "ports": [{"name": "http", "containerPort": 8443}],
    }
    await admin.pod(namespace, "a", ip="fd00::7", init_containers=(proxy,))
    async with watching(kube.kubeconfig, namespace) as watcher:
        assert watcher.fleet.ready()[0].pod.address == "[fd00::7]:8443"


async def test_annotations_say_how_a_pod_is_read_and_may_change(
    kube: KubeServer, admin: KubeClient, namespace: str
) -> None:
    await admin.pod(namespace, "a", ip="10.0.0.7", annotations={"lora-router/scheme": "https"})
    async with watching(kube.kubeconfig, namespace) as watcher:
        assert watcher.fleet.ready()[0].pod.metrics_url == "https://10.0.0.7:8000/metrics"

        await admin.call(
            "PATCH",
            f"/api/v1/namespaces/{namespace}/pods/a",
            {"metadata": {"annotations": {"lora-router/metrics-path": "/stats"}}},
            content_type="application/merge-patch+json",
        )
        await until(
            lambda: watcher.fleet.ready()[0].pod.metrics_url == "https://10.0.0.7:8000/stats"
        )


async def test_only_pods_that_the_selector_takes_and_only_as_long(
    kube: KubeServer, admin: KubeClient, namespace: str
) -> None:
    await admin.pod(namespace, "other", labels={"app": "web"})
    await admin.pod(namespace, "mine", labels={"app": "vllm"})
    async with watching(kube.kubeconfig, namespace, selector="app in (vllm, sglang)") as watcher:
        assert watcher.names() == {f"{namespace}/mine"}

        await admin.call(
            "PATCH",
            f"/api/v1/namespaces/{namespace}/pods/mine",
            {"metadata": {"labels": {"app": "retired"}}},
            content_type="application/merge-patch+json",
        )
        await until(lambda: len(watcher.fleet) == 0)


async def test_ports_and_labels_are_read_and_bad_ones_are_one_line(
    kube: KubeServer, admin: KubeClient, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    http = {"name": "http", "containerPort": 9000}
    await admin.pod(namespace, "named", ports=({"containerPort": 1}, http), ip="fd00::1")
    labels = {"model.aibrix.ai/name": "base", "model.aibrix.ai/port": "80.80"}
    await admin.pod(namespace, "bad", labels=labels)
    async with watching(kube.kubeconfig, namespace) as watcher:
        named, bad = watcher.pod(f"{namespace}/named"), watcher.pod(f"{namespace}/bad")
        assert named is not None
        assert named.address == "[fd00::1]:9000"
        assert bad is not None
        assert bad.address == "127.0.0.1:8000"

        await admin.pod_status(namespace, "bad", ip="10.0.0.9", ready=True)
        await until(lambda: watcher.pod(f"{namespace}/bad") != bad)
        lines = [record.getMessage() for record in caplog.records if "bad" in record.getMessage()]
        assert lines[0] == (
            f"pod {namespace}/bad: label model.aibrix.ai/port='80.80' must be a port from 1 to "
            "65535; 8000 is used"
        )
        assert sum("80.80" in line for line in lines) == 1


async def test_a_watch_that_the_server_ends_goes_on_without_a_list(
    kube: KubeServer, admin: KubeClient, namespace: str
) -> None:
    async with watching(kube.kubeconfig, namespace, seconds=1) as watcher:
        await asyncio.sleep(2.5)
        await admin.pod(namespace, "late")
        await until(lambda: watcher.names() == {f"{namespace}/late"})
        assert watcher.counts.lost == []
        assert watcher.counts.events["listed"] == 0
        # Each watch that ends confirms the pods, on a busy machine a little later.
        await until(lambda: watcher.pods.age < 2)


async def test_a_connection_that_is_cut_loses_nothing(
    kube: KubeServer, admin: KubeClient, namespace: str, folder: Path
) -> None:
    async with Proxy(kube.port) as proxy:
        config = kube.write_kubeconfig(folder / "config", port=proxy.port)
        async with watching(config, namespace) as watcher:
            for number in range(10):
                proxy.cut()
                await admin.pod(namespace, f"pod-{number}")
            await until(lambda: len(watcher.names()) == 10)
            assert watcher.counts.events["listed"] == 0
            assert "connect" in watcher.counts.lost
            assert watcher.pods.last_error is None


async def test_a_connection_that_goes_silent_is_noticed(
    kube: KubeServer,
    admin: KubeClient,
    namespace: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(object_watch, "SILENCE_SECONDS", 1.0)
    await admin.pod(namespace, "before")
    async with Proxy(kube.port) as proxy:
        config = kube.write_kubeconfig(folder / "config", port=proxy.port)
        async with watching(config, namespace, seconds=1) as watcher:
            await asyncio.sleep(0.3)
            proxy.silence()
            await admin.pod(namespace, "meanwhile")
            await until(lambda: len(watcher.counts.lost) > 0)
            assert set(watcher.counts.lost) == {"timeout"}
            assert watcher.names() == {f"{namespace}/before"}
            assert watcher.pods.age > 1
            status = watcher.pods.status()
            assert "no complete response within 2 s" in str(status["discovery_error"])

            proxy.speak()
            await until(lambda: len(watcher.names()) == 2)


async def test_all_that_happened_while_the_api_server_was_away_is_known_after(
    kube: KubeServer, admin: KubeClient, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The restarted server has an empty watch cache and etcd is compacted: 410, then a list."""
    caplog.set_level("INFO")
    await admin.pod(namespace, "stays")
    await admin.pod(namespace, "leaves")
    async with Proxy(kube.port) as proxy:
        config = kube.write_kubeconfig(kube.folder / "away", port=proxy.port)
        async with watching(config, namespace) as watcher:
            assert len(watcher.names()) == 2
            # The connection is cut, pods change, and etcd compacts their versions.
            await proxy.__aexit__()
            await admin.delete_pod(namespace, "leaves")
            for number in range(3):
                await admin.pod(namespace, f"new-{number}")
            await kube.compact()
            await kube.stop_api()
            await until(lambda: watcher.pods.last_error is not None)
            assert len(watcher.names()) == 2
            assert "the last list of 2 pods stays in use" in caplog.text

            await kube.start_api()
            await proxy.__aenter__()
            expected = {f"{namespace}/{name}" for name in ("stays", "new-0", "new-1", "new-2")}
            await until(lambda: watcher.names() == expected, 60)
            assert watcher.counts.events["listed"] == 2 + 4
            assert watcher.pods.last_error is None
            assert "recovered; 4 pods" in caplog.text


async def test_the_api_server_need_not_be_there_at_the_start(
    kube: KubeServer, admin: KubeClient, namespace: str, folder: Path
) -> None:
    await admin.pod(namespace, "a")
    proxy = Proxy(kube.port)
    async with proxy:
        pass  # Now its port is known, and nobody listens.
    config = kube.write_kubeconfig(folder / "config", port=proxy.port)
    watcher = Watcher(KubernetesOptions(namespaces=(namespace,), credentials=Credentials(config)))
    await watcher.pods.start()
    try:
        await until(lambda: "connect" in watcher.counts.lost)
        assert not watcher.fleet.synced
        async with proxy:
            async with asyncio.timeout(60):
                await watcher.pods.synced()
            assert watcher.names() == {f"{namespace}/a"}
    finally:
        await watcher.pods.stop()


async def test_a_namespace_that_is_forbidden_is_named(
    kube: KubeServer, admin: KubeClient, namespace: str, folder: Path
) -> None:
    await admin.call(
        "POST",
        f"/api/v1/namespaces/{namespace}/serviceaccounts",
        {"metadata": {"name": "nobody"}},
    )
    token = await admin.token(namespace, "nobody")
    config = kube.write_kubeconfig(folder / "config", token=token)
    options = KubernetesOptions(namespaces=(namespace,), credentials=Credentials(config))
    watcher = Watcher(options)
    await watcher.pods.start()
    try:
        await until(lambda: watcher.counts.lost != [])
        assert watcher.counts.lost[0] == "forbidden"
        assert watcher.pods.last_error == (
            f"namespace {namespace}: status 403: pods is forbidden: User "
            f'"system:serviceaccount:{namespace}:nobody" cannot list resource "pods" in API group '
            f'"" in the namespace "{namespace}"'
        )
        assert not watcher.fleet.synced
    finally:
        await watcher.pods.stop()


async def accounts_that_follow_pods(
    admin: KubeClient, namespace: str, *names: str
) -> dict[str, str]:
    """Create service accounts that may list and watch pods. Returns a token of each."""
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
    await admin.call("POST", f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": [rule]})
    subjects = [{"kind": "ServiceAccount", "name": name, "namespace": namespace} for name in names]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    binding = {"metadata": {"name": "r"}, "subjects": subjects, "roleRef": role}
    await admin.call("POST", f"{rbac}/rolebindings", binding)
    for name in names:
        await admin.call("POST", accounts, {"metadata": {"name": name}})
    return {name: await admin.token(namespace, name) for name in names}


async def test_credentials_that_are_replaced_are_read_anew(
    kube: KubeServer, admin: KubeClient, namespace: str, folder: Path
) -> None:
    tokens = await accounts_that_follow_pods(admin, namespace, "old", "new")
    config = kube.write_kubeconfig(folder / "config", token=tokens["old"])
    async with watching(config, namespace, seconds=1) as watcher:
        await admin.call("DELETE", f"/api/v1/namespaces/{namespace}/serviceaccounts/old")
        await until(lambda: "unauthorized" in watcher.counts.lost)

        kube.write_kubeconfig(config, token=tokens["new"])
        await admin.pod(namespace, "a")
        await until(lambda: watcher.names() == {f"{namespace}/a"})
        assert watcher.pods.last_error is None


async def test_in_a_pod_its_service_account_counts_and_its_token_may_be_rotated(
    kube: KubeServer,
    admin: KubeClient,
    namespace: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Mimic a kubelet: two variables, and a folder with a token and a certificate."""
    tokens = await accounts_that_follow_pods(admin, namespace, "old", "new")
    mounted = folder / "token"
    mounted.write_text(tokens["old"])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(kube.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(mounted))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(kube.folder / "ca.pem"))
    async with watching(None, namespace, seconds=1) as watcher:
        await admin.pod(namespace, "a")
        await until(lambda: watcher.names() == {f"{namespace}/a"})

        mounted.write_text(tokens["new"])
        await admin.call("DELETE", f"/api/v1/namespaces/{namespace}/serviceaccounts/old")
        await until(lambda: "unauthorized" in watcher.counts.lost)
        await admin.pod(namespace, "b")
        await until(lambda: len(watcher.names()) == 2)


async def test_several_namespaces_and_two_replicas(
    kube: KubeServer, admin: KubeClient, namespace: str
) -> None:
    other = f"{namespace}-other"
    await admin.namespace(other)
    await admin.pod(namespace, "a")
    await admin.pod(other, "a", ip="127.0.0.2")
    async with (
        watching(kube.kubeconfig, namespace, other) as one,
        watching(kube.kubeconfig, namespace, other) as two,
        watching(kube.kubeconfig) as everything,
    ):
        expected = {f"{namespace}/a", f"{other}/a"}
        assert one.names() == two.names() == expected
        assert expected <= everything.names()

        await admin.delete_pod(other, "a")
        for watcher in (one, two):
            await until(lambda watcher=watcher: watcher.names() == {f"{namespace}/a"})  # type: ignore[misc]


async def test_five_thousand_pods_are_listed_in_pages(
    kube: KubeServer, admin: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = 5000
    numbers = iter(range(total))

    async def make() -> None:
        for number in numbers:
            ip = f"10.{number // 65536}.{number // 256 % 256}.{number % 256}"
            await admin.pod(namespace, f"pod-{number}", ip=None)
            if number % 50 == 0:
                await admin.pod_status(namespace, f"pod-{number}", ip=ip, ready=True)

    async with asyncio.TaskGroup() as makers:
        for _ in range(32):
            makers.create_task(make())
    pages = []
    read_page = object_watch._Follower._page

    async def counted(follower: Any, *arguments: Any) -> Any:
        page = await read_page(follower, *arguments)
        pages.append(len(page.items or ()))
        return page

    monkeypatch.setattr(object_watch._Follower, "_page", counted)
    async with watching(kube.kubeconfig, namespace) as watcher:
        assert sum(pages) == total
        assert max(pages) == 250
        assert len(watcher.names()) == total / 50

        # Changes right after the list are not lost.
        await admin.pod_status(namespace, "pod-1", ip="10.9.9.9", ready=True)
        await until(lambda: len(watcher.names()) == total / 50 + 1)
