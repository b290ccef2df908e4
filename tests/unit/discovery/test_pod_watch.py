"""List and watch against a scripted server. tests/kube uses a real API server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from lora_router import supervision
from lora_router.discovery import kubernetes, kubernetes_api, object_watch, watch_pace
from lora_router.discovery.kubernetes import KubernetesOptions, KubernetesPods
from lora_router.discovery.kubernetes_api import (
    Credentials,
    CredentialsError,
    KubernetesApi,
)
from lora_router.discovery.object_watch import (
    Alive,
    Changed,
    Listed,
    Lost,
    ObjectEvent,
    object_events,
)
from lora_router.discovery.page_urls import PageRules
from lora_router.discovery.pod_object import PodObject
from lora_router.discovery.pod_ports import PortRules
from lora_router.discovery.pod_query import pod_query
from lora_router.discovery.pod_translation import Family, to_pods
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from tests.waiting import until

GONE = {"kind": "Status", "code": 410, "message": "too old resource version: 1 (9)"}


def pod(name: str, version: int = 1, *, ready: bool = True) -> dict[str, object]:
    return {
        "metadata": {"name": name, "namespace": "ml", "resourceVersion": str(version), "uid": name},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def line(kind: str, what: object) -> bytes:
    return json.dumps({"type": kind, "object": what}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return line("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


@dataclass
class Page:
    """A response to a list."""

    pods: list[object]
    version: int = 1
    next_page: str = ""
    status: int = 200


@dataclass
class Watch:
    """A response to a watch: chunks, and then its end unless it hangs."""

    pieces: list[bytes]
    hang: bool = False
    status: int = 200


@dataclass
class ScriptedServer:
    """Responds in order. Requests after the end of the script hang."""

    script: list[Page | Watch | dict[str, object]]
    asked: list[dict[str, str]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    @asynccontextmanager
    async def run(self, folder: Path) -> AsyncIterator[Path]:
        app = web.Application()
        app.router.add_get("/api/v1/pods", self._answer)
        app.router.add_get("/api/v1/namespaces/ml/pods", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        config = folder / "kubeconfig"
        document = {
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "c", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        }
        config.write_text(yaml.safe_dump(document))
        try:
            yield config
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        self.tokens.append(request.headers.get("authorization"))
        if not self.script:
            await asyncio.sleep(3600)
        step = self.script.pop(0)
        if isinstance(step, dict):
            return web.json_response(step, status=int(str(step["code"])))
        if isinstance(step, Page):
            assert "watch" not in request.query, "a watch came where the script has a list"
            metadata = {"resourceVersion": str(step.version), "continue": step.next_page}
            return web.json_response({"metadata": metadata, "items": step.pods})
        assert request.query.get("watch") == "true", "a list came where the script has a watch"
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in step.pieces:
            await response.write(piece)
            await asyncio.sleep(0.02)
        if step.hang:
            await asyncio.sleep(3600)
        return response


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_pace, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(watch_pace, "SHORT_SECONDS", 0.001)


async def events_of(
    server: ScriptedServer, folder: Path, count: int, **options: int
) -> list[tuple[str, object]]:
    """Return a summary of the first ``count`` events that are not ``Alive``."""
    events: list[tuple[str, object]] = []
    async with server.run(folder) as config:
        query = pod_query("ml", "app=vllm", **options)
        stream = object_events(lambda: KubernetesApi.open(Credentials(config)), query)
        async with asyncio.timeout(60), aclosing(stream):
            async for event in stream:
                if not isinstance(event, Alive):
                    events.append(short(event))
                if len(events) == count:
                    break
    return events


def short(event: ObjectEvent[PodObject]) -> tuple[str, object]:
    match event:
        case Listed(pods):
            return "listed", [found.metadata.name for found in pods]
        case Changed(pods):
            return "changed", [
                ("+" if there else "-") + found.metadata.name for found, there in pods
            ]
        case Lost(error):
            return "lost", error.cause
        case Alive():
            return "alive", None


async def test_pages_are_put_together_and_the_watch_goes_on_from_their_version(
    tmp_path: Path,
) -> None:
    server = ScriptedServer(
        [
            Page([pod("a"), pod("b")], version=7, next_page="more"),
            Page([pod("c")], version=7),
            Watch([line("MODIFIED", pod("a", 8)) + line("DELETED", pod("b", 9)), bookmark(12)]),
            Watch([line("ADDED", pod("d", 13))]),
        ]
    )
    assert await events_of(server, tmp_path, 3, page_limit=2) == [
        ("listed", ["a", "b", "c"]),
        ("changed", ["+a", "-b"]),
        ("changed", ["+d"]),
    ]
    first, second, watch, again = server.asked
    assert first == {"labelSelector": "app=vllm", "limit": "2"}
    assert second["continue"] == "more"
    assert (watch["resourceVersion"], watch["allowWatchBookmarks"]) == ("7", "true")
    assert again["resourceVersion"] == "12"
    assert server.tokens[0] == "Bearer t"


async def test_a_list_that_grows_too_old_is_read_from_the_start(tmp_path: Path) -> None:
    server = ScriptedServer([Page([pod("a")], next_page="more"), GONE, Page([pod("a"), pod("b")])])
    assert await events_of(server, tmp_path, 1) == [("listed", ["a", "b"])]
    assert server.asked[2] == server.asked[0]
    assert "continue" not in server.asked[2]


@given(st.lists(st.binary(max_size=6)), st.lists(st.integers(0, 8)))
async def test_lines_are_the_same_in_chunks_of_any_size(
    written: list[bytes], cuts: list[int]
) -> None:
    text = b"\n".join(line.replace(b"\n", b"") for line in written) + b"\n"

    async def chunks() -> AsyncIterator[bytes]:
        start = 0
        for cut in cuts:
            yield text[start : start + cut]
            start += cut
        yield text[start:]

    found = [line async for lines in kubernetes_api._lines(chunks()) for line in lines]
    assert found == text.split(b"\n")[:-1]


@pytest.mark.parametrize("gone", [GONE, Watch([line("ERROR", GONE)])])
async def test_a_version_that_is_too_old_leads_to_a_list(
    tmp_path: Path, gone: dict[str, object] | Watch
) -> None:
    server = ScriptedServer(
        [Page([pod("a")]), Watch([line("ADDED", pod("b", 2))]), gone, Page([pod("c")], version=9)]
    )
    assert await events_of(server, tmp_path, 3) == [
        ("listed", ["a"]),
        ("changed", ["+b"]),
        ("listed", ["c"]),
    ]


async def test_a_list_whose_version_is_too_old_at_once_is_not_repeated_without_a_pause(
    tmp_path: Path,
) -> None:
    server = ScriptedServer([Page([pod("a")]), GONE, Page([pod("a")]), GONE, Page([pod("a")])])
    assert await events_of(server, tmp_path, 5) == [
        ("listed", ["a"]),
        ("lost", "expired"),
        ("listed", ["a"]),
        ("lost", "expired"),
        ("listed", ["a"]),
    ]


async def test_changes_before_an_error_are_reported_first(tmp_path: Path) -> None:
    failed = {"code": 500, "message": "etcd is away"}
    server = ScriptedServer(
        [
            Page([pod("a")]),
            Watch([line("ADDED", pod("b", 2)) + line("ERROR", failed)]),
            Watch([line("ADDED", pod("c", 3))]),
        ]
    )
    assert await events_of(server, tmp_path, 4) == [
        ("listed", ["a"]),
        ("changed", ["+b"]),
        ("lost", "status"),
        ("changed", ["+c"]),
    ]
    assert server.asked[2]["resourceVersion"] == "2"


async def test_an_event_in_pieces_is_one_event_and_a_cut_one_is_none(tmp_path: Path) -> None:
    whole = line("ADDED", pod("b", 2))
    server = ScriptedServer(
        [
            Page([]),
            Watch([whole[:10], whole[10:-1], whole[-1:] + b"\n" + whole[:20]]),
            Watch([line("ADDED", pod("c", 3))]),
        ]
    )
    assert await events_of(server, tmp_path, 3) == [
        ("listed", []),
        ("changed", ["+b"]),
        ("changed", ["+c"]),
    ]
    assert server.asked[2]["resourceVersion"] == "2"


@pytest.mark.parametrize(
    "nonsense", [b"not json\n", b"{}\n", line("ADDED", {"metadata": "none"}), b'{"a":"\xff"}\n']
)
async def test_nonsense_in_a_watch_is_a_failure_and_nothing_is_lost(
    tmp_path: Path, nonsense: bytes
) -> None:
    good = line("ADDED", pod("b", 2))
    server = ScriptedServer([Page([]), Watch([good, nonsense]), Page([pod("b")]), Page([pod("b")])])
    events = await events_of(server, tmp_path, 3)
    assert events == [("listed", []), ("changed", ["+b"]), ("lost", "malformed")]


async def test_a_list_that_is_nonsense_is_a_failure(tmp_path: Path) -> None:
    server = ScriptedServer([Page([{"metadata": 7}]), Page([pod("a")])])
    assert await events_of(server, tmp_path, 2) == [("lost", "malformed"), ("listed", ["a"])]


@pytest.mark.parametrize(
    ("code", "cause"),
    [(401, "unauthorized"), (403, "forbidden"), (500, "status"), (429, "throttled")],
)
async def test_a_refusal_is_a_failure_with_a_cause(tmp_path: Path, code: int, cause: str) -> None:
    server = ScriptedServer([{"code": code, "message": "no"}, Page([pod("a")])])
    assert await events_of(server, tmp_path, 2) == [("lost", cause), ("listed", ["a"])]


async def test_a_watch_that_ends_at_once_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_pace, "SHORT_SECONDS", 1.0)
    server = ScriptedServer([Page([pod("a")]), Watch([]), Watch([line("ADDED", pod("b", 2))])])
    assert await events_of(server, tmp_path, 3) == [
        ("listed", ["a"]),
        ("lost", "connect"),
        ("changed", ["+b"]),
    ]


@pytest.mark.parametrize("ends_with", [b"", line("ERROR", GONE)], ids=["end", "gone"])
async def test_a_watch_that_ends_after_a_bookmark_is_not_repeated_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_with: bytes
) -> None:
    monkeypatch.setattr(watch_pace, "SHORT_SECONDS", 1.0)
    hasty = [bookmark(2), *filter(None, [ends_with])]
    again: list[Page | Watch | dict[str, object]] = (
        [Watch(hasty), Page([])] if ends_with else [Watch(hasty)]
    )
    server = ScriptedServer([Page([]), *again, *again, Watch([line("ADDED", pod("b", 3))])])
    events = await events_of(server, tmp_path, 5 if ends_with else 3)
    failed = ("lost", "expired" if ends_with else "connect")
    assert [event for event in events if event != ("listed", [])][:2] == [failed, failed]


async def test_a_server_that_does_not_end_a_watch_in_time_is_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_watch, "SILENCE_SECONDS", -0.7)
    server = ScriptedServer(
        [Page([pod("a")]), Watch([], hang=True), Watch([line("ADDED", pod("b", 2))])]
    )
    assert await events_of(server, tmp_path, 3, watch_seconds=1) == [
        ("listed", ["a"]),
        ("lost", "timeout"),
        ("changed", ["+b"]),
    ]


async def test_an_event_without_end_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_api, "MAX_EVENT_BYTES", 1000)
    server = ScriptedServer([Page([]), Watch([b"x" * 600, b"x" * 600], hang=True)])
    assert await events_of(server, tmp_path, 2) == [("listed", []), ("lost", "malformed")]


class Counts:
    """A ``DiscoveryObserver`` that counts."""

    def __init__(self) -> None:
        self.events: dict[str, int] = {}
        self.lost: list[str] = []

    def pod_events(self, kind: str, count: int) -> None:
        self.events[kind] = self.events.get(kind, 0) + count

    def discovery_lost(self, cause: str) -> None:
        self.lost.append(cause)


@asynccontextmanager
async def following(
    server: ScriptedServer, folder: Path, *namespaces: str
) -> AsyncIterator[tuple[Fleet, KubernetesPods, Counts]]:
    async with server.run(folder) as config:
        fleet, counts = Fleet(), Counts()
        options = KubernetesOptions(namespaces=namespaces, credentials=Credentials(config))
        pods = KubernetesPods(fleet, options, counts)
        await pods.start()
        try:
            yield fleet, pods, counts
        finally:
            await pods.stop()


class TestTheCache:
    async def test_a_pod_named_as_the_server_of_another_displaces_nothing(
        self, tmp_path: Path
    ) -> None:
        several, same_name = pod("e"), pod("e-rank-0", version=2)
        several["metadata"]["annotations"] = {"lora-router/ports": "8000,8001"}  # type: ignore[index]
        same_name["status"]["podIP"] = "10.0.0.6"  # type: ignore[index]
        servers = {"10.0.0.1:8000", "10.0.0.1:8001"}
        seen: list[dict[str, str]] = []
        watches = [Watch([line(kind, same_name)]) for kind in ("ADDED", "DELETED")]
        server = ScriptedServer([Page([several]), *watches])

        async with following(server, tmp_path, "ml") as (fleet, _, _):
            fleet.changes.pods.subscribe(
                lambda _: seen.append({state.pod.name: state.pod.address for state in fleet})
            )
            await until(lambda: len(seen) >= 3)

        assert [set(each.values()) - {"10.0.0.6:8000"} for each in seen[:3]] == [servers] * 3
        assert (
            seen[0] == seen[2] == {"ml/e-rank-0": "10.0.0.1:8000", "ml/e-rank-1": "10.0.0.1:8001"}
        )
        assert seen[1]["ml/e-rank-0"] == "10.0.0.6:8000"

    async def test_it_is_synced_after_the_first_list_and_follows(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        stops = line("MODIFIED", pod("a", 2, ready=False))
        server = ScriptedServer(
            [
                Page([pod("a"), pod("b")]),
                Watch([stops, line("DELETED", pod("b", 3)), line("ADDED", pod("c", 4))], hang=True),
            ]
        )
        async with following(server, tmp_path) as (fleet, pods, counts):
            await asyncio.wait_for(pods.synced(), 60)
            assert fleet.synced
            await until(lambda: counts.events.get("changed") == 2)

            assert {state.pod.name: state.pod.ready for state in fleet} == {
                "ml/a": False,
                "ml/c": True,
            }
            assert counts.events == {"listed": 2, "changed": 2, "deleted": 1}
            assert pods.status()["discovery"] == "kubernetes"
            assert pods.age < 5
        assert "all namespaces: 2 pods, 2 of them ready" in caplog.text
        assert "pods no longer ready: ml/a" in caplog.text
        assert "pods gone: ml/b" in caplog.text
        assert "pods ready: ml/c (10.0.0.1:8000)" in caplog.text

    async def test_of_events_that_come_together_the_last_counts(self, tmp_path: Path) -> None:
        together = (
            line("ADDED", pod("a", 2))
            + line("DELETED", pod("a", 3))
            + line("ADDED", pod("b", 4))
            + line("DELETED", pod("c", 5))
            + line("ADDED", pod("c", 6))
        )
        server = ScriptedServer([Page([]), Watch([together], hang=True)])
        async with following(server, tmp_path) as (fleet, _, counts):
            await until(lambda: counts.events.get("deleted") == 2)
            assert {state.pod.name for state in fleet} == {"ml/b", "ml/c"}

    async def test_a_fresh_list_takes_the_place_of_all_that_was_known(self, tmp_path: Path) -> None:
        server = ScriptedServer(
            [
                Page([pod("a"), pod("b")]),
                Watch([line("ADDED", pod("c", 2))]),
                GONE,
                Page([pod("b"), pod("d")]),
            ]
        )
        async with following(server, tmp_path) as (fleet, _, counts):
            await until(lambda: counts.events.get("listed") == 4)
            assert {state.pod.name for state in fleet} == {"ml/b", "ml/d"}

    async def test_a_failure_is_logged_once_and_the_pods_stay(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        failed: dict[str, object] = {"code": 503, "message": "starting"}
        back = Watch([line("MODIFIED", pod("a", 2))], hang=True)
        server = ScriptedServer([Page([pod("a")]), failed, failed, failed, back])
        async with following(server, tmp_path, "ml") as (fleet, pods, counts):
            await until(lambda: len(counts.lost) == 3)
            assert len(fleet.ready()) == 1
            assert pods.status()["discovery_error"] == "namespace ml: status 503: starting"
            await until(lambda: pods.last_error is None)
        assert caplog.text.count("watch of namespace ml failed") == 1
        assert "the last list of 1 pod stays in use" in caplog.text
        assert "watch of namespace ml recovered; 1 pod" in caplog.text

    async def test_many_names_are_cut_short(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        many = b"".join(line("ADDED", pod(f"p{number}", number + 2)) for number in range(9))
        server = ScriptedServer([Page([]), Watch([many], hang=True)])
        async with following(server, tmp_path) as (fleet, _, _counts):
            await until(lambda: len(fleet) == 9)
        assert "ml/p4 (10.0.0.1:8000) and 4 more" in caplog.text

    async def test_an_event_that_cannot_be_applied_is_made_up_for_by_a_fresh_list(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(supervision, "FIRST_BACKOFF_SECONDS", 0.01)
        server = ScriptedServer(
            [
                Page([pod("gone")]),
                Watch([line("DELETED", pod("gone", 2)) + line("ADDED", pod("a", 3))], hang=True),
                Page([pod("a"), pod("b")]),
            ]
        )
        async with following(server, tmp_path) as (fleet, pods, _counts):
            await pods.synced()
            update = fleet.update
            failures = [RuntimeError("the fleet has a fault")]

            def sometimes(*changes: Any, **more: Any) -> None:
                if failures:
                    raise failures.pop()
                update(*changes, **more)

            monkeypatch.setattr(fleet, "update", sometimes)
            await until(lambda: {state.pod.name for state in fleet} == {"ml/a", "ml/b"})
        assert "task pod-watch of all namespaces failed, restarts in" in caplog.text
        assert "RuntimeError: the fleet has a fault" in caplog.text

    async def test_a_pod_that_cannot_be_understood_leaves_the_others_alone(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def sometimes(
            found: PodObject, ports: PortRules, family: Family, pages: PageRules
        ) -> tuple[tuple[Pod, ...], tuple[str, ...]]:
            if found.metadata.name == "b":
                raise RuntimeError("a fault")
            return to_pods(found, ports, family, pages)

        monkeypatch.setattr(kubernetes, "to_pods", sometimes)
        server = ScriptedServer([Page([pod("a"), pod("b"), pod("c")])])
        async with following(server, tmp_path) as (fleet, pods, _counts):
            await pods.synced()
            assert {state.pod.name for state in fleet} == {"ml/a", "ml/c"}
        assert "task pod-watch of pod ml/b failed, continues: RuntimeError: a fault" in caplog.text


class TestCredentials:
    async def test_what_is_missing_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        with pytest.raises(CredentialsError, match=r"kubeconfig .*/missing"):
            await KubernetesApi.open(Credentials(tmp_path / "missing"))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
        with pytest.raises(CredentialsError, match="the pod's service account: Service token"):
            await KubernetesApi.open(Credentials())

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{", "clusters: 7", "current-context: x\ncontexts: []", "\x00", "[" * 900],
    )
    async def test_a_file_that_is_no_kubeconfig_is_named(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "config").write_text(text)
        with pytest.raises(CredentialsError, match=r"kubeconfig .*/config: "):
            await KubernetesApi.open(Credentials(tmp_path / "config"))

    async def test_credentials_that_break_later_are_a_failure_that_is_tried_again(
        self, tmp_path: Path
    ) -> None:
        failed: dict[str, object] = {"code": 401, "message": "expired"}
        server = ScriptedServer([Page([]), failed])
        async with following(server, tmp_path) as (_, pods, counts):
            await pods.synced()
            (tmp_path / "kubeconfig").unlink()
            await until(lambda: "credentials" in counts.lost)
            assert "kubeconfig" in str(pods.last_error)
