"""The processes: vLLM servers, the router, Envoy, and the files that declare pods and adapters."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from lora_router.config.sources import load_settings
from lora_router.demo.processes import ChildError, Children
from lora_router.demo.router_process import RouterProcess
from lora_router.demo.stack import envoy_binary, free_ports
from lora_router.envoy.bootstrap import bootstrap_yaml

BASE = "base"
_START_SECONDS = 600.0
"""A server starts in one to four minutes on two cores."""
_ENVIRONMENT = (
    "env",
    # Where it is set, it is meant for older libraries than those of torch.
    *("-u", "OPENBLAS_CORETYPE"),
    *("OMP_NUM_THREADS=1", "VLLM_CPU_OMP_THREADS_BIND=nobind", "VLLM_CPU_KVCACHE_SPACE=1"),
    *("VLLM_ALLOW_RUNTIME_LORA_UPDATING=True", "VLLM_NO_USAGE_STATS=1", "HF_HUB_OFFLINE=1"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run."""

    folder: Path
    servers: int
    adapters: int
    slots: int
    host_memory: int


class Fleet:
    """The processes of one run."""

    def __init__(self, plan: Plan, children: Children, directory: Path) -> None:
        self.plan = plan
        self._children = children
        self._directory = directory
        self._ports = free_ports(plan.servers + 4)
        router_port, admin_port, self._envoy_port, self._envoy_admin = self._ports[plan.servers :]
        self.router = RouterProcess("router", router_port, admin_port, directory / "router.yaml")
        self.url = f"http://127.0.0.1:{self._envoy_port}"
        self.declared: dict[str, str] = {}
        """The source of each declared adapter."""

    def source(self, number: int) -> str:
        """Return the path of an adapter that ``install`` made."""
        return str(self.plan.folder / "models" / f"a{number}")

    async def start_servers(self) -> None:
        """Start the vLLM servers one after the other: each needs both cores for its start.

        Raises:
            ChildError: One does not start.
        """
        for number in range(self.plan.servers):
            await self.start_server(number)

    async def start_server(self, number: int) -> None:
        """Start a server, also one that ended.

        Raises:
            ChildError: It does not start.
        """
        plan, port = self.plan, self._ports[number]
        command: list[str | Path] = [
            *_ENVIRONMENT,
            *(plan.folder / "environment/bin/vllm", "serve", plan.folder / "models/base"),
            *("--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(port)),
            *("--enable-lora", "--max-loras", str(plan.slots), "--max-lora-rank", "8"),
            *("--max-cpu-loras", str(plan.host_memory), "--max-model-len", "1024"),
            *("--enforce-eager", "--dtype", "float32"),
        ]
        name = self.server_name(number)
        await self._children.start(name, command)
        await self._until(name, f"http://127.0.0.1:{port}/health")

    async def kill_server(self, number: int) -> None:
        """End a server, as if its node failed."""
        await self._children.kill(self.server_name(number))

    @staticmethod
    def server_name(number: int) -> str:
        """Return the name of a server, as a pod and as a process."""
        return f"vllm-{number}"

    async def start_router(self) -> None:
        """Start the router and Envoy.

        Raises:
            ChildError: One does not start.
        """
        plan = self.plan
        pods = [
            {
                "name": self.server_name(number),
                "address": f"127.0.0.1:{self._ports[number]}",
                "engine": "vllm",
                "max_cpu_loras": plan.host_memory,
            }
            for number in range(plan.servers)
        ]
        (self._directory / "pods.yaml").write_text(yaml.safe_dump({"pods": pods}))
        self.declare()
        self.router.configure(
            {
                "endpoints": str(self._directory / "pods.yaml"),
                "adapters_file": str(self._directory / "adapters.yaml"),
                "algorithm": "lora-placement",
                "envoy_router_address": self.router.address,
                "envoy_listen_host": "127.0.0.1",
                "envoy_listen_port": self._envoy_port,
                "envoy_admin_port": self._envoy_admin,
                "envoy_access_log": "off",
                "response_headers": "on",
            }
        )
        await self._children.start("router", self.router.command)
        await self._until("router", self.router.ready_url)
        settings = load_settings(file=self.router.config, environ={}, flags={}).settings
        config = self._directory / "envoy.yaml"
        config.write_text(bootstrap_yaml(settings))
        envoy: list[str | Path] = [envoy_binary(), "-c", config, "--concurrency", "1"]
        envoy += ["--log-level", "warning", "--use-dynamic-base-id"]
        await self._children.start("envoy", envoy)
        await self._until("envoy", f"http://127.0.0.1:{self._envoy_admin}/ready")

    def declare(self) -> None:
        """Write the file that declares adapters."""
        entries = [
            {"name": name, "base_model": BASE, "source": source}
            for name, source in self.declared.items()
        ]
        file = self._directory / "adapters.new"
        file.write_text(yaml.safe_dump({"adapters": entries}))
        file.replace(self._directory / "adapters.yaml")

    async def listed(self, session: aiohttp.ClientSession) -> dict[str, dict[str, str]]:
        """Return the adapters that each server lists, with the paths of their sources."""
        found = {}
        for number in range(self.plan.servers):
            url = f"http://127.0.0.1:{self._ports[number]}/v1/models"
            try:
                async with session.get(url) as response:
                    page = await response.json()
            except aiohttp.ClientError:
                continue
            models = page["data"]
            found[self.server_name(number)] = {
                model["id"]: model["root"] for model in models if model["parent"]
            }
        return found

    async def _until(self, name: str, url: str) -> None:
        async with aiohttp.ClientSession() as session:
            try:
                async with asyncio.timeout(_START_SECONDS):
                    while not await _answers(session, url):
                        self._children.check()
                        await asyncio.sleep(0.2)
            except TimeoutError:
                lines = self._children.last_lines(name)
                raise ChildError(f"{name} did not start; its last lines:\n{lines}") from None


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
