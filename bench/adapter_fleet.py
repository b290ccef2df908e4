"""A fleet whose adapters are declared in a file: simulated pods, a router, a real Envoy, and load.

``bench.adapters`` measures with it, and ``tests/integration/test_adapters_fleet.py`` tests with it.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml

from lora_router.app import App
from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.simulated_pod import PodOptions, SimulatedPod
from tests.envoy import Envoy, free_port

TIMEOUT_SECONDS = 180.0
"""For a busy machine. A wait that fails has no figure."""


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """The fleet, its adapters and its load."""

    pods: int = 8
    adapters: int = 200
    host_memory: int = 40
    """Adapters that fit in a pod's host memory."""
    load_seconds: float = 0.05
    """Duration of a load from disk. It stalls the pod's batch."""
    rate: float = 40.0
    """Requests per second."""
    seed: int = 1

    @property
    def engine(self) -> EngineOptions:
        """The engine of each pod."""
        return EngineOptions(
            max_loras=8,
            max_cpu_loras=self.host_memory,
            step_seconds=0.01,
            host_load_seconds=0.005,
            disk_load_seconds=self.load_seconds,
        )


@dataclass
class Outcomes:
    """What became of requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Requests for declared adapters that were not answered with status 200, and why."""
    cut: int = 0
    """Those that were on a pod when it was killed, or for an adapter that only that pod had."""


