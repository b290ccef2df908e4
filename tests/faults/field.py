"""Everything that a request meets: a real Envoy, routers and pods, each a process of its own."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy, free_port
from tests.faults.load import Client, Load
from tests.faults.machine import Taken
from tests.faults.pods import MODELS, Pod, write_pods
from tests.faults.routers import Router


@dataclass(frozen=True, slots=True)
class Field:
    """A running gateway."""

    pods: Sequence[Pod]
    routers: Sequence[Router]
    envoy: Envoy
    pods_file: Path

    @property
    def router(self) -> Router:
        """The only router."""
        (router,) = self.routers
        return router

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self.envoy.port}"

    def load(self, *, rate: float, algorithms: Sequence[str] = ("",), **options: object) -> Load:
        """Return a load that is sent inside a ``with`` block."""
        return Load(
            self.url,
            rate=rate,
            algorithms=algorithms,
            taken=Taken(self._pids),
            **options,  # type: ignore[arg-type]
        )

    def _pids(self) -> list[int]:
        """Return the processes that take part in a request, this one included."""
        pods = [pod.pid for pod in self.pods if pod.runs]
        routers = [router.pid for router in self.routers if router.runs]
        return [os.getpid(), self.envoy.pid, *pods, *routers]

    async def until_idle(self) -> None:
        """Wait until no running router counts a request. Fails after a time."""
        for router in self.routers:
            if router.runs:
                await router.until_idle()

    async def restore(self) -> None:
        """Undo what a test did: all pods are listed and well, all routers run."""
        write_pods(self.pods_file, self.pods)
        await asyncio.gather(*(pod.heal() for pod in self.pods))
        for router in self.routers:
            await router.restore()
        await self.until_well()

    async def until_well(self, seconds: float = 60.0) -> None:
        """Wait until each pod serves requests again. Fails after a time."""
        client = Client(self.url, patience_seconds=5)
        missing = {pod.name for pod in self.pods}
        try:
            async with asyncio.timeout(seconds):
                while missing:
                    answers = await asyncio.gather(
                        *(client.complete(model, "random") for model in MODELS)
                    )
                    missing -= {answer.pod for answer in answers if answer.served}
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"no answer of {missing} within {seconds:g} s") from None
        finally:
            await client.close()


@asynccontextmanager
async def field(
    directory: Path,
    *,
    pods: int = 4,
    routers: int = 1,
    prepare: Callable[[Router], None] | None = None,
    **settings: object,
) -> AsyncIterator[Field]:
    """Start the pods, the routers and Envoy. End them at the end of the block.

    ``prepare`` is called with each router before it starts.
    """
    async with AsyncExitStack() as stack:
        all_pods = [Pod(f"pod-{number}") for number in range(pods)]
        for pod in all_pods:
            stack.push_async_callback(pod.end)
        await asyncio.gather(*(pod.start() for pod in all_pods))
        pods_file = directory / "pods.yaml"
        write_pods(pods_file, all_pods)
        all_routers = [Router(directory, f"router-{each}") for each in range(routers)]
        common: dict[str, object] = {
            "endpoints": str(pods_file),
            "grpc_host": "127.0.0.1",
            "envoy_router_address": ",".join(
                f"127.0.0.1:{router.grpc_port}" for router in all_routers
            ),
            "envoy_listen_host": "127.0.0.1",
            "envoy_listen_port": free_port(),
            "envoy_admin_port": free_port(),
            **settings,
        }
        for router in all_routers:
            router.configure(common)
            if prepare is not None:
                prepare(router)
            stack.push_async_callback(router.kill)
        await asyncio.gather(*(router.start() for router in all_routers))
        printed = load_settings(file=all_routers[0].file, environ={}, flags={}).settings
        envoy = await stack.enter_async_context(Envoy(bootstrap_yaml(printed), directory))
        yield Field(all_pods, all_routers, envoy, pods_file)
