"""The channel on a server that misbehaves, or in which others write."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from lora_router.loop_clock import LoopClock
from lora_router.peering import redis_channel
from lora_router.peering.hub import Hub
from lora_router.peering.pb.broadcast_pb2 import StoredState
from lora_router.peering.pb.peering_pb2 import PeerMessage, Report
from lora_router.peering.publications import Publications
from lora_router.peering.redis_address import parse_address
from lora_router.peering.redis_channel import RedisChannel
from lora_router.peering.redis_connection import RedisServer
from lora_router.peering.redis_location import FoundServer, RedisLocation
from lora_router.supervision import Supervisor
from tests.fleet import make_fleet
from tests.unit.peering.resp_server import Answer, RespServer, array, serving, text, usual


class Connected(NamedTuple):
    """A channel, and the server that it uses."""

    channel: RedisChannel
    hub: Hub
    server: RespServer
    failures: list[str]
    """The tasks that failed."""


@asynccontextmanager
async def connected_to(answer: Answer) -> AsyncIterator[Connected]:
    async with serving(answer) as server:
        address = parse_address(f"redis://127.0.0.1:{server.port}")
        failures: list[str] = []
        hub = Hub("here", make_fleet(2), dict, LoopClock())
        supervisor = Supervisor(failures.append)
        channel = RedisChannel(hub, RedisServer(address), supervisor, secret=None)
        channel.start()
        try:
            yield Connected(channel, hub, server, failures)
        finally:
            await channel.stop()
            await supervisor.stop()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.005)


def stored(router: str) -> bytes:
    """What a router has stored."""
    publications = Publications(router, None, lambda: 0.0)
    publications.set_time(1_800_000_000.0)
    message = PeerMessage(report=Report(number=1))
    return StoredState(
        broadcast=[publications.make(message.SerializeToString())]
    ).SerializeToString()


async def test_what_is_stored_is_used_state_by_state_and_not_kept() -> None:
    """Each is used before the next one is asked for."""
    known: list[int] = []

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"GETRANGE":
            known.append(len(there.hub.peers))
            return text(stored(command[1].decode().rpartition(":")[2]))
        return usual(command, b"a", b"b", b"c")

    async with connected_to(answer) as there:
        await until(lambda: there.channel.broadcasts.is_connected)
        assert known == [0, 1, 2]
        assert sorted(there.hub.peers) == ["a", "b", "c"]
        assert not there.channel.has_joined(), "stored states are no reports on the channel"


@pytest.mark.slow
async def test_no_more_is_read_than_all_peers_may_report(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_channel, "MAX_WEIGHT", 1_000_000)
    garbage = text(b"\xff" * 300_000)

    def answer(command: list[bytes]) -> bytes:
        names = [b"r%d" % number for number in range(100)]
        return garbage if command[0] == b"GETRANGE" else usual(command, *names)

    async with connected_to(answer) as there:
        await until(lambda: there.channel.broadcasts.is_connected)
        assert len(there.server.calls(b"GETRANGE")) == 4
    assert "stored states of lora-router are too large" in caplog.text


MISBEHAVIOURS = [
    pytest.param(b"", b"*1\r\n" * 5000, id="nested arrays"),
    pytest.param(b"", b"+" + b"a" * 300_000 + b"\r\n", id="a line without an end"),
    pytest.param(b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", id="another protocol"),
    pytest.param(b"", b"$xyz\r\n", id="no number"),
    pytest.param(b"TIME", b"+OK\r\n", id="no time"),
    pytest.param(b"TIME", array(text(b"now"), text(b"0")), id="a time of letters"),
    pytest.param(b"ZRANGEBYSCORE", b"*-1\r\n", id="no names"),
    pytest.param(b"ZRANGEBYSCORE", array(b":1\r\n"), id="numbers for names"),
    pytest.param(b"SUBSCRIBE", b"*2000000000\r\n" + b":1\r\n" * 300_000, id="a long array"),
    pytest.param(
        b"SUBSCRIBE", array(text(b"subscribe"), text(b"x"), b":1\r\n") + b"+x\r\n", id="no message"
    ),
]
"""A command, or nothing for all of them, and what the server answers."""


@pytest.mark.slow
@pytest.mark.parametrize(("to", "reply"), MISBEHAVIOURS)
async def test_a_server_that_misbehaves_is_a_line_in_the_log_and_no_failure_of_the_router(
    to: bytes, reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(command: list[bytes]) -> bytes:
        return reply if to in (b"", command[0]) else usual(command)

    async with connected_to(answer) as there:
        await until(lambda: "no peering over redis://" in caplog.text)
        await until(lambda: there.server.connections > 2)
        assert there.failures == []
    assert "channel {lora-router}:reports: " in caplog.text


async def test_the_server_is_found_once_for_both_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = 0
    find = RedisLocation.find

    async def counted(location: RedisLocation) -> FoundServer:
        nonlocal found
        found += 1
        return await find(location)

    monkeypatch.setattr(RedisLocation, "find", counted)
    async with connected_to(usual) as there:
        await until(lambda: there.channel.broadcasts.is_connected)
        assert (found, there.server.connections) == (1, 2)


async def test_names_that_no_router_has_are_left_out() -> None:
    def answer(command: list[bytes]) -> bytes:
        return usual(command, b"\xff", b"a")

    async with connected_to(answer) as there:
        await until(lambda: there.channel.broadcasts.is_connected)
        assert [call[1] for call in there.server.calls(b"GETRANGE")] == [b"{lora-router}:state:a"]
