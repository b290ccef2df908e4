"""Clients that are silent, slow, faulty or gone."""

import asyncio
import errno
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_router.extproc.tls import load_tls
from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import FrameReader, frame
from lora_router.grpc_server.limits import Limits, ProcessLimits
from lora_router.grpc_server.server import GrpcServer
from lora_router.grpc_server.violations import ErrorCode
from lora_router.grpc_server.wire import Wire
from lora_router.steps import all_at_once
from tests.integration.certificates import Certificates
from tests.unit.grpc_server.echo import Echo
from tests.unit.grpc_server.peer import MAX_MESSAGE, block, message
from tests.waiting import until

HELLO = frames.PREFACE + frames.settings({})
MANY_TRIES = 20


@dataclass
class Served:
    """A server of the echo method."""

    server: GrpcServer
    echo: Echo
    port: int

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return self.server.connections


@asynccontextmanager
async def serving(
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    process_limits: ProcessLimits | None = None,
) -> AsyncIterator[Served]:
    echo = Echo(MAX_MESSAGE)
    server = GrpcServer(
        echo.methods,
        max_message_bytes=MAX_MESSAGE,
        limits=limits,
        process_limits=process_limits,
    )
    port = await server.start("127.0.0.1", 0, tls=tls)
    try:
        yield Served(server, echo, port)
    finally:
        await server.drain(0)


