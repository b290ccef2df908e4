"""Valkey or Redis behind TLS, behind Sentinels, and as a cluster."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.envoy import free_port
from tests.integration.certificates import Certificates
from tests.integration.test_peering import until
from tests.integration.test_peering_redis import Routers, all_meet, connected
from tests.redis_server import RedisProcess


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def started(stack: ExitStack, folder: Path, *options: str) -> RedisProcess:
    process = RedisProcess(folder, *options)
    process.start()
    stack.callback(process.stop)
    return process


async def test_a_cluster_is_asked_for_the_node_that_has_the_keys(
    tmp_path: Path, stack: ExitStack
) -> None:
    buses = [str(free_port()), str(free_port())]
    nodes = [
        started(stack, tmp_path / bus, "--cluster-enabled", "yes", "--cluster-port", bus)
        for bus in buses
    ]
    halves = (("0", "8191"), ("8192", "16383"))
    for node, (first, last) in zip(nodes, halves, strict=True):
        node.call("CLUSTER", "ADDSLOTSRANGE", first, last)
    nodes[0].call("CLUSTER", "MEET", "127.0.0.1", str(nodes[1].port), buses[1])
    await until(
        lambda: all(b"cluster_state:ok" in node.call("CLUSTER", "INFO") for node in nodes), 60
    )
    routers = Routers(tmp_path, nodes[0])
    routers.address = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)

    async with routers.run(2) as apps:
        await all_meet(apps)


async def test_the_sentinels_name_the_master_and_a_new_one_after_a_failover(
    tmp_path: Path, stack: ExitStack
) -> None:
    master = started(stack, tmp_path / "master")
    replica = started(stack, tmp_path / "replica", "--replicaof", "127.0.0.1", str(master.port))
    await until(lambda: b"master_link_status:up" in replica.call("INFO", "replication"), 60)
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds main 500\n"
        "sentinel failover-timeout main 2000\n"
    )
    sentinel = started(stack, tmp_path / "sentinel", str(config), "--sentinel")
    await until(lambda: b"num-slaves\r\n$1\r\n1" in sentinel.call("SENTINEL", "MASTER", "main"), 60)
    routers = Routers(tmp_path, sentinel)
    routers.address = f"redis+sentinel://127.0.0.1:{sentinel.port}/main"

    async with routers.run(2) as apps:
        await all_meet(apps)

        master.stop()
        await until(lambda: not any(connected(app) for app in apps), 60)
        await until(
            lambda: (
                all(connected(app) for app in apps)
                and b"role:master" in replica.call("INFO", "replication")
            ),
            60,
        )
        await all_meet(apps)


@asynccontextmanager
async def tls_in_front(server: RedisProcess, certificates: Certificates) -> AsyncIterator[int]:
    """Accept TLS with client certificates, as the server does if it is built for that."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.client_ca)
    context.load_cert_chain(certificates.certificate, certificates.key)
    context.verify_mode = ssl.CERT_REQUIRED
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", server.port)
        for task in (copy(reader, there[1]), copy(there[0], writer)):
            tasks.add(asyncio.create_task(task))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        port: int = listening.sockets[0].getsockname()[1]
        yield port
    finally:
        listening.close()
        for task in tasks:
            task.cancel()


async def test_tls_with_a_certificate_of_the_router(
    tmp_path: Path, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    server = started(stack, tmp_path / "server")
    certificates = Certificates(tmp_path)
    routers = Routers(tmp_path, server)
    async with tls_in_front(server, certificates) as port:
        routers.address = f"rediss://localhost:{port}"
        files = {
            "peer_tls_ca_file": certificates.client_ca,
            "peer_tls_cert_file": certificates.gateway_certificate,
            "peer_tls_key_file": certificates.gateway_key,
        }
        async with routers.run(2, **files) as apps:
            await all_meet(apps)

        # Without the authorities of the server's certificate, nothing is sent to it.
        async with routers.run(1):
            await until(lambda: "certificate verify failed" in caplog.text, 60)
