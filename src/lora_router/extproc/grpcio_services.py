"""What grpcio serves beside ext_proc: gRPC health checking and reflection.

Clients keep such calls open for as long as they like. A drain does not wait for them: it ends them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from lora_router.extproc.transport import REFLECTED
from lora_router.grpc_server.reflection import METHOD, SERVICES, Reflection

_Context: TypeAlias = grpc.aio.ServicerContext


class SideServices:
    """The services, and the calls to them that stay open."""

    def __init__(self) -> None:
        self.health = _Health(self)
        self._open: set[asyncio.Task[None]] = set()
        self._ended = False

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve them. Must be called before the server starts."""
        server.add_generic_rpc_handlers(tuple(self._reflection()))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)

    def end(self) -> None:
        """End all calls, and those in transit."""
        self._ended = True
        for task in tuple(self._open):
            task.cancel()

    @contextmanager
    def until_ended(self) -> Iterator[None]:
        """Run the block until ``end`` is called. It must be followed by ``shut_down``."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- grpc.aio runs each call in a task
        self._open.add(task)
        if self._ended:  # It was in transit when the drain began.
            task.cancel()
        try:
            yield
        except asyncio.CancelledError:
            if not self._ended:
                raise  # The client disconnected.
            task.uncancel()
        finally:
            self._open.discard(task)

    async def shut_down(self, context: _Context) -> None:
        """End a call with a status, if ``end`` was called."""
        if self._ended:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "lora-router: shutting down")

    def _reflection(self) -> Iterator[grpc.GenericRpcHandler]:
        reflection = Reflection(REFLECTED)

        async def answer(requests: AsyncIterator[bytes], context: _Context) -> None:
            with self.until_ended():
                async for request in requests:
                    try:
                        await context.write(reflection.answer(request))
                    except DecodeError:
                        await context.abort(
                            grpc.StatusCode.INVALID_ARGUMENT, "not a reflection request"
                        )
            await self.shut_down(context)

        method = grpc.stream_stream_rpc_method_handler(answer)
        for service in SERVICES:
            yield grpc.method_handlers_generic_handler(service, {METHOD: method})


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # grpcio has no types for it
    """The health service of grpcio, which lacks ``List``."""

    def __init__(self, services: SideServices) -> None:
        super().__init__()
        self._services = services
        self._listed: dict[str, int] = {}

    async def set(self, service: str, status: int) -> None:
        """Set the state of a service."""
        self._listed[service] = status
        await super().set(service, status)

    async def Watch(  # noqa: N802 -- named by the protocol
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> None:
        """Send the state of a service, and each change, until a drain begins."""
        with self._services.until_ended():
            await super().Watch(request, context)
        await self._services.shut_down(context)

    async def List(  # noqa: N802 -- named by the protocol
        self, _request: health_pb2.HealthListRequest, _context: _Context
    ) -> health_pb2.HealthListResponse:
        """Return the states of all services."""
        statuses = {
            service: health_pb2.HealthCheckResponse(status=status)
            for service, status in self._listed.items()
        }
        return health_pb2.HealthListResponse(statuses=statuses)
