"""A router whose standard error is a full pipe that nobody reads serves all the same."""

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from tests.envoy import free_port


@pytest.fixture
def full_pipe() -> Iterator[int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)  # Of the open file, which the router shares.
    assert not fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK
    yield writing
    os.close(reading)
    os.close(writing)


async def test_health_metrics_and_the_end_do_not_wait_for_a_reader(
    tmp_path: Path, full_pipe: int
) -> None:
    pods = tmp_path / "pods.yaml"
    # A pod that cannot be scraped, so that there is something to log.
    entry = "{name: p, address: '127.0.0.1:1', models: [m]}"
    pods.write_text(f"pods: [{entry}]")
    admin = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lora_router", "serve", "--endpoints", pods),
        *("--set", "grpc_host=127.0.0.1", "--set", f"grpc_port={free_port()}"),
        *("--set", f"admin_port={admin}", "--set", "log_level=debug"),
        stderr=full_pipe,
    )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{admin}") as client:
            async with asyncio.timeout(60):
                while await status(client, "/readyz") != 200:
                    await asyncio.sleep(0.05)
            for edit in range(3):  # Each is logged.
                pods.write_text(f"pods: [{entry}] # {edit}")
                await asyncio.sleep(1.1)
                assert await status(client, "/healthz") == 200
            async with client.get("/metrics") as response:
                assert "lora_router_log_lines_dropped_total 0.0" in await response.text()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def status(client: aiohttp.ClientSession, path: str) -> int:
    try:
        async with client.get(path) as response:
            return response.status
    except aiohttp.ClientError:
        return 0


async def test_a_start_that_fails_ends_although_nobody_reads_why(
    tmp_path: Path, full_pipe: int
) -> None:
    pods = tmp_path / "pods.yaml"
    pods.write_text("pods: [{name: a}]")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lora_router", "serve", "--endpoints", pods),
        *("--set", "admin_port=0", "--set", "grpc_port=0"),
        stderr=full_pipe,
    )
    assert await asyncio.wait_for(process.wait(), 60) == 2


async def test_without_standard_streams_it_serves(tmp_path: Path) -> None:
    pods = tmp_path / "pods.yaml"
    pods.write_text("pods: []")
    admin = free_port()
    command = [
        *(sys.executable, "-m", "lora_router", "serve", "--endpoints", str(pods)),
        *("--set", "grpc_host=127.0.0.1", "--set", "grpc_port=0"),
        *("--set", f"admin_port={admin}", "-v"),
    ]
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command
    )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{admin}") as client:
            async with asyncio.timeout(60):
                while await status(client, "/readyz") != 200:
                    await asyncio.sleep(0.05)
        streams = [Path(f"/proc/{process.pid}/fd/{number}").readlink() for number in range(3)]
        assert streams == [Path("/dev/null")] * 3
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
