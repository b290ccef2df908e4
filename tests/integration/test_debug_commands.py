"""The commands that ask a running router, against a router of its own behind a real Envoy."""

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner, Result

from lora_router.cli.commands import app
from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy, free_port
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import write_pods
from tests.integration.served import Served
from tests.waiting import until

WAITS: dict[str, object] = {"tokens": 1, "pause": 0, "waits": True}
SLOW_SECONDS = 0.1


async def run(*arguments: str) -> Result:
    """Run a command in a thread, as a shell would, and return its output and exit status."""
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


class Site:
    """A router whose only slot is taken by ``a1``, while a request for ``a2`` waits."""

    def __init__(self, served: Served, pod: EchoPod) -> None:
        self.pod = pod
        self.url = f"http://127.0.0.1:{served.admin_port}"

    async def ask(self, *arguments: str) -> str:
        result = await run(*arguments, "--admin", self.url)
        assert result.exit_code == 0, result.output
        return result.output

    async def asked_until(self, expected: str, *arguments: str) -> str:
        """Ask until the answer contains something."""
        async with asyncio.timeout(60):
            while True:
                result = await run(*arguments, "--admin", self.url)
                if expected in result.output:
                    return result.output
                await asyncio.sleep(0.1)


@asynccontextmanager
async def one_runs_and_one_waits(tmp_path: Path) -> AsyncIterator[tuple[Site, "asyncio.Task[int]"]]:
    async with EchoPod("vllm-0", ("a1", "a2"), max_lora=1) as pod:
        write_pods(tmp_path / "pods.yaml", [pod])
        served = Served(tmp_path, {"slow_request_seconds": SLOW_SECONDS})
        settings = load_settings(file=served.file, environ={}, flags={}).settings
        async with (
            served.run(),
            aiohttp.ClientSession() as client,
        ):
            await served.until_ready()
            async with Envoy(bootstrap_yaml(settings), tmp_path, patient=True) as envoy:
                url = f"http://127.0.0.1:{envoy.port}/v1/completions"

                async def post(name: str, document: dict[str, object]) -> int:
                    headers = {"x-request-id": name}
                    async with client.post(url, json=document, headers=headers) as response:
                        await response.read()
                        return response.status

                running = asyncio.create_task(post("runs", {"model": "a1", **WAITS}))
                await until(lambda: len(pod.received) == 1)
                waiting = asyncio.create_task(post("waits", {"model": "a2"}))
                site = Site(served, pod)
                await site.asked_until("waits", "top")
                yield site, waiting
                pod.may_end.set()
                await asyncio.gather(running, waiting)


async def test_an_engineer_finds_the_adapter_that_waits_and_why_the_slowest_request_was_slow(
    tmp_path: Path,
) -> None:
    async with one_runs_and_one_waits(tmp_path) as (site, waiting):
        pods = await site.ask("pods")
        assert "vllm-0" in pods
        assert "1/1" in pods
        assert "a1 x1" in pods

        adapters = await site.ask("adapters", "--limit", "1")
        assert "a2" in adapters
        assert "1 more; --limit shows more of them." in adapters

        would = await site.ask("explain", "--model", "a2")
        assert would.startswith("A request for a2 would be held now.")
        assert "Excluded: vllm-0 (no free slot)." in would

        held = await site.ask("explain", "--request", "waits")
        assert "It is held." in held
        assert "no free slot" in held

        # It is slow then, even if the commands above took less time.
        await asyncio.sleep(SLOW_SECONDS)
        site.pod.may_end.set()
        assert await waiting == 200
        slow = await site.asked_until("Request waits", "explain", "--last-slow")
        assert "It went to vllm-0" in slow
        assert "It was held for " in slow
        assert "Then it got a slot of vllm-0, where a2 was not loaded." in slow
        assert "It is slow: its first byte took longer than 0.1 s." in slow

        page = json.loads(await site.ask("explain", "--request", "waits", "--json"))
        parts = page["body_seconds"] + page["held_seconds"] + page["pod_seconds"]
        assert page["held_for"] == "no-slot"
        assert parts == pytest.approx(page["first_byte_seconds"], abs=0.01)
        assert json.loads(await site.ask("pods", "--json"))["pods"][0]["name"] == "vllm-0"
        everything = json.loads(await site.ask("top", "--json"))
        assert everything["adapters"]["adapters"][0]["requests"] == 1
        assert everything["routers"]["routers"][0]["ready"] is True

        unknown = await run("explain", "--request", "nobody", "--admin", site.url)
        assert unknown.exit_code == 1
        assert "request nobody is not known" in unknown.output
        assert "decisions_share" in unknown.output


async def test_the_live_view_ends_with_the_key_q_and_leaves_the_terminal_as_it_was(
    tmp_path: Path,
) -> None:
    async with one_runs_and_one_waits(tmp_path) as (site, _):
        ours, theirs = pty.openpty()
        os.set_blocking(ours, False)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lora_router", "top", "--interval", "0.2"),
            *("--admin", site.url),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        )
        os.close(theirs)
        shown = b""

        def read(expected: bytes) -> bool:
            nonlocal shown
            with suppress(BlockingIOError):
                shown += os.read(ours, 65536)
            return shown.count(expected) >= 2

        try:
            await until(lambda: read(b"Held requests"))
            os.write(ours, b"q")
            async with asyncio.timeout(60):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
            os.close(ours)
        assert b"waits" in shown
        assert b"vllm-0" in shown


async def test_a_token_opens_the_pages_of_a_router_that_requires_one(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-that-is-long-enough-for-tests\n")
    async with EchoPod("vllm-0", ("a1",)) as pod:
        write_pods(tmp_path / "pods.yaml", [pod])
        served = Served(tmp_path, {"admin_token_file": str(token)})
        async with served.run():
            await served.until_ready()
            admin = ("--admin", f"http://127.0.0.1:{served.admin_port}")

            without = await run("pods", *admin)
            opened = await run("pods", *admin, "--token-file", str(token))
            by_settings = await run("pods", "--config", str(served.file))
            other = tmp_path / "other"
            other.write_text("a-token-of-another-router\n")
            wrong = await run("pods", *admin, "--token-file", str(other))
            lost = await run("pods", *admin, "--token-file", str(tmp_path / "lost"))

    assert without.exit_code == 1
    assert "this router requires a token: name the file with --token-file" in without.output
    assert f"--token-file: {other}: its token is not the one of this router" in wrong.output
    assert opened.exit_code == by_settings.exit_code == 0
    assert "vllm-0" in opened.output
    assert "vllm-0" in by_settings.output
    assert lost.exit_code == 2
    assert "lost: cannot be read: No such file or directory" in lost.output


@pytest.mark.parametrize(
    "command",
    [["pods"], ["adapters"], ["top"], ["explain", "--model", "a1"], ["explain", "--last-slow"]],
)
async def test_a_router_that_does_not_answer_is_a_clear_error(command: list[str]) -> None:
    result = await run(*command, "--admin", f"http://127.0.0.1:{free_port()}")

    assert result.exit_code == 1
    assert "no router answers (Connection refused)" in result.output
    assert "--admin" in result.output
