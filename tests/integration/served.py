"""``lora-router serve`` as a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import aiohttp
import yaml

from tests.envoy import free_port


class Served:
    """A router, with its settings in a file."""

    def __init__(self, directory: Path, config: dict[str, object]) -> None:
        self.file = directory / "router.yaml"
        self.grpc_port, self.admin_port = free_port(), free_port()
        document = {
            "endpoints": "pods.yaml",
            "grpc_host": "127.0.0.1",
            "grpc_port": self.grpc_port,
            "admin_port": self.admin_port,
            "envoy_listen_host": "127.0.0.1",
            "envoy_listen_port": free_port(),
            "envoy_admin_port": free_port(),
            **config,
        }
        self.file.write_text(yaml.safe_dump(document))
        self.output = b""

    @asynccontextmanager
    async def run(
        self, environ: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run it, with these variables beside those of the tests."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lora_router", "serve", "--config", self.file),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **environ},
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            assert process.stdout is not None
            self.output += await process.stdout.read()
            await process.wait()

    async def readiness(self) -> tuple[int, dict[str, object]]:
        async with aiohttp.ClientSession() as session:
            return await self._readiness(session)

    async def until_ready(self) -> None:
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while (await self._readiness(session))[0] != 200:
                await asyncio.sleep(0.02)

    async def _readiness(self, session: aiohttp.ClientSession) -> tuple[int, dict[str, object]]:
        try:
            async with session.get(f"http://127.0.0.1:{self.admin_port}/readyz") as response:
                return response.status, await response.json()
        except aiohttp.ClientError:
            return 0, {}
