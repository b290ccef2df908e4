"""Routers as processes: ``lora-router serve``, with what the operating system knows of them."""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.envoy import free_port

IDLE = (
    "lora_router_reservations",
    "lora_router_open_streams",
    "lora_router_held_requests",
    "lora_router_in_flight_requests",
    "lora_router_in_flight_adapters",
)
"""Metrics that are 0 when no request is on its way."""


class Router:
    """One router. It keeps its ports when it is started again."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.grpc_port, self.admin_port = free_port(), free_port()
        self.file = directory / f"{name}.yaml"
        self.log = directory / f"{name}.log"
        self.environment: dict[str, str] = {}
        """Added to the environment of the process."""
        self._as_configured = True
        self._process: asyncio.subprocess.Process | None = None

    def configure(self, settings: Mapping[str, object]) -> None:
        """Write its settings."""
        document = {"grpc_port": self.grpc_port, "admin_port": self.admin_port, **settings}
        self.file.write_text(yaml.safe_dump(document))

    async def start(
        self,
        *,
        output: int | None = None,
        limits: Mapping[int, int] | None = None,
        log_level: str = "info",
    ) -> None:
        """Start it, and wait until it is ready.

        Args:
            output: Where it logs, if not into its file.
            limits: Limits of resources of the process, by ``resource.RLIMIT_…``.
            log_level: What it logs.
        """

        def limit() -> None:
            for what, most in (limits or {}).items():
                resource.setrlimit(what, (most, most))

        self._as_configured = output is None and limits is None
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "lora_router", "serve", "--config", self.file),
                *("--log-level", log_level),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log if output is None else output,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **self.environment},
                preexec_fn=limit,
            )
        async with asyncio.timeout(120):
            while not await self.is_ready():
                assert self._process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.02)

    async def restore(self) -> None:
        """Let it run as ``configure`` said, whatever was done to it."""
        if self.runs:
            self.send(signal.SIGCONT)
        if not self._as_configured:
            await self.kill()
        if not self.runs:
            await self.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def ended(self, seconds: float = 60.0) -> int:
        """Wait until it has ended; return its status."""
        assert self._process is not None
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    async def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        if self.runs:
            self.send(signal.SIGKILL)
            await self.ended()

    async def get(self, path: str, seconds: float = 60.0) -> tuple[int, str]:
        """Get an admin page; status 0: there is no answer."""
        try:
            async with (
                asyncio.timeout(seconds),
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.admin_port}{path}") as response,
            ):
                return response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""

    async def is_ready(self) -> bool:
        """Whether ``/readyz`` says so."""
        return (await self.get("/readyz"))[0] == 200

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        status, page = await self.get("/metrics")
        assert status == 200, f"{self.name} shows no metrics"
        return sum(_values(page, name, labels))

    async def until_idle(self, seconds: float = 60.0) -> None:
        """Wait until it counts no request. Fails after a time with what it counts."""
        busy: dict[str, float] = {"unread": 1}
        for _ in range(int(seconds / 0.1)):
            _, page = await self.get("/metrics")
            busy = {name: sum(_values(page, name, {})) for name in IDLE}
            if page and not any(busy.values()):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{self.name} still counts {busy} after {seconds:g} s")

    def memory(self) -> int:
        """Return its resident memory in bytes."""
        return self._status("VmRSS")

    def peak_memory(self) -> int:
        """Return the largest resident memory since ``forget_peak``."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Begin to measure ``peak_memory`` anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status(self, key: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {key}")


def _values(page: str, name: str, labels: Mapping[str, str]) -> list[float]:
    return [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
