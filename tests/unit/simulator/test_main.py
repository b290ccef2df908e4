"""The simulated pod as a process of its own."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lora_router.discovery.pods_list import parse_pods
from lora_router.simulator.__main__ import parse_arguments

pytestmark = pytest.mark.slow  # Each test starts a Python.


@asynccontextmanager
async def a_process(*arguments: str, stdin: int = asyncio.subprocess.PIPE) -> AsyncIterator[Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lora_router.simulator", "--name", "pod-7", *arguments),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def first_line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        line: dict[str, Any] = json.loads(await process.stdout.readline())
    return line


async def ends(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(60):
        return await process.wait()


async def test_it_prints_where_it_listens_and_exits_on_sigterm() -> None:
    async with a_process("--adapters", "a1,a2") as process:
        line = await first_line(process)
        assert line["name"] == "pod-7"
        assert line["pid"] == process.pid
        url = f"http://127.0.0.1:{line['port']}/v1/models"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            models = await response.json()
        assert [model["id"] for model in models["data"]] == ["base", "a1", "a2"]
        process.send_signal(signal.SIGTERM)
        assert await ends(process) == 0


async def test_several_pods_run_in_one_process_and_the_router_reads_their_list(
    tmp_path: Path,
) -> None:
    file = tmp_path / "pods.yaml"
    async with a_process("--count", "2", "--max-cpu-loras", "8", "--pods-file", str(file)) as pods:
        lines = [await first_line(pods), await first_line(pods)]
        assert [line["name"] for line in lines] == ["pod-7-1", "pod-7-2"]
        listed = parse_pods(file.read_bytes())
    assert [pod.address for pod in listed] == [line["address"] for line in lines]
    assert [pod.lora.host_memory for pod in listed] == [8, 8]


async def test_it_exits_at_the_end_of_its_standard_input() -> None:
    async with a_process() as process:
        await first_line(process)
        process.stdin.write(b"anything else is ignored\n")
        await process.stdin.drain()
        process.stdin.close()
        assert await ends(process) == 0


async def test_it_runs_without_an_input_to_watch() -> None:
    async with a_process(stdin=asyncio.subprocess.DEVNULL) as process:
        line = await first_line(process)
        url = f"http://127.0.0.1:{line['port']}/health"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.status == 200


async def test_a_port_that_is_taken_is_named() -> None:
    async with a_process() as first:
        port = (await first_line(first))["port"]
        async with a_process("--port", str(port)) as second:
            assert await ends(second) == 1
            error = (await second.stderr.read()).decode()
    assert f"pod-7 cannot listen on 127.0.0.1:{port}" in error
    assert "Traceback" not in error


def test_arguments_become_options() -> None:
    line = "--name p --adapters a1,a2, --max-loras 8 --step-ms 30 --disk-load-ms 300"
    flags = ["--loads-do-not-block", "--preload", "--stream-interval", "4"]
    [options] = parse_arguments([*line.split(), *flags]).pods
    assert options.adapters == ("a1", "a2")
    assert options.preload
    assert options.stream_interval == 4
    assert options.engine.max_loras == 8
    assert options.engine.step_seconds == pytest.approx(0.03)
    assert options.engine.disk_load_seconds == pytest.approx(0.3)
    assert not options.engine.loads_block


def test_several_pods_have_consecutive_ports() -> None:
    pods = parse_arguments(["--name", "p", "--count", "3", "--port", "8001"]).pods
    assert [(pod.name, pod.port) for pod in pods] == [("p-1", 8001), ("p-2", 8002), ("p-3", 8003)]
    with pytest.raises(SystemExit):
        parse_arguments(["--name", "p", "--count", "0"])


def test_invalid_options_end_it_with_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["--name", "p", "--max-loras", "0"])
    assert ended.value.code == 2
    assert "max_loras must be at least 1" in capsys.readouterr().err
