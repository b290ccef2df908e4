"""The streams that a router opens: why there is none, and when all peers have been met."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from lora_router.loop_clock import LoopClock
from lora_router.peering import clients
from lora_router.peering.addresses import PeerAddress
from lora_router.peering.clients import PeerClients
from lora_router.peering.hub import Hub
from lora_router.peering.mesh import Mesh
from lora_router.peering.service import METHOD, SERVICE
from lora_router.supervision import Supervisor
from tests.fleet import make_fleet


class Source:
    """Finds the addresses that a test names."""

    def __init__(self, *targets: str) -> None:
        self.addresses = [PeerAddress(target, "peer") for target in targets]
        self.is_complete = True

    async def follow(self, use: Callable[[Collection[PeerAddress]], None]) -> None:
        use(self.addresses)
        await asyncio.Event().wait()


@asynccontextmanager
async def calling(source: Source) -> AsyncIterator[PeerClients]:
    mesh = Mesh(Hub("here", make_fleet(2), dict, LoopClock()))
    supervisor = Supervisor()
    peers = PeerClients(mesh, source, supervisor)
    peers.start()
    try:
        yield peers
    finally:
        await peers.stop()
        await supervisor.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "GREETING_SECONDS", 0.2)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.005)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
async def test_a_peer_that_is_not_reached_is_not_said_to_lack_a_greeting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")

    async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with calling(Source(target)):
            await until(lambda: "no stream to peer" in caplog.text)

    assert f"no stream to peer {target}: no connection within 0.2 s" in caplog.messages


@pytest.mark.slow
async def test_a_peer_that_is_reached_and_does_not_greet_lacks_a_greeting(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "GREETING_SECONDS", 1.0)
    caplog.set_level("INFO")

    async def say_nothing(_requests: object, _context: object) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(say_nothing)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),)
    )
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with calling(Source(target)):
            await until(lambda: "no stream to peer" in caplog.text)
    finally:
        await server.stop(0)

    assert f"no stream to peer {target}: lora-router: the greeting is missing" in caplog.messages


async def test_as_long_as_not_all_addresses_are_known_not_all_peers_have_been_met() -> None:
    source = Source()
    source.is_complete = False
    async with calling(source) as peers:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not peers.has_joined()
        source.is_complete = True
        await until(peers.has_joined)
