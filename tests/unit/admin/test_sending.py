"""Clients that do not read a long page, or leave in the middle of it."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from lora_router.admin import sending
from lora_router.admin.sending import TOO_MANY, Sending
from lora_router.admin.server import AdminServer, Readiness
from lora_router.admin.shown import Shown
from lora_router.telemetry.exposition import Page

LONG = b"0123456789abcdef" * 400_000
"""More than the sockets buffer."""


class Body(bytes):
    """A body that says when nobody refers to it any more."""

    kept = 0

    def __del__(self) -> None:
        Body.kept -= 1


def body() -> Body:
    Body.kept += 1
    return Body(LONG)


async def metrics(_accept: str) -> Page:
    return Page(body(), "text/plain")


async def debug(_name: str, _query: object) -> Shown:
    return Shown(body())


@asynccontextmanager
async def served(sender: Sending | None = None) -> AsyncIterator[AdminServer]:
    server = AdminServer(
        metrics,
        lambda: Readiness(ready=True, reason="ready", details={}),
        lambda: 0.0,
        host="127.0.0.1",
        port=0,
        show=debug,
    )
    server.sending = sender or server.sending
    await server.start()
    yield server
    await server.stop()


@contextmanager
def without_collection() -> Iterator[None]:
    """The router collects garbage seldom, so what only a cycle refers to stays for long."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def ask(server: AdminServer, path: str, method: str = "GET") -> "Reader":
    """Send a request, and read the first line of its answer only."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", server.port))
    reader = Reader(limit=2048, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, sock=connection)
    reader.close = transport.abort
    transport.write(f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    return reader


class Reader(asyncio.StreamReader):
    """One end of a connection."""

    close: Callable[[], None]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.01)


async def status(answer: Awaitable[asyncio.StreamReader]) -> bytes:
    async with asyncio.timeout(60):
        return (await (await answer).readline()).split()[1]


@pytest.mark.parametrize("path", ["/metrics", "/debug/pods"])
async def test_a_client_that_leaves_in_the_middle_leaves_no_page_behind(path: str) -> None:
    async with served() as server:
        with without_collection():
            for _ in range(3):
                reader = await ask(server, path)
                assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
                reader.close()
            await until(lambda: Body.kept == 0)
    assert server.sending.bytes == 0


async def test_a_client_that_never_reads_is_dropped() -> None:
    async with served() as server:
        server.sending.seconds = 0.05
        with without_collection():
            reader = await ask(server, "/metrics")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            await until(lambda: Body.kept == 0)
        async with asyncio.timeout(60):
            assert len(await reader.read()) < len(LONG)


async def test_a_client_that_reads_slowly_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PAGE_SECONDS", 3.0)
    clock = iter(range(1_000_000))  # Each piece takes a second.
    async with served(Sending(now=lambda: next(clock))) as server:
        reader = await ask(server, "/metrics")
        async with asyncio.timeout(60):
            assert len(await reader.read()) < len(LONG)


async def test_pages_that_are_being_sent_are_bounded_and_probes_are_served() -> None:
    async with served(Sending(most=2 * len(LONG))) as server:
        slow = [await ask(server, "/metrics") for _ in range(2)]
        await until(lambda: server.sending.bytes == 2 * len(LONG))

        refused = await ask(server, "/debug/pods")
        assert await refused.readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
        assert TOO_MANY.encode() in await refused.readuntil(b"later")
        assert await status(ask(server, "/healthz")) == b"200"
        assert await status(ask(server, "/readyz")) == b"200"

        slow[0].close()
        await until(lambda: server.sending.bytes == len(LONG))
        assert await status(ask(server, "/metrics")) == b"200"


async def test_a_page_that_is_longer_than_the_limit_is_sent_alone() -> None:
    async with served(Sending(most=1)) as server:
        assert await status(ask(server, "/metrics")) == b"200"


async def test_the_length_is_stated_and_the_page_arrives_whole() -> None:
    length = f"content-length: {len(LONG)}\r\n".encode()
    async with served() as server, asyncio.timeout(60):
        reader = await ask(server, "/metrics")
        assert length in (await reader.readuntil(b"\r\n\r\n")).lower()
        assert await reader.readexactly(len(LONG)) == LONG

        head = await ask(server, "/metrics", "HEAD")
        assert length in (await head.readuntil(b"\r\n\r\n")).lower()
        assert server.sending.bytes == 0