class Socket:
    """A client that sends arbitrary bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connected(cls, served: Served, hello: bytes = HELLO) -> "Socket":
        made = cls(*await asyncio.open_connection("127.0.0.1", served.port))
        made.writer.write(hello)
        return made

    def open(self, number: int) -> None:
        self.writer.write(frame(frames.HEADERS, frames.END_HEADERS, number, block()))

    def say(self, number: int, data: bytes) -> None:
        for at in range(0, len(data), 16384):
            self.writer.write(frame(frames.DATA, 0, number, data[at : at + 16384]))

    async def rest(self) -> list[tuple[int, int, int, bytes]]:
        """Return all frames until the server closes the connection."""
        async with asyncio.timeout(60):
            data = await self.reader.read()
        reader = FrameReader()
        list(reader.feed(frames.PREFACE))
        return [
            (kind, flags, stream, bytes(body)) for kind, flags, stream, body in reader.feed(data)
        ]

    async def goaway(self) -> tuple[int, str]:
        """Return code and text of the GOAWAY with which the server closes the connection."""
        kind, _, _, payload = (await self.rest())[-1]
        assert kind == frames.GOAWAY
        return int.from_bytes(payload[4:8], "big"), payload[8:].decode()


async def test_who_says_nothing_is_closed_after_a_time() -> None:
    async with serving(Limits(handshake_seconds=0.2)) as served:
        silent = await Socket.connected(served, b"")
        half = await Socket.connected(served, frames.PREFACE)
        for client in (silent, half):
            assert await client.goaway() == (
                ErrorCode.PROTOCOL_ERROR,
                "handshake timeout: no HTTP/2 SETTINGS within 0.2 s",
            )
            client.writer.close()


async def test_who_speaks_http_1_is_closed_at_once() -> None:
    async with serving() as served:
        client = await Socket.connected(served, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await client.goaway() == (
            ErrorCode.PROTOCOL_ERROR,
            "not HTTP/2: no connection preface",
        )
        client.writer.close()


async def test_a_gateway_that_died_is_found_out_and_its_requests_given_back() -> None:
    limits = Limits(keepalive_seconds=0.1, keepalive_timeout_seconds=0.2, handshake_seconds=1.0)
    for _ in range(MANY_TRIES):
        async with serving(limits) as served:
            dead = await Socket.connected(served)
            dead.open(1)
            dead.say(1, message(b"hello"))
            got = await dead.rest()
            dead.writer.close()
            await until(lambda served=served: served.connections == 0)  # type: ignore[misc]
            assert served.echo.open == 0
        # On a busy machine, its greeting can be too late.
        if served.echo.taken == [b"hello"]:
            break
    assert served.echo.taken == [b"hello"]
    assert any(kind == frames.PING for kind, *_ in got)


async def test_a_gateway_that_answers_pings_stays() -> None:
    # A busy machine can be too slow for a short timeout.
    for seconds in (0.2, 1.0, 5.0, 20.0):
        limits = Limits(
            keepalive_seconds=0.1, keepalive_timeout_seconds=seconds, handshake_seconds=5 * seconds
        )
        answered, is_open = await pings_answered(limits, 3)
        if is_open:
            break
    assert (answered, is_open) == (3, True)


async def pings_answered(limits: Limits, count: int) -> tuple[int, bool]:
    """Answer so many PINGs. Return how many there were, and whether the connection is open then."""
    async with serving(limits) as served:
        client = await Socket.connected(served)
        client.open(1)
        client.say(1, message(b"hello"))
        reader = FrameReader()
        list(reader.feed(frames.PREFACE))
        answered = 0
        async with asyncio.timeout(120):
            while answered < count and (data := await client.reader.read(65536)):
                for kind, flags, _, body in reader.feed(data):
                    if kind == frames.PING and not flags:
                        client.writer.write(frame(frames.PING, frames.ACK, 0, bytes(body)))
                        answered += 1
        is_open = served.echo.open == 1
        client.writer.close()
        await until(lambda: served.echo.open == 0)
        return answered, is_open


async def test_who_asks_and_does_not_read_is_not_read_either() -> None:
    """The buffers of both sides are bounded, so the client cannot write any more."""
    limits = Limits(high_water_bytes=65536)
    async with serving(limits) as served:
        client = await Socket.connected(served)
        client.writer.write(frames.window_update(0, 2**30))
        client.writer.write(frames.settings({frames.INITIAL_WINDOW_SIZE: 2**30}))
        client.open(1)
        # Each message is sent back.
        piece = frame(frames.DATA, 0, 1, message(b"x" * 16_000))
        client.writer.transport.set_write_buffer_limits(high=0)
        written = 0
        stuck = False
        while not stuck and written < 200_000_000:
            client.writer.write(piece)
            written += len(piece)
            try:
                async with asyncio.timeout(1):
                    await client.writer.drain()
            except TimeoutError:
                stuck = True
        assert stuck, "the server took all of it"
        # Once the client reads, everything continues.
        received = 0
        async with asyncio.timeout(60):
            while received < written:
                received += len(await client.reader.read(2**20))
        client.writer.close()
        await until(lambda: served.echo.open == 0)


@pytest.mark.parametrize("fails", ["turn", "write"])
async def test_a_connection_that_cannot_go_on_for_want_of_memory_is_closed(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def output() -> bytes:
        raise MemoryError

    def proceed() -> None:
        if not wire._in_turn:
            raise MemoryError
        wire_proceeds()

    async with serving(Limits(frames_per_turn=8)) as served:
        client = await Socket.connected(served)
        await until(lambda: served.connections == 1)
        (wire,) = served.server._connections
        wire_proceeds = wire._connection.proceed
        client.open(1)
        client.say(1, message(b"wait"))
        await until(lambda: len(served.echo.waiting) == 1)
        if fails == "turn":
            monkeypatch.setattr(wire._connection, "proceed", proceed)
            for number in range(3, 101, 2):
                client.open(number)
        else:
            monkeypatch.setattr(wire._connection, "output", output)
            served.echo.send_waiting()

        async with asyncio.timeout(60):
            with suppress(ConnectionError):
                await client.reader.read()  # Until the end of the connection.
        await until(lambda: served.echo.open == served.connections == 0)
        client.writer.close()


async def test_misbehaviour_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="lora_router.grpc_server")
    async with serving() as served:
        for _ in range(5):
            client = await Socket.connected(served, HELLO + frame(frames.DATA, 0, 0, b"x"))
            await client.goaway()
            client.writer.close()

    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert "PROTOCOL_ERROR: frame for a stream that was never opened; peer ('127.0.0.1'" in lines[0]


async def test_tls_without_h2_is_refused(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    async with serving(tls=load_tls(certificates.files(mutual=False)).context) as served:
        context = ssl.create_default_context(cafile=str(certificates.client_ca))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", served.port, ssl=context, server_hostname="localhost"
        )
        client = Socket(reader, writer)
        code, text = await client.goaway()
        assert (code, text) == (ErrorCode.PROTOCOL_ERROR, "TLS client does not offer h2 (ALPN)")
        writer.close()


async def test_a_drain_does_not_wait_for_who_never_spoke() -> None:
    async with serving() as served:
        silent = await Socket.connected(served, b"")
        await until(lambda: served.connections == 1)
        async with asyncio.timeout(60):
            draining = asyncio.create_task(served.server.drain(600))
            await silent.rest()
            silent.writer.close()
            assert await draining == 0


class Left(asyncio.Transport):
    """A socket whose peer has disconnected, which asyncio has not reported yet."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None

    def write(self, data: object) -> None:
        assert data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def abort(self) -> None:
        self.aborted = True


async def test_a_drain_meets_a_gateway_that_leaves_at_that_moment() -> None:
    async with serving() as served:
        wire, left = Wire(served.server), Left()
        wire.connection_made(left)

        all_at_once(wire.let_go())

        assert left.aborted
        wire.connection_lost(None)


async def test_a_drain_does_not_wait_for_ever_for_who_does_not_answer() -> None:
    async with serving(Limits(close_seconds=0.2)) as served:
        client = await Socket.connected(served)
        await until(lambda: served.connections == 1)
        async with asyncio.timeout(60):
            assert await served.server.drain(30) == 0
        client.writer.close()
