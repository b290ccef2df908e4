"""The pods of an InferencePool, followed through a scripted API server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lora_router.discovery import watch_pace
from lora_router.discovery.kubernetes import KubernetesOptions, KubernetesPods
from lora_router.discovery.kubernetes_api import Credentials, CredentialsError
from lora_router.discovery.pool_object import V1, pool_query
from lora_router.discovery.pool_pods import PoolPods
from lora_router.fleet.fleet import Fleet
from lora_router.supervision import Supervisor
from tests.unit.discovery.api_server import (
    PODS,
    POOLS,
    ApiServer,
    inference_pool,
    ready_pod,
)


class NoObserver:
    """Counts nothing."""

    def pod_events(self, kind: str, count: int) -> None:
        pass

    def discovery_lost(self, cause: str) -> None:
        pass


class Followed:
    """An API server, a fleet, and the discovery between them."""

    def __init__(self, server: ApiServer, kubeconfig: Path) -> None:
        self.server = server
        self.fleet = Fleet()
        credentials, supervisor = Credentials(kubeconfig), Supervisor()
        pods = KubernetesPods(
            self.fleet,
            KubernetesOptions(namespaces=("ml",), credentials=credentials),
            NoObserver(),
            supervisor,
        )
        query = pool_query("ml", "pool", V1)
        self.discovery = PoolPods(pods, query, credentials, NoObserver(), supervisor)

    def endpoints(self) -> dict[str, str]:
        return {state.pod.name: state.pod.address for state in self.fleet.ready()}

    def shown(self) -> dict[str, Any]:
        found = self.discovery.status()["inference_pool"]
        assert isinstance(found, dict)
        return found

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_endpoints(self, **expected: str) -> None:
        wanted = {f"ml/{name.replace('_', '-')}": address for name, address in expected.items()}
        await self.until(lambda: self.endpoints() == wanted)


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_pace, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(watch_pace, "LONGEST_PAUSE_SECONDS", 0.05)


@asynccontextmanager
async def following(folder: Path, *pools: dict[str, object]) -> AsyncIterator[Followed]:
    server = ApiServer()
    await server.put(POOLS, *pools)
    await server.put(PODS, ready_pod("a", "10.0.0.1"), ready_pod("b", "10.0.0.2", app="other"))
    async with server.run(folder) as kubeconfig:
        followed = Followed(server, kubeconfig)
        await followed.discovery.start()
        try:
            yield followed
        finally:
            await followed.discovery.stop()


async def test_the_pods_that_the_pool_selects_are_used_at_its_port(tmp_path: Path) -> None:
    async with following(tmp_path, inference_pool(9000)) as followed:
        await asyncio.wait_for(followed.discovery.synced(), 60)

        assert followed.endpoints() == {"ml/a": "10.0.0.1:9000"}
        listed = followed.server.queries[POOLS][0]
        assert listed["fieldSelector"] == "metadata.name=pool"


async def test_a_pool_with_several_ports_has_an_endpoint_for_each(tmp_path: Path) -> None:
    async with following(tmp_path, inference_pool(8000, 8001)) as followed:
        await followed.until_endpoints(a_rank_0="10.0.0.1:8000", a_rank_1="10.0.0.1:8001")


@pytest.mark.slow
async def test_a_change_of_the_pool_changes_the_pods(tmp_path: Path) -> None:
    async with following(tmp_path, inference_pool(8000)) as followed:
        await followed.until_endpoints(a="10.0.0.1:8000")

        await followed.server.put(POOLS, inference_pool(8000, app="other"))
        await followed.until_endpoints(b="10.0.0.2:8000")

        await followed.server.put(POOLS, inference_pool(8000, 8001, app="other"))
        await followed.until_endpoints(b_rank_0="10.0.0.2:8000", b_rank_1="10.0.0.2:8001")

        await followed.server.put(POOLS, inference_pool(8001, app="other"))
        await followed.until_endpoints(b="10.0.0.2:8001")


async def test_a_further_port_of_the_pool_keeps_what_is_known_of_servers(tmp_path: Path) -> None:
    async with following(tmp_path, inference_pool(8000)) as followed:
        await followed.until_endpoints(a="10.0.0.1:8000")
        known = followed.fleet.get("ml/a")

        await followed.server.put(POOLS, inference_pool(8000, 8001))
        await followed.until_endpoints(a_rank_0="10.0.0.1:8000", a_rank_1="10.0.0.1:8001")

        assert followed.fleet.get("ml/a-rank-0") is known is not None


async def test_the_pods_are_followed_as_without_a_pool(tmp_path: Path) -> None:
    async with following(tmp_path, inference_pool(8000, 8001)) as followed:
        await followed.until_endpoints(a_rank_0="10.0.0.1:8000", a_rank_1="10.0.0.1:8001")

        await followed.server.put(PODS, ready_pod("c", "10.0.0.3"))
        await followed.until_endpoints(c_rank_0="10.0.0.3:8000", c_rank_1="10.0.0.3:8001")


async def test_readiness_shows_the_pool(tmp_path: Path) -> None:
    pool = inference_pool(8000, endpointPickerRef={"name": "epp", "failureMode": "FailOpen"})
    async with following(tmp_path, pool) as followed:
        await asyncio.wait_for(followed.discovery.synced(), 60)

        assert followed.discovery.status()["discovery"] == "inference-pool"
        shown = followed.shown()
        assert shown.pop("age_seconds") < 30
        assert shown == {
            "name": "ml/pool",
            "selector": "app=vllm",
            "ports": (8000,),
            "app_protocol": "http",
            "failure_mode": "FailOpen",
        }


async def test_a_pool_that_does_not_exist_yet_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(tmp_path) as followed:
        await followed.until(lambda: "error" in followed.shown())
        assert not followed.fleet.synced
        assert followed.shown() == {"name": "ml/pool", "error": "it does not exist"}

        await followed.server.put(POOLS, inference_pool(8000))
        await followed.until_endpoints(a="10.0.0.1:8000")
        assert "error" not in followed.shown()
    assert "InferencePool ml/pool: it does not exist; no pods yet" in caplog.text


async def test_the_pods_of_a_deleted_pool_stay_in_use_and_are_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(tmp_path, inference_pool(8000)) as followed:
        await followed.until_endpoints(a="10.0.0.1:8000")

        await followed.server.put(POOLS)
        await followed.until(lambda: followed.shown().get("error") == "it does not exist")
        assert followed.endpoints() == {"ml/a": "10.0.0.1:8000"}
        assert followed.shown()["age_seconds"] >= 0

        await followed.server.put(PODS, ready_pod("c", "10.0.0.3"))
        await followed.until_endpoints(c="10.0.0.3:8000")
    assert "it does not exist; the pods of the last one stay in use" in caplog.text


async def test_a_pool_that_becomes_invalid_changes_nothing(tmp_path: Path) -> None:
    async with following(tmp_path, inference_pool(8000)) as followed:
        await followed.until_endpoints(a="10.0.0.1:8000")

        await followed.server.put(POOLS, inference_pool(8000, selector={"matchLabels": {}}))
        await followed.until(lambda: "error" in followed.shown())
        assert followed.shown()["error"] == "its selector has no labels"
        assert followed.endpoints() == {"ml/a": "10.0.0.1:8000"}


async def test_without_permission_the_reason_is_shown(tmp_path: Path) -> None:
    server = ApiServer()
    server.refused[POOLS] = 403
    async with server.run(tmp_path) as kubeconfig:
        followed = Followed(server, kubeconfig)
        await followed.discovery.start()
        try:
            await followed.until(lambda: "error" in followed.shown())
            assert followed.shown()["error"] == "status 403: no"
        finally:
            await followed.discovery.stop()


async def test_without_a_cluster_the_start_ends_with_an_error(tmp_path: Path) -> None:
    followed = Followed(ApiServer(), tmp_path / "missing")
    with pytest.raises(CredentialsError, match="inference_pool=ml/pool: needs access to a Kube"):
        await followed.discovery.start()
    await followed.discovery.stop()
