"""A router that runs out of file descriptors serves again as soon as there are some."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health_pb2

from tests.health import health
from tests.integration.served import Served

SERVING = health_pb2.HealthCheckResponse.SERVING
LIMIT = 80


@asynccontextmanager
async def limited(served: Served, option: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a router with so few file descriptors."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'ulimit {option} {LIMIT}; exec "$@"', "sh"),
        *(sys.executable, "-m", "lora_router", "serve", "--config", str(served.file)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await served.until_ready()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def descriptors(process: asyncio.subprocess.Process) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


async def test_both_ports_serve_again_once_there_are_descriptors(
    tmp_path: Path, transport: str
) -> None:
    (tmp_path / "pods.yaml").write_text("pods: []")
    served = Served(tmp_path, {"transport": transport})
    async with limited(served, "-n") as process:
        taken: list[socket.socket] = []
        async with asyncio.timeout(60):
            while descriptors(process) < LIMIT:
                # More of them would only wait to be accepted.
                ports = (served.grpc_port, served.admin_port) if len(taken) < 4 * LIMIT else ()
                for port in ports:
                    client = socket.socket()
                    client.setblocking(False)
                    client.connect_ex(("127.0.0.1", port))
                    taken.append(client)
                await asyncio.sleep(0.01)
        # It notices: the pods file cannot be read, and connections cannot be accepted.
        await asyncio.sleep(1.5)
        assert process.returncode is None
        for client in taken:
            with closing(client):
                pass

        async with asyncio.timeout(60):
            while not await is_serving(served.grpc_port):
                await asyncio.sleep(0.05)
            while (await served.readiness())[0] != 200:
                await asyncio.sleep(0.05)
            (tmp_path / "pods.yaml").write_text("pods: [{name: a, address: '127.0.0.1:1'}]")
            while (await served.readiness())[1]["pods"] != 1:
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def is_serving(port: int) -> bool:
    try:
        return bool(await health(port, "readiness") == SERVING)
    except grpc.aio.AioRpcError:
        return False


async def test_it_takes_as_many_descriptors_as_it_may(tmp_path: Path) -> None:
    """Many systems start a process with 1024, and let it have more."""
    (tmp_path / "pods.yaml").write_text("pods: []")
    served = Served(tmp_path, {})
    async with limited(served, "-S -n") as process:
        limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
        (soft, hard) = next(
            line.split()[3:5] for line in limits if line.startswith("Max open files")
        )
        assert soft == hard
        assert soft != str(LIMIT)
