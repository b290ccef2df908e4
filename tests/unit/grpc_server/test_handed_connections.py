"""Connections that another process accepted, and that are given away again."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lora_router.grpc_server import frames
from lora_router.grpc_server.health import SERVING
from lora_router.grpc_server.limits import Limits
from lora_router.grpc_server.server import GrpcServer

_CHECK = health_pb2.HealthCheckRequest(service="a")


@dataclass
class Site:
    """A server that does not listen, and a socket that accepts for it."""

    server: GrpcServer
    address: str
    accepted: int = 0


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    server = GrpcServer({}, max_message_bytes=4096, limits=Limits(announced_streams=3))
    server.health.set("a", SERVING)
    server.start_handed()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    site = Site(server, f"127.0.0.1:{listening.getsockname()[1]}")
    loop = asyncio.get_running_loop()

    def accept() -> None:
        site.accepted += 1
        server.take(listening.accept()[0])

    loop.add_reader(listening, accept)
    yield site
    loop.remove_reader(listening)
    listening.close()
    await server.drain(0)


async def check(channel: grpc.aio.Channel) -> int:
    answer = await health_pb2_grpc.HealthStub(channel).Check(_CHECK, timeout=60)
    return int(answer.status)


async def test_they_are_served(site: Site) -> None:
    async with grpc.aio.insecure_channel(site.address) as channel:
        assert await check(channel) == SERVING
    assert site.accepted == 1


async def test_a_connection_that_is_given_away_is_replaced_by_another_one(site: Site) -> None:
    assert not site.server.shed()
    async with grpc.aio.insecure_channel(site.address) as channel:
        assert await check(channel) == SERVING
        watch = health_pb2_grpc.HealthStub(channel).Watch(_CHECK)
        assert (await watch.read()).status == SERVING
        assert site.server.connections == 1

        assert site.server.shed()
        assert site.server.connections == 0
        assert not site.server.shed()

        # What runs on it goes on, and new calls come over another connection.
        async with asyncio.timeout(60):
            while site.accepted == 1:
                assert await check(channel) == SERVING
        site.server.health.set("a", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


async def test_the_peer_is_told_to_open_another_connection_soon(site: Site) -> None:
    host, _, port = site.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = await reader.readexactly(9)
    payload = await reader.readexactly(int.from_bytes(head[:3]))
    pairs = {
        int.from_bytes(payload[at : at + 2]): int.from_bytes(payload[at + 2 : at + 6])
        for at in range(0, len(payload), 6)
    }
    assert pairs[frames.MAX_CONCURRENT_STREAMS] == 3
    writer.close()


async def test_after_a_drain_they_are_closed(site: Site) -> None:
    await site.server.drain(0)
    mine, theirs = socket.socketpair()
    site.server.take(theirs)
    with mine:
        assert mine.recv(1) == b""
