"""Pods as processes that a test can break and heal."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml

from tests.envoy import free_port
from tests.faults.behaviour import Behaviour

_ROOT = Path(__file__).parents[2]
ADAPTERS = ("a1", "a2", "a3", "a4", "a5", "a6")
MODELS = ("base", *ADAPTERS)
_LONGEST_LINE = 1 << 20
_ENVIRON = {key: value for key, value in os.environ.items() if key != "COVERAGE_PROCESS_CONFIG"}
"""A pod runs no module of the router, so that there is no coverage to measure."""


@dataclass(frozen=True, slots=True)
class Did:
    """What a pod did since it was last told to become something."""

    received: list[str]
    """The field ``user`` of each completion that it was asked for."""
    running: int
    """Completions that it is generating."""


class Pod:
    """One pod. ``break_`` and ``heal`` return when the pod has changed."""

    def __init__(self, name: str, adapters: Sequence[str] = ADAPTERS) -> None:
        self.name = name
        self.adapters = tuple(adapters)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process: asyncio.subprocess.Process | None = None
        self._behaviour = Behaviour()

    async def start(self) -> Did:
        """Start it, and wait until it listens."""
        self._behaviour = Behaviour()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.pod_process"),
            *(self.name, str(self.port), *self.adapters),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_ENVIRON,
            cwd=_ROOT,
            limit=_LONGEST_LINE,
        )
        return await self._did()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running.pid

    @property
    def runs(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.returncode is None

    async def become(self, **changes: object) -> Did:
        """Change how it behaves."""
        self._behaviour = replace(self._behaviour, **changes)  # type: ignore[arg-type]
        process = self._running
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(self._behaviour)).encode() + b"\n")
        return await self._did()

    async def heal(self) -> Did:
        """Make it well again, whatever was done to it."""
        if self._process is None or self._process.returncode is not None:
            return await self.start()
        self.resume()
        self._behaviour = Behaviour()
        return await self.become()

    async def kill(self) -> None:
        """End it with SIGKILL."""
        self._running.kill()
        await self._running.wait()

    def suspend(self) -> None:
        """Stop it with SIGSTOP: connections are accepted by the kernel and never served."""
        os.kill(self._running.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it continue."""
        os.kill(self._running.pid, signal.SIGCONT)

    async def end(self) -> None:
        """End it, if it runs."""
        if self.runs:
            await self.kill()

    @property
    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def _did(self) -> Did:
        assert self._running.stdout is not None
        async with asyncio.timeout(60):
            line = await self._running.stdout.readline()
        return Did(**json.loads(line))


def write_pods(file: Path, pods: Sequence[Pod]) -> None:
    """Write the router's list of pods, as an editor does: all at once."""
    listed = [{"name": pod.name, "address": pod.address} for pod in pods]
    written = file.with_suffix(".new")
    written.write_text(yaml.safe_dump({"pods": listed}))
    written.rename(file)
