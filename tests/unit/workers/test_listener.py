"""The listening socket, and what becomes of the connections that it accepts."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from lora_router.listening import listen
from lora_router.workers.listener import Listener
from tests.waiting import until


class Crew:
    """Takes connections, or does not."""

    def __init__(self) -> None:
        self.takes_connections = True
        self.takes = True
        self.placed = 0

    def place(self, accepted: socket.socket) -> bool:
        self.placed += self.takes
        return self.takes


class Site:
    """A listener on a free port."""

    def __init__(self) -> None:
        self.crew = Crew()
        self.listener = Listener(self.crew)
        listening = listen("127.0.0.1", 0)
        self.address: tuple[str, int] = listening.getsockname()
        self.listener.start(listening)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    yield site
    site.listener.close()


async def test_connections_are_handed_on(site: Site) -> None:
    with site.connect(), site.connect():
        await until(lambda: site.crew.placed == 2)
    assert site.listener.refused == 0


async def test_they_wait_until_there_is_a_worker(site: Site) -> None:
    site.crew.takes_connections = False
    with site.connect():
        await asyncio.sleep(0.05)
        assert site.crew.placed == 0
        site.crew.takes_connections = True
        await until(lambda: site.crew.placed == 1)


async def test_one_that_no_worker_takes_is_closed(site: Site) -> None:
    site.crew.takes = False
    with site.connect() as client:
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            assert await loop.sock_recv(client, 1) == b""
    assert site.listener.refused == 1


async def test_after_the_close_nobody_can_connect(site: Site) -> None:
    site.listener.close()
    site.listener.close()
    with pytest.raises(ConnectionRefusedError):
        site.connect()
