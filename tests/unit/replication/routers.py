"""Routers that compete for the Lease of a ``LeaseServer``, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from lora_router.discovery.kubernetes_api import Credentials
from lora_router.replication.kubernetes_lease import LeaseName
from lora_router.replication.leadership import Leadership, LeaseOptions
from lora_router.supervision import Supervisor
from tests.unit.replication.lease_server import Connection, LeaseServer

OPTIONS = LeaseOptions(LeaseName("models", "l"), 2, Credentials())


def now() -> float:
    return asyncio.get_running_loop().time()


class Router:
    """A router that is able to lead, and what its health checks say."""

    def __init__(self, server: LeaseServer, name: str, *, clock_ahead: float = 0.0) -> None:
        self.connection = Connection(server)
        self.supervisor = Supervisor(clock=now)
        self.leadership = Leadership(
            name,
            OPTIONS,
            self.supervisor,
            knows=lambda router: router in self.peers,
            clock=lambda: now() + clock_ahead,
            open_store=self.connection.open,
        )
        self.peers = {"a", "b", "c"}
        self.ready = False
        self.history: list[tuple[float, bool]] = []

    async def _publish(self, leads: bool) -> None:
        self.ready = leads
        self.history.append((now(), leads))

    def start(self, *, campaign: bool = True) -> None:
        self.leadership.start(self._publish)
        if campaign:
            self.leadership.campaign()

    async def kill(self) -> None:
        """End it as SIGKILL does: nothing is released."""
        self.ready = False
        await self.supervisor.stop()

    async def leave(self) -> None:
        """End it as SIGTERM does."""
        self.ready = False
        await self.leadership.resign()

    async def until(self, *, ready: bool, within: float) -> float:
        """Wait until it is ready, or not. Returns the seconds that this took."""
        began = now()
        async with asyncio.timeout(within):
            while self.ready is not ready:
                await asyncio.sleep(0.001)
        return now() - began


@asynccontextmanager
async def routers(server: LeaseServer, *names: str) -> AsyncIterator[list[Router]]:
    """Start routers one after the other. The first leads."""
    async with AsyncExitStack() as stack:
        made = []
        for name in names:
            router = Router(server, name)
            stack.push_async_callback(router.kill)
            router.start()
            made.append(router)
            await asyncio.sleep(0.5)
        yield made
