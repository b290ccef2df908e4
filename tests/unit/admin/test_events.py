"""Server-sent events: one producer, and viewers that come, go, and do not keep up."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import aiohttp
import pytest

from lora_router.admin import events
from lora_router.admin.server import AdminServer
from tests.browser.made_router import MadeRouter, adapter, held, pod

Event = tuple[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def _quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "ROUND_SECONDS", 0.01)


@asynccontextmanager
async def serving(
    made: MadeRouter, **arguments: Any
) -> AsyncIterator[tuple[AdminServer, aiohttp.ClientSession]]:
    server = made.admin(**arguments)
    await server.start()
    base = f"http://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession(base, read_bufsize=1 << 22) as client:
        yield server, client
    await server.stop()


@asynccontextmanager
async def viewing(client: aiohttp.ClientSession) -> AsyncIterator[AsyncIterator[Event]]:
    async with client.get("/debug/events") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        yield read(answer)


async def read(answer: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    name = ""
    async for line in answer.content:
        text = line.decode().rstrip("\n")
        if text.startswith("event: "):
            name = text.removeprefix("event: ")
        elif text.startswith("data: "):
            yield name, json.loads(text.removeprefix("data: "))


async def until(stream: AsyncIterator[Event], name: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        async for found, document in stream:
            if found == name:
                return document
    raise AssertionError(f"the stream ended without {name}")


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_viewer_gets_everything_and_then_what_changes() -> None:
    made = MadeRouter(3)
    async with serving(made) as (_, client), viewing(client) as stream:
        first = await until(stream, "fleet")
        assert first["full"]
        assert first["key"] == ["name"]
        assert [each["name"] for each in first["pods"]] == [each["name"] for each in made.pods]
        for name in ("held", "decisions", "adapters", "routers"):
            assert (await until(stream, name))["full"]

        made.pods[1]["in_flight"] = 99
        del made.pods[2]
        change = await until(stream, "fleet")
        assert not change["full"]
        assert change["pods"] == [{"name": "pods/vllm-0001", "in_flight": 99}]
        assert change["gone"] == [["pods/vllm-0002"]]


async def test_a_second_viewer_gets_everything_too_and_costs_no_second_reading() -> None:
    made = MadeRouter(2)
    async with serving(made) as (_, client), viewing(client) as first:
        await until(first, "tick")
        async with viewing(client) as second:
            assert (await until(second, "fleet"))["full"]
            made.asked.clear()
            await until(second, "tick")
            await until(second, "tick")
            await until(second, "tick")
            rounds = sum(name == "held" for name, _ in made.asked)
            assert sum(name == "pods" for name, _ in made.asked) - rounds in (-1, 0, 1)
            made.pods[0]["in_flight"] = 5
            assert (await until(first, "fleet"))["pods"]
            assert (await until(second, "fleet"))["pods"]


@pytest.mark.slow
async def test_nothing_is_read_when_nobody_looks() -> None:
    made = MadeRouter()
    async with serving(made) as (_, client):
        assert made.asked == []
        async with viewing(client) as stream:
            await until(stream, "tick")
        count = -1
        async with asyncio.timeout(60):
            while count != len(made.asked):
                count = len(made.asked)
                await asyncio.sleep(0.2)


async def test_the_number_of_viewers_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_VIEWERS", 1)
    async with serving(MadeRouter()) as (_, client), viewing(client):
        async with client.get("/debug/events") as answer:
            assert answer.status == 503
            assert "look at this router already" in await answer.text()
        async with client.head("/debug/events") as answer:
            assert answer.status == 503


async def test_a_head_request_starts_nothing() -> None:
    made = MadeRouter()
    async with serving(made) as (_, client), client.head("/debug/events") as answer:
        assert answer.status == 200
    assert made.asked == []


async def test_a_viewer_who_does_not_read_is_dropped() -> None:
    viewer = events.Viewer(b"first")

    for _ in range(events.MOST_WAITING):
        viewer.add(b"round")

    assert viewer.is_dropped
    assert await viewer.next() == b""


@pytest.mark.slow
async def test_a_viewer_whose_connection_takes_nothing_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "SLOW_SECONDS", 0.2)
    made = MadeRouter(2000)
    async with serving(made) as (server, client):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(b"GET /debug/events HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await reader.readexactly(1)
        changing = True

        async def is_alone() -> bool:
            async with client.get("/debug/events") as answer:
                return answer.status == 200

        monkeypatch.setattr(events, "MOST_VIEWERS", 1)
        async with asyncio.timeout(60):
            while changing:
                for each in made.pods:
                    each["why"] = each["why"] + "x" * 50 if len(each["why"]) < 500 else ""
                await asyncio.sleep(0.05)
                changing = not await is_alone()
        writer.close()


async def test_what_cannot_be_shown_is_told(caplog: pytest.LogCaptureFixture) -> None:
    made = MadeRouter()
    made.answers["held"] = {"unexpected": 1}
    del made.adapters
    async with serving(made) as (_, client), viewing(client) as stream:
        assert (await until(stream, "held"))["error"] == "this page cannot be read"
        assert (await until(stream, "adapters"))["error"] == "there is no such page"
        made.adapters = [adapter("a", 1)]
        del made.answers["held"]
        made.held = [held("r", "a", 1.0)]
        assert (await until(stream, "held"))["held"][0]["model"] == "a"
        assert "error" not in await until(stream, "adapters")
    assert "/debug/held cannot be read" in caplog.text


async def test_a_router_that_is_busy_is_told_and_loses_no_change() -> None:
    made = MadeRouter(1)
    async with serving(made) as (server, client), viewing(client) as stream:
        await until(stream, "tick")
        server.read_seconds = 0.0
        assert (await until(stream, "trouble")) == {"text": "the event loop does not respond"}
        made.pods[0]["in_flight"] = 42
        server.read_seconds = 10.0
        assert (await until(stream, "fleet"))["pods"][0]["in_flight"] == 42


async def test_a_stream_ends_after_some_time_so_that_the_gate_is_passed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "STREAM_SECONDS", 0.05)
    async with serving(MadeRouter()) as (_, client), viewing(client) as stream:
        async with asyncio.timeout(60):
            async for _ in stream:
                pass


def test_a_stream_that_ended_begins_again_before_the_page_calls_it_lost() -> None:
    script = (files("lora_router.admin") / "page" / "stream.js").read_text()
    [lost] = re.findall(r"^const LOST_MILLISECONDS = (\d+);$", script, re.MULTILINE)

    assert int(lost) / 2 >= events.RETRY_MILLISECONDS


@pytest.mark.slow
async def test_what_viewers_are_told_is_bounded() -> None:
    made = MadeRouter(0)
    made.pods = [pod(number) for number in range(2100)]
    made.pods[-1]["health"] = "ejected"
    made.adapters = [adapter(f"adapter-{number}", number) for number in range(5000)]
    async with serving(made) as (_, client), viewing(client) as stream:
        fleet = await until(stream, "fleet")
        assert len(fleet["pods"]) == 2000
        assert fleet["pods"][0]["name"] == "pods/vllm-2099"
        assert fleet["more"] == 100
        assert len((await until(stream, "adapters"))["adapters"]) == 200


async def test_a_scrape_that_is_young_is_as_young_as_another() -> None:
    made = MadeRouter(1)
    async with serving(made) as (_, client), viewing(client) as stream:
        assert (await until(stream, "fleet"))["pods"][0]["age_seconds"] == 0
        made.pods[0]["age_seconds"] = 9.0
        await until(stream, "tick")
        await until(stream, "tick")
        made.pods[0]["age_seconds"] = 13.0
        assert (await until(stream, "fleet"))["pods"] == [
            {"name": "pods/vllm-0000", "age_seconds": 10}
        ]
