"""A router whose namespaces cannot all be read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lora_router.discovery import followed_namespaces, watch_pace
from lora_router.discovery.kubernetes import KubernetesOptions, KubernetesPods
from lora_router.discovery.kubernetes_api import Credentials
from lora_router.fleet.fleet import Fleet
from tests.unit.discovery.api_server import PODS, ApiServer, ready_pod
from tests.unit.discovery.test_pool_pods import NoObserver
from tests.waiting import until

GONE = "/api/v1/namespaces/gone/pods"
LINE = "namespace gone cannot be read, and its pods are missing; the others are used without it"


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_pace, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(watch_pace, "LONGEST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(followed_namespaces, "REFUSED_SECONDS", 0.05)


@asynccontextmanager
async def following(
    server: ApiServer, folder: Path, *namespaces: str
) -> AsyncIterator[tuple[Fleet, KubernetesPods]]:
    fleet = Fleet()
    async with server.run(folder) as kubeconfig:
        options = KubernetesOptions(
            namespaces=namespaces, selector="app=vllm", credentials=Credentials(kubeconfig)
        )
        pods = KubernetesPods(fleet, options, NoObserver())
        await pods.start()
        try:
            yield fleet, pods
        finally:
            await pods.stop()


async def test_the_others_are_used_without_a_namespace_that_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = ApiServer()
    server.refused[GONE] = 403
    await server.put(PODS, ready_pod("a", "10.0.0.1"))
    async with following(server, tmp_path, "ml", "gone") as (fleet, pods):
        await until(lambda: fleet.synced)
        assert [state.pod.name for state in fleet] == ["ml/a"]
        assert pods.left_out == {"gone": "status 403: no"}
        assert pods.status()["unread_namespaces"] == pods.left_out
        assert pods.status()["discovery_error"] == "namespace gone: status 403: no"
        assert caplog.text.count(LINE) == 1

        # It is made again.
        del server.refused[GONE]
        await server.put(GONE, ready_pod("b", "10.0.0.2"))
        await until(lambda: len(fleet) == 2)
        assert pods.left_out == {}
        assert pods.last_error is None


async def test_the_age_of_the_pods_is_that_of_the_namespaces_that_are_read(tmp_path: Path) -> None:
    server = ApiServer()
    server.refused[GONE] = 403
    await server.put(PODS)
    async with following(server, tmp_path, "ml", "gone") as (_, pods):
        gone = next(scope for scope in pods._scopes if scope.namespace == "gone")
        gone.heard -= 1000.0
        assert pods.age > 900.0
        await pods.synced()
        assert pods.age < 900.0


@pytest.mark.parametrize("namespaces", [("gone",), ("gone", "ml")])
async def test_a_router_that_can_read_no_namespace_is_not_synced(
    tmp_path: Path, namespaces: tuple[str, ...]
) -> None:
    server = ApiServer()
    server.refused = {GONE: 403, PODS: 403}
    async with following(server, tmp_path, *namespaces) as (fleet, pods):
        await until(lambda: len(server.queries.get(GONE, ())) > 20)
        assert not fleet.synced
        assert pods.left_out == {}
