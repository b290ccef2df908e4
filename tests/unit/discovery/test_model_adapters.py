"""ModelAdapters are followed, and declare adapters."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lora_router.adapters.declared import DeclaredAdapter
from lora_router.discovery import followed_namespaces, model_adapters
from lora_router.discovery.kubernetes_api import ApiError, Credentials
from lora_router.discovery.model_adapter_object import AIBRIX_FINALIZER, ModelAdapterObject
from lora_router.discovery.model_adapter_record import Key
from lora_router.discovery.model_adapters import ModelAdapterOptions, ModelAdapters
from lora_router.discovery.object_watch import Alive, Changed, Listed, Lost
from lora_router.supervision import Supervisor
from tests.unit.discovery.model_adapter_objects import ALLOWED, MANAGER, SPEC, model_adapter

THE_FINALIZER = [AIBRIX_FINALIZER]


class Site:
    """Follows resources that a test lists and changes."""

    def __init__(self, namespaces: Sequence[str]) -> None:
        self.events: dict[str, asyncio.Queue[Any]] = {name: asyncio.Queue() for name in namespaces}
        self.declared: list[DeclaredAdapter] | None = None
        options = ModelAdapterOptions(tuple(namespaces), ALLOWED, MANAGER, Credentials())
        self.supervisor = Supervisor()
        self.resources = ModelAdapters(options, self._declare, self.supervisor)
        self.told: list[Key] = []
        self.resources.subscribe(self.told.append)

    async def _declare(self, adapters: Sequence[DeclaredAdapter]) -> None:
        self.declared = list(adapters)

    async def put(self, event: object, namespace: str = "ml") -> list[str]:
        """Hand on an event. Returns the names that are declared then."""
        queue = self.events[namespace]
        await queue.put(event)
        await queue.put(Alive())
        async with asyncio.timeout(60):
            await queue.join()
            while self.resources._stale.is_set() and self._is_listed():
                await asyncio.sleep(0.001)
        return [each.name for each in self.declared or ()]

    async def lose(self, event: Lost, namespace: str = "ml") -> None:
        """Hand on a failure."""
        queue = self.events[namespace]
        await queue.put(event)
        # The second one is taken when the first one has been applied.
        await queue.put(event)
        async with asyncio.timeout(60):
            await queue.join()

    async def change(self, *objects: ModelAdapterObject, exists: bool = True) -> list[str]:
        return await self.put(Changed(tuple((each, exists) for each in objects)))

    def _is_listed(self) -> bool:
        return self.resources._scopes.are_read

    def shown(self) -> dict[str, Any]:
        shown = self.resources.status()["model_adapters"]
        assert isinstance(shown, dict)
        return shown


@asynccontextmanager
async def following(monkeypatch: pytest.MonkeyPatch, *namespaces: str) -> AsyncIterator[Site]:
    site = Site(namespaces or ("ml",))

    async def events(_: object, query: Any) -> AsyncGenerator[object]:
        queue = site.events[query.arguments["namespace"]]
        while True:
            yield await queue.get()
            queue.task_done()

    monkeypatch.setattr(model_adapters, "object_events", events)
    monkeypatch.setattr(model_adapters, "DECLARE_SECONDS", 0.001)
    site.resources.start()
    try:
        yield site
    finally:
        await site.supervisor.stop()


async def test_resources_declare_adapters_from_the_first_list_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with following(monkeypatch) as site:
        assert site.resources.unread() == "the ModelAdapters have not been read yet"
        assert await site.put(Listed((model_adapter("a"), model_adapter("b")))) == ["a", "b"]
        assert site.resources.unread() is None
        assert await site.change(model_adapter("c", created="2026-11-29")) == ["a", "b", "c"]
        changed = model_adapter("b", {**SPEC, "artifactURL": "org/b2"}, version=2)
        await site.change(changed)
        assert site.declared is not None
        assert [each.source for each in site.declared] == ["org/sql", "org/b2", "org/sql"]
        assert await site.change(model_adapter("a"), exists=False) == ["b", "c"]
        assert await site.put(Listed((model_adapter("b"), model_adapter("d")))) == ["b", "d"]
        assert site.shown() == {"resources": 2}
        assert site.told[-1] == Key("ml", "c")


async def test_nothing_is_declared_before_all_namespaces_were_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with following(monkeypatch, "ml", "more") as site:
        await site.put(Listed((model_adapter("a"),)))
        assert site.declared is None
        old = model_adapter("old", namespace="more", created="2026-01-01")
        assert await site.put(Listed((old,)), "more") == ["old", "a"]


async def test_a_namespace_that_cannot_be_read_withholds_only_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forbidden = Lost(ApiError("forbidden", "status 403: no"), 0.1)
    async with following(monkeypatch, "ml", "gone") as site:
        await site.put(Listed((model_adapter("a"),)))
        await site.lose(forbidden, "gone")
        assert site.declared is None
        assert site.resources.unread() == "the ModelAdapters have not been read yet"

        monkeypatch.setattr(followed_namespaces, "REFUSED_SECONDS", 0.0)
        await site.lose(forbidden, "gone")
        assert await site.put(Alive()) == ["a"]
        assert site.resources.unread() is None
        assert site.shown()["unread_namespaces"] == {"gone": "status 403: no"}
        line = "ModelAdapters of namespace gone cannot be read; the others are used without them"
        assert caplog.text.count(line) == 1

        back = model_adapter("back", namespace="gone", created="2026-01-01")
        assert await site.put(Listed((back,)), "gone") == ["back", "a"]
        assert "unread_namespaces" not in site.shown()


async def test_a_router_that_was_refused_everywhere_stays_ready_when_one_namespace_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forbidden = Lost(ApiError("forbidden", "status 403: no"), 0.1)
    async with following(monkeypatch, "ml", "more") as site:
        await site.lose(forbidden)
        assert site.resources.unread() is not None
        await site.lose(forbidden, "more")
        assert site.resources.unread() is None
        await site.put(Listed((model_adapter("a"),)))
        assert site.resources.unread() is None


async def test_one_that_cannot_be_used_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(monkeypatch) as site:
        unfit = model_adapter("a", {"baseModel": 7})
        assert await site.put(Listed((unfit, model_adapter("b")))) == ["b"]
        assert site.shown()["invalid"] == 1
        assert site.shown()["problems"]["ml/a"].startswith("spec: Expected `str | null`")
        assert "ModelAdapter ml/a: spec: Expected" in caplog.text


async def test_one_that_becomes_invalid_keeps_what_it_declared_until_it_is_deleted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(monkeypatch) as site:
        await site.put(Listed((model_adapter("a"),)))
        unfit = model_adapter("a", {**SPEC, "artifactURL": "/etc/passwd"}, version=2)
        assert await site.change(unfit) == ["a"]
        assert site.declared is not None
        assert [each.source for each in site.declared] == ["org/sql"]
        assert site.shown()["invalid"] == 1
        assert "its last valid spec stays in use" in caplog.text
        still = model_adapter("a", {"baseModel": 7}, version=3)
        assert await site.change(still) == ["a"]

        again = model_adapter("a", {"baseModel": 7}, version=4, uid="another")
        assert await site.change(again) == [], "it was deleted and made again"


async def test_one_that_is_being_deleted_declares_nothing_whoever_keeps_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with following(monkeypatch) as site:
        kept = model_adapter("a", finalizers=THE_FINALIZER)
        assert await site.put(Listed((kept,))) == ["a"]
        gone = model_adapter("a", finalizers=THE_FINALIZER, deleted=True, version=2)
        assert await site.change(gone) == []
        assert len(site.resources) == 1


async def test_one_that_aibrix_works_on_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(monkeypatch) as site:
        old = [("manager", "T1")]
        left = model_adapter("left", finalizers=THE_FINALIZER, writers=old)
        listed = Listed((left, model_adapter("new"), model_adapter("mine")))
        assert await site.put(listed) == ["left", "mine", "new"]
        # This router's own writes are no sign.
        own = model_adapter("left", finalizers=THE_FINALIZER, writers=[*old, (MANAGER, "T2")])
        assert await site.change(own) == ["left", "mine", "new"]
        # Neither is somebody who writes a status by hand.
        by_hand = model_adapter("mine", writers=[("kubectl", "T2")])
        assert await site.change(by_hand) == ["left", "mine", "new"]
        assert await site.change(model_adapter("new", finalizers=THE_FINALIZER)) == ["left", "mine"]
        again = model_adapter("left", finalizers=THE_FINALIZER, writers=[("manager", "T3")])
        assert await site.change(again) == ["mine"]
        assert site.shown()["left_to_others"] == 2
        assert site.shown()["others"] == ["AIBrix's controller", "manager"]
        assert "stop one of the two" in site.shown()["hint"]
        assert "ModelAdapter ml/left is left to manager, which works on it too" in caplog.text
        # A new resource with the same name is another one.
        assert await site.change(model_adapter("left", uid="2")) == ["left", "mine"]


async def test_the_last_resources_stay_in_use_while_the_server_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(monkeypatch) as site:
        await site.put(Listed((model_adapter("a"),)))
        queue = site.events["ml"]
        queue.put_nowait(Lost(ApiError("connect", "refused"), 0.1))
        queue.put_nowait(Lost(ApiError("missing", "status 404: not found"), 0.1))
        async with asyncio.timeout(60):
            await queue.join()
        assert "error" in site.shown()
        assert [each.name for each in site.declared or ()] == ["a"]
        await site.put(Alive())
        assert site.shown() == {"resources": 1}
        assert "cannot be followed, the last ones stay in use: refused" in caplog.text


async def test_without_the_definition_the_router_is_ready_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with following(monkeypatch) as site:
        site.events["ml"].put_nowait(Lost(ApiError("missing", "status 404: not found"), 0.1))
        site.events["ml"].put_nowait(Lost(ApiError("missing", "status 404: not found"), 0.1))
        async with asyncio.timeout(60):
            while "error" not in site.shown():
                await asyncio.sleep(0.001)
        assert site.resources.unread() is None
        assert "there is no modeladapters.model.aibrix.ai" in site.shown()["error"]


async def test_there_are_no_more_resources_than_adapters_may_be_declared(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(model_adapters, "MAX_DECLARED", 2)
    async with following(monkeypatch) as site:
        listed = Listed(tuple(model_adapter(name) for name in "abc"))
        assert await site.put(listed) == ["a", "b"]
        assert "more than 2 ModelAdapters; ml/c and others are not used" in caplog.text


async def test_the_oldest_count_and_others_take_the_place_of_those_that_are_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_adapters, "MAX_DECLARED", 2)
    newest_first = [
        model_adapter(name, created=f"2026-01-0{9 - day}") for day, name in enumerate("abcd")
    ]
    _a, b, c, d = newest_first
    async with following(monkeypatch) as site:
        assert await site.put(Listed(tuple(newest_first))) == ["d", "c"]
        assert await site.change(d, exists=False) == ["c", "b"]
        assert await site.change(model_adapter("new", created="2026-02-01")) == ["c", "b"]
        assert await site.change(b, c, exists=False) == ["a", "new"]


async def test_so_many_more_are_known_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_adapters, "MAX_DECLARED", 2)
    async with following(monkeypatch) as site:
        many = (model_adapter(str(each), created=f"2026-01-0{9 - each}") for each in range(9))
        assert await site.put(Listed(tuple(many))) == ["8", "7"]
        assert [each.key.name for each in site.resources] == ["8", "7", "6", "5"]
        await site.change(model_adapter("later", created="2026-02-01"))
        assert len(site.resources) == 4
