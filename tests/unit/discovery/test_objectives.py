"""InferenceObjectives: names with priorities, followed through a scripted API server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lora_router.discovery import objectives as module
from lora_router.discovery import watch_pace
from lora_router.discovery.kubernetes_api import Credentials
from lora_router.discovery.objectives import GIE, ObjectiveObject, Objectives, priorities_of
from lora_router.discovery.pool_object import V1, pool_query
from tests.unit.discovery.api_server import OBJECTIVES, ApiServer, Document
from tests.unit.discovery.api_server import inference_objective as objective


def priorities(*found: Document) -> dict[str, int]:
    objects = msgspec.json.decode(msgspec.json.encode(found), type=list[ObjectiveObject])
    return priorities_of(objects, "pool")


def test_an_objective_of_the_pool_has_a_priority() -> None:
    assert priorities(objective("chat", 10), objective("batch", -5), objective("usual", None)) == {
        "chat": 10,
        "batch": -5,
        "usual": 0,
    }


def test_objectives_of_other_pools_do_not_count() -> None:
    other_kind: dict[str, Any] = {"poolRef": {"name": "pool", "kind": "Service"}}
    assert priorities(objective("a", 1, "other"), objective("b", 1, **other_kind)) == {}


def test_an_objective_may_name_several_pools() -> None:
    several: dict[str, Any] = {"poolRef": None, "poolRefs": [{"name": "other"}, {"name": "pool"}]}
    assert priorities(objective("a", 3, **several)) == {"a": 3}


def test_a_priority_has_bounds() -> None:
    found = priorities(objective("high", 10**30), objective("low", -(10**30)))
    assert found == {"high": 2**31 - 1, "low": -(2**31 - 1)}


def test_only_so_many_objectives_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OBJECTIVES", 2)
    assert len(priorities(*(objective(f"o{number}", 1) for number in range(5)))) == 2


class Followed:
    """Objectives that are followed, and what became of them."""

    def __init__(self, kubeconfig: Path) -> None:
        self.used: Mapping[str, int] | None = None
        self.objectives = Objectives(
            pool_query("ml", "pool", V1), GIE, Credentials(kubeconfig), self._use
        )

    def _use(self, found: Mapping[str, int]) -> None:
        self.used = found

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def following(server: ApiServer, folder: Path) -> AsyncIterator[Followed]:
    async with server.run(folder) as kubeconfig:
        followed = Followed(kubeconfig)
        task = asyncio.create_task(followed.objectives.follow())
        try:
            yield followed
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_pace, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(watch_pace, "LONGEST_PAUSE_SECONDS", 0.05)


async def test_changes_are_followed(tmp_path: Path) -> None:
    server = ApiServer()
    await server.put(OBJECTIVES, objective("chat", 10))
    async with following(server, tmp_path) as followed:
        await followed.until(lambda: followed.used == {"chat": 10})

        await server.put(OBJECTIVES, objective("chat", 20), objective("batch", -1))
        await followed.until(lambda: followed.used == {"chat": 20, "batch": -1})
        assert followed.objectives.status() == {"inference_objectives": 2}


async def test_a_cluster_without_the_api_has_no_objectives_until_it_is_installed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = ApiServer()
    async with following(server, tmp_path) as followed:
        await followed.until(lambda: followed.used == {})
        assert followed.objectives.status() == {"inference_objectives": 0}

        await server.put(OBJECTIVES, objective("chat", 10))
        await followed.until(lambda: followed.used == {"chat": 10})
    assert caplog.text == ""


async def test_the_last_ones_stay_in_use_without_permission(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = ApiServer()
    await server.put(OBJECTIVES, objective("chat", 10))
    async with following(server, tmp_path) as followed:
        await followed.until(lambda: followed.used == {"chat": 10})

        server.refused[OBJECTIVES] = 403
        await server.put(OBJECTIVES)
        await followed.until(lambda: followed.objectives.last_error is not None)
        assert followed.used == {"chat": 10}
        assert followed.objectives.status()["inference_objectives_error"] == "status 403: no"
    assert "cannot follow the InferenceObjectives of InferencePool pool: status 403" in caplog.text
