"""A router whose memory is at its limit refuses what it cannot take, and lives on."""

import asyncio
import resource
from pathlib import Path

import grpc.aio

from lora_router.extproc.transport import PROCESS_PATH
from tests.integration.served import Served
from tests.integration.test_descriptors import is_serving
from tests.unit.extproc.conversation import request_body, request_headers

PODS = "pods: [{name: a, address: '127.0.0.1:1', models: [base]}]"
LARGE = b'{"model":"base","prompt":"' + b"x" * 20_000_000 + b'"}'


async def ask(port: int, body: bytes) -> bool:
    """Send a request's headers and body on a stream. Return whether it was answered."""
    options = [("grpc.max_send_message_length", -1)]
    async with (
        asyncio.timeout(60),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel,
    ):
        stream = channel.stream_stream(PROCESS_PATH)()
        try:
            await stream.write(request_headers().SerializeToString())
            await stream.read()
            await stream.write(request_body(body).SerializeToString())
            return await stream.read() is not grpc.aio.EOF
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False


def virtual_memory(process: asyncio.subprocess.Process) -> int:
    (size,) = (
        line.split()[1]
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("VmSize:")
    )
    return int(size) * 1024


async def test_failed_allocations_cost_requests_and_not_the_router(tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text(PODS)
    served = Served(tmp_path, {"startup_timeout_seconds": 0.2})
    async with served.run() as process:
        await served.until_ready()
        most = virtual_memory(process) + len(LARGE) // 2
        unlimited = resource.RLIM_INFINITY
        resource.prlimit(process.pid, resource.RLIMIT_AS, (most, unlimited))

        await asyncio.gather(*(ask(served.grpc_port, LARGE) for _ in range(6)))

        async with asyncio.timeout(120):
            while not await is_serving(served.grpc_port):
                await asyncio.sleep(0.05)
        assert (await served.readiness())[0] == 200
        resource.prlimit(process.pid, resource.RLIMIT_AS, (unlimited, unlimited))
        assert await ask(served.grpc_port, LARGE)
    assert b"MemoryError" in served.output