class AdapterFleet:
    """The running fleet."""

    def __init__(self, plan: FleetPlan, folder: Path) -> None:
        self.plan = plan
        self.pods: dict[str, SimulatedPod] = {}
        self.declared: dict[str, dict[str, object]] = {}
        self.outcomes = Outcomes()
        self._stacks: dict[str, AsyncExitStack] = {}
        self._pods_file = folder / "pods.yaml"
        self._adapters_file = folder / "adapters.yaml"
        self._killed: list[float] = []
        self._lost: set[str] = set()
        """Adapters that only a pod had that was killed, until they are served again."""
        self._rng = random.Random(plan.seed)

    # The pods

    async def add_pod(self, name: str) -> None:
        """Start a pod without adapters, and name it in the file."""
        stack = AsyncExitStack()
        options = PodOptions(name, engine=self.plan.engine)
        self.pods[name] = await stack.enter_async_context(SimulatedPod(options))
        self._stacks[name] = stack
        self._write_pods()

    async def kill_pod(self, name: str) -> None:
        """Stop a pod that runs, with its requests, and name it no longer."""
        self._killed.append(time.monotonic())
        killed = self.pods.pop(name)
        only = killed.adapters.roots.keys() - self.loaded()
        self._lost |= {each.partition("@")[0] for each in only}
        await self._stacks.pop(name).aclose()
        self._write_pods()
        self._killed.append(time.monotonic())

    def _write_pods(self) -> None:
        listed = [
            {"name": name, "address": pod.address, "max_cpu_loras": self.plan.host_memory}
            for name, pod in self.pods.items()
        ]
        _replace(self._pods_file, yaml.safe_dump({"pods": listed}))

    # The adapters

    def declare(
        self, names: Iterable[str], source: str = "/adapters/{name}", **more: object
    ) -> None:
        """Declare adapters, or other sources for them, with further keys of the file."""
        for name in names:
            self.declared[name] = {
                "name": name,
                "base_model": "base",
                "source": source.format(name=name),
                **more,
            }
        self._write_adapters()

    def withdraw(self, names: Iterable[str]) -> None:
        """Declare adapters no longer."""
        for name in names:
            del self.declared[name]
        self._write_adapters()

    def _write_adapters(self) -> None:
        _replace(self._adapters_file, yaml.safe_dump({"adapters": [*self.declared.values()]}))

    def loaded(self) -> set[str]:
        """Return the names under which at least one pod serves an adapter."""
        return {name for pod in self.pods.values() for name in pod.adapters.roots}

    def sources(self) -> set[str]:
        """Return the sources of all adapters that pods serve."""
        return {root for pod in self.pods.values() for root in pod.adapters.roots.values()}

    # The router, Envoy and clients

    async def start(self, stack: AsyncExitStack, folder: Path, **changes: object) -> None:
        """Start everything."""
        stack.push_async_callback(self._stop_pods)
        for number in range(self.plan.pods):
            await self.add_pod(f"pod-{number}")
        settings = load_settings(
            file=None,
            environ={},
            flags={
                "endpoints": str(self._pods_file),
                "adapters_file": str(self._adapters_file),
                "grpc_host": "127.0.0.1",
                "grpc_port": free_port(),
                "admin_port": 0,
                "envoy_listen_host": "127.0.0.1",
                "envoy_listen_port": free_port(),
                "envoy_admin_port": free_port(),
                "drain_timeout_seconds": 1.0,
                "drain_delay_seconds": 0.0,
                # To render a page costs a simulated pod more than all else.
                "pod_metric_refresh_interval_ms": 1000,
                **changes,
            },
        ).settings
        self.app = App(settings)
        stack.push_async_callback(self.app.stop)
        await self.app.start()
        self._envoy = await stack.enter_async_context(Envoy(bootstrap_yaml(settings), folder))
        self._client = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
            )
        )

    async def _stop_pods(self) -> None:
        for stack in self._stacks.values():
            await stack.aclose()

    async def ask(self, model: str, tokens: int = 4) -> tuple[int, str]:
        """Send a request; return the status and the body of its answer."""
        document = {"model": model, "messages": [], "max_tokens": tokens}
        url = f"http://127.0.0.1:{self._envoy.port}/v1/chat/completions"
        async with self._client.post(url, json=document) as response:
            return response.status, (await response.text())[:300]

    async def until_served(self, model: str) -> float:
        """Ask for an adapter until it is served; return how long that took, in seconds."""
        began = time.monotonic()
        while (await self.ask(model, 1))[0] != 200:
            if time.monotonic() - began > TIMEOUT_SECONDS:
                raise TimeoutError(f"{model} is not served")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    @asynccontextmanager
    async def under_load(self, models: Callable[[], Sequence[str]]) -> AsyncIterator[None]:
        """Send requests for some adapters at the planned rate, the first ones most often.

        Args:
            models: Returns the adapters.
        """
        requests: set[asyncio.Task[None]] = set()

        async def send() -> None:
            while True:
                names = models()
                place = int(len(names) * self._rng.random() ** 2)
                task = asyncio.create_task(self._request(names[place]))
                requests.add(task)
                task.add_done_callback(requests.discard)
                await asyncio.sleep(self._rng.expovariate(self.plan.rate))

        sending = asyncio.create_task(send())
        try:
            yield
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
            await asyncio.gather(*requests)

    async def _request(self, model: str) -> None:
        began = time.monotonic()
        try:
            status, text = await self.ask(model)
        except aiohttp.ClientError as error:
            status, text = 0, repr(error)
        ended = time.monotonic()
        self.outcomes.statuses[status] += 1
        self.outcomes.seconds.append(ended - began)
        if status == 200:
            self._lost.discard(model)
        else:
            cut = any(began <= killed <= ended for killed in self._killed)
            if cut or model in self._lost:
                self.outcomes.cut += 1
            else:
                self.outcomes.failed.append(f"{model}: {status} {text}")


@asynccontextmanager
async def adapter_fleet(
    plan: FleetPlan,
    folder: Path,
    names: Iterable[str] = (),
    with_one_copy: Iterable[str] = (),
    **changes: object,
) -> AsyncIterator[AdapterFleet]:
    """Run a fleet with some declared adapters.

    Args:
        plan: The fleet.
        folder: For files.
        names: The adapters that are declared at the start.
        with_one_copy: Further ones, of which each belongs on one pod.
        changes: Settings.
    """
    async with AsyncExitStack() as stack:
        fleet = AdapterFleet(plan, folder)
        fleet.declare(names)
        fleet.declare(with_one_copy, pods=1)
        await fleet.start(stack, folder, **changes)
        yield fleet


async def until(condition: Callable[[], bool], seconds: float = TIMEOUT_SECONDS) -> float:
    """Wait until a condition is true; return how long that took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError("the condition did not become true in time")
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def _replace(path: Path, text: str) -> None:
    """Replace a file as a whole, as editors and Kubernetes do."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
