"""An API server with one Lease in memory, and what can go wrong between it and a router."""

import asyncio
from collections.abc import AsyncGenerator

from lora_router.discovery.kubernetes_api import ApiError
from lora_router.replication.lease import Claim, Lease


class LeaseServer:
    """Accepts a write only over the version that it has, as the API server does."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.versions = 0
        self.watches: dict[asyncio.Queue[Lease | ApiError | None], None] = {}

    def write(self, claim: Claim, over: Lease | None) -> Lease:
        if over is None and self.lease is not None:
            raise ApiError("conflict", 'status 409: leases "l" already exists')
        if over is not None and self.lease is None:
            raise ApiError("missing", 'status 404: leases "l" not found')
        if over is not None and self.lease is not None and over.version != self.lease.version:
            raise ApiError("conflict", "status 409: the object has been modified")
        return self.set(claim)

    def set(self, claim: Claim) -> Lease:
        self.versions += 1
        self.lease = Lease(claim, str(self.versions))
        self._tell(self.lease)
        return self.lease

    def delete(self) -> None:
        self.versions += 1
        self.lease = None
        self._tell(None)

    def end_watches(self, error: ApiError | None = None) -> None:
        """End all watches: properly, or with an error."""
        for queue in self.watches:
            queue.put_nowait(error or ApiError("end", ""))

    def _tell(self, lease: Lease | None) -> None:
        for queue in self.watches:
            queue.put_nowait(lease)


class Connection:
    """A ``LeaseStore``: one router's access to the server."""

    def __init__(self, server: LeaseServer, *, latency: float = 0.01) -> None:
        self.server = server
        self.latency = latency
        self.failure: ApiError | None = None
        """Every call fails with it."""
        self.silent = False
        """Requests are lost, and watches say nothing."""
        self.late_answers = False
        """Writes arrive, and their answers do not."""
        self.no_watch: ApiError | None = None
        self.reads = 0
        self.timeout = 0.75

    async def open(self) -> "Connection":
        return self

    async def close(self) -> None:
        pass

    async def read(self) -> Lease | None:
        self.reads += 1
        await self._arrive()
        lease = self.server.lease
        await self._arrive()
        return lease

    async def write(self, claim: Claim, over: Lease | None) -> Lease:
        await self._arrive()
        lease = self.server.write(claim, over)
        if self.late_answers:
            await self._time_out()
        await self._arrive()
        return lease

    async def watch(self, version: str) -> AsyncGenerator[Lease | None]:
        await self._arrive()
        if self.no_watch is not None:
            raise self.no_watch
        queue: asyncio.Queue[Lease | ApiError | None] = asyncio.Queue()
        self.server.watches[queue] = None
        try:
            lease = self.server.lease
            if lease is not None and lease.version != version:
                yield lease
            while True:
                change = await queue.get()
                while self.silent:
                    await asyncio.sleep(0.05)
                await asyncio.sleep(self.latency)
                if isinstance(change, ApiError):
                    if change.cause == "end":
                        return
                    raise change
                yield change
        finally:
            del self.server.watches[queue]

    async def _arrive(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.silent:
            await self._time_out()
        await asyncio.sleep(self.latency)

    async def _time_out(self) -> None:
        await asyncio.sleep(self.timeout)
        raise ApiError("timeout", f"no complete response within {self.timeout:g} s")
