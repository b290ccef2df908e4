"""The processes of a measurement: starts them, waits for them, ends them by their ids."""

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from lora_router.config.settings import Settings
from lora_router.demo.processes import Children
from lora_router.demo.stack import envoy_binary

_ROOT = Path(__file__).parents[1]
GENERIC = "grpcio"
"""The transport that the others are compared with."""
_START_SECONDS = 120.0
_LINES_SHOWN = 15
SERVE = (sys.executable, "-m", "lora_router", "serve")
NOOP = (sys.executable, str(_ROOT / "bench/noop.py"))


def transports() -> tuple[str, ...]:
    """Return the values of the setting ``transport``, the generic one last."""
    names = [str(name) for name in get_args(Settings.model_fields["transport"].annotation)]
    return tuple(sorted(names, key=lambda name: name == GENERIC))


class Processes(Children):
    """Child processes with known ids."""

    def pid(self, name: str) -> int:
        """Return a child's process id."""
        return self._running[name].pid

    async def start_envoy(self, name: str, config: str) -> None:
        """Start an Envoy with one worker."""
        file = self._directory / f"{name}.json"
        file.write_text(config)
        await self.start(
            name,
            (
                *(envoy_binary(), "-c", file, "--concurrency", "1"),
                *("--log-level", "error", "--use-dynamic-base-id"),
            ),
        )

    async def start_router(
        self, name: str, command: tuple[str, ...], settings: Mapping[str, object]
    ) -> None:
        """Start a router, or another server with the same settings."""
        assignments = [
            part for key, value in settings.items() for part in ("--set", f"{key}={value}")
        ]
        await self.start(name, (*command, *assignments))

    async def until_listening(self, host: str, port: int) -> None:
        """Wait until a server accepts connections.

        Raises:
            ChildError: A child has exited.
            TimeoutError: No server accepts connections within the timeout.
        """
        async with asyncio.timeout(_START_SECONDS):
            while True:
                try:
                    _, writer = await asyncio.open_connection(host, port)
                except OSError:
                    self.check()
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return

    async def until_ready(self, admin_port: int) -> float:
        """Wait until ``/readyz`` returns 200; return the time, on ``time.perf_counter``.

        Raises:
            ChildError: A child has exited.
            TimeoutError: The router is not ready within the timeout.
        """
        async with asyncio.timeout(_START_SECONDS):
            while True:
                try:
                    if (await get(admin_port, "/readyz")).startswith(b"HTTP/1.1 200"):
                        return time.perf_counter()
                except OSError:
                    self.check()
                await asyncio.sleep(0.005)


async def get(port: int, path: str) -> bytes:
    """Return the response of a server on this host, including its headers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n"
        writer.write(head.encode())
        return await reader.read()
    finally:
        writer.close()


async def run_module(module: str, given: str = "", *arguments: str, seconds: float) -> str:
    """Run a module of the bench as a process; return its output.

    Raises:
        RuntimeError: The process failed. The message has the end of its standard error.
        TimeoutError: It took longer than ``seconds`` and was killed.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    try:
        async with asyncio.timeout(seconds):
            printed, said = await process.communicate(given.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = "\n".join(said.decode(errors="replace").splitlines()[-_LINES_SHOWN:])
        raise RuntimeError(f"{module} failed:\n{last}")
    return printed.decode()
