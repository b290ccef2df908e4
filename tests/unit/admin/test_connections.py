"""The limit of connections to the admin port."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lora_router.admin import connections
from lora_router.admin.server import AdminServer
from tests.browser.made_router import MadeRouter


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AdminServer]:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 3)
    server = MadeRouter().admin()
    await server.start()
    yield server
    await server.stop()


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(server: AdminServer) -> Connection:
    return await asyncio.open_connection("127.0.0.1", server.port)


async def ask(connection: Connection, path: str) -> bytes:
    reader, writer = connection
    writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    async with asyncio.timeout(60):
        return await reader.readline()


async def is_closed(connection: Connection) -> bool:
    async with asyncio.timeout(60):
        return await connection[0].read() == b""


async def test_at_the_limit_the_oldest_idle_connection_makes_room(server: AdminServer) -> None:
    stream = await connect(server)
    assert b"200" in await ask(stream, "/debug/events")
    idle = [await connect(server) for _ in range(2)]

    probe = await connect(server)

    assert b"200" in await ask(probe, "/healthz")
    assert await is_closed(idle[0])
    assert b"200" in await ask(idle[1], "/healthz")
    assert b"200" in await ask(await connect(server), "/healthz")
    assert await stream[0].readuntil(b"event: tick")
    for _, writer in (stream, *idle, probe):
        writer.close()


async def test_a_form_that_never_arrives_keeps_no_connection(server: AdminServer) -> None:
    slow = []
    for _ in range(3):
        connection = await connect(server)
        connection[1].write(
            b"POST /sign-in HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n"
        )
        slow.append(connection)

    assert b"200" in await ask(await connect(server), "/healthz")
