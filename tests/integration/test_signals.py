"""Signals of a router's process: which reload, which end it, and which it survives."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
import yaml

from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingResponse
from lora_router.extproc.transport import PROCESS_PATH
from tests.envoy import Envoy
from tests.integration.calls import end_of
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import write_pods
from tests.integration.served import Served
from tests.unit.extproc.conversation import request_headers

STARTS = 20


def handles_hangups(process: asyncio.subprocess.Process) -> bool:
    """Return whether the process itself handles SIGHUP, which would end it by default.

    That its parent ignores the signal (``nohup``) is no handling.
    """
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in status)
    return bool(int(fields["SigCgt"], 16) & 1)


async def until_it_handles_hangups(process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(60):
        while not handles_hangups(process):
            await asyncio.sleep(0.001)


def change(served: Served, **settings: object) -> None:
    """Change the file of settings."""
    document = yaml.safe_load(served.file.read_text()) | settings
    served.file.write_text(yaml.safe_dump(document))


async def lines(process: asyncio.subprocess.Process, text: str) -> str:
    """Read the log up to the line that contains a text. Return that line."""
    assert process.stdout is not None
    # The start takes long where many processes start at the same time.
    async with asyncio.timeout(180):
        while line := (await process.stdout.readline()).decode():
            if text in line:
                return line
    raise AssertionError(f"the process ended without a line with {text!r}")


async def test_a_hangup_never_ends_it_from_its_first_lines_to_its_last(tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text("pods: []")
    served = Served(tmp_path, {"drain_delay_seconds": 0.3})
    async with AsyncExitStack() as stack:
        for _ in range(STARTS):
            process = await stack.enter_async_context(served.run())
            async with asyncio.timeout(60):
                while not handles_hangups(process):
                    await asyncio.sleep(0.001)
            if (await served.readiness())[0] == 0:  # It does not listen yet.
                break
            # This test was too slow to see that.
            await stack.aclose()
        else:
            pytest.fail("a router handled no hangup before it listened")

        async def hang_up() -> None:
            while process.returncode is None:
                # Not `send_signal`: it asks for the status first, and asyncio then misses it.
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGHUP)
                await asyncio.sleep(0.005)

        hangs_up = asyncio.create_task(hang_up())
        await served.until_ready()
        for _ in range(20):
            assert (await served.readiness())[0] == 200
        process.send_signal(signal.SIGTERM)

        assert await asyncio.wait_for(process.wait(), 60) == 0
        hangs_up.cancel()
    assert served.output.count(b"SIGHUP: reloading") >= 2
    assert b"Traceback" not in served.output


async def test_a_hangup_during_the_start_is_a_reload_after_it(tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text("pods: []")
    served = Served(tmp_path, {})
    async with served.run() as process:
        await until_it_handles_hangups(process)
        process.send_signal(signal.SIGHUP)
        await lines(process, "SIGHUP: reloading")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_signal_during_the_start_ends_it_as_one_after_the_start(
    tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    (tmp_path / "pods.yaml").write_text("pods: []")
    served = Served(tmp_path, {"workers": workers})
    async with served.run() as process:
        await until_it_handles_hangups(process)
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    assert b"Traceback" not in served.output


async def test_two_signals_during_the_start_end_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text("pods: []")
    served = Served(tmp_path, {})
    async with served.run() as process:
        await until_it_handles_hangups(process)
        for number in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(number)
        # A machine that is busy may deliver the second one late.
        assert await asyncio.wait_for(process.wait(), 60) in {0, 128 + 2, 128 + 15}
    assert b"Traceback" not in served.output


async def test_a_hangup_reloads(tmp_path: Path) -> None:
    async with EchoPod("vllm-0") as pod:
        (tmp_path / "pods.yaml").write_text("pods: []")
        served = Served(tmp_path, {})
        async with served.run() as process:
            await served.until_ready()

            write_pods(tmp_path / "pods.yaml", [pod])
            change(served, log_level="debug", grpc_max_streams=7)
            process.send_signal(signal.SIGHUP)
            await lines(process, "settings reloaded: log_level=debug")
            needed = await lines(process, "restart")
            assert needed.endswith("changed settings that need a restart: grpc_max_streams\n")
            async with asyncio.timeout(60):
                while (await served.readiness())[1]["pods"] != 1:
                    await asyncio.sleep(0.02)

            change(served, log_level="loud")
            process.send_signal(signal.SIGHUP)
            await lines(process, "old ones stay in use: ")
            assert (await served.readiness())[0] == 200


async def test_signals_that_are_meant_for_other_programs_do_not_end_it(tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text("pods: []")
    served = Served(tmp_path, {})
    async with served.run() as process:
        await served.until_ready()
        for name in ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGIO", "SIGPIPE", "SIGWINCH", "SIGCHLD"):
            process.send_signal(getattr(signal, name))
        for _ in range(3):
            assert (await served.readiness())[0] == 200
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_a_second_signal_ends_the_drain_and_answers_run_on(
    tmp_path: Path, transport: str
) -> None:
    async with EchoPod("vllm-0") as pod:
        write_pods(tmp_path / "pods.yaml", [pod])
        config = {"drain_delay_seconds": 300, "drain_timeout_seconds": 300}
        served = Served(tmp_path, {"transport": transport, **config})
        settings = load_settings(file=served.file, environ={}, flags={}).settings
        async with served.run() as process, aiohttp.ClientSession() as client:
            await served.until_ready()
            async with Envoy(bootstrap_yaml(settings), tmp_path, patient=True) as envoy:
                url = f"http://127.0.0.1:{envoy.port}/v1/completions"
                document = {"model": "base", "tokens": 40, "pause": 0.1}
                async with client.post(url, json=document) as response:
                    await response.content.readline()
                    process.send_signal(signal.SIGTERM)
                    await lines(process, "received a signal, draining")

                    process.send_signal(signal.SIGTERM)
                    assert await asyncio.wait_for(process.wait(), 60) == 0

                    assert (await response.read()).endswith(b"[DONE]\n\n")
                    assert pod.aborted == 0
        assert b"received another signal, ending the drain" in served.output


async def test_a_second_signal_ends_a_drain_that_waits_for_streams(
    tmp_path: Path, transport: str
) -> None:
    """A request that is not decided yet is refused, and the stream ends with OK.

    After OK, Envoy continues an answer without the router.
    """
    (tmp_path / "pods.yaml").write_text("pods: []")
    served = Served(tmp_path, {"transport": transport, "drain_timeout_seconds": 300})
    async with served.run() as process:
        await served.until_ready()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.grpc_port}") as channel:
            stream = channel.stream_stream(PROCESS_PATH)()
            await stream.write(request_headers().SerializeToString())
            await stream.read()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                while await listens(served.grpc_port):
                    await asyncio.sleep(0.02)

            process.send_signal(signal.SIGINT)

            (answer,), code = await end_of(stream)
            refused = ProcessingResponse.FromString(answer).immediate_response
            assert refused.status.code == 503
            assert b"router_draining" in refused.body
            assert code is grpc.StatusCode.OK
        assert await asyncio.wait_for(process.wait(), 60) == 0
    assert b"drained; 1 open stream closed" in served.output


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
