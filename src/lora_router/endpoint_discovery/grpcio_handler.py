"""``StreamEndpoints`` over ``grpc.aio``."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc
import grpc.aio

from lora_router.endpoint_discovery.service import METHOD, SERVICE, EndpointDiscovery
from lora_router.endpoint_discovery.subscription import RequestError, Subscription

_Context: TypeAlias = grpc.aio.ServicerContext


def endpoints_handler(discovery: EndpointDiscovery) -> grpc.GenericRpcHandler:
    """Return the handler of the method."""

    async def stream(_requests: AsyncIterator[bytes], context: _Context) -> None:
        await _Stream(discovery, context).run()

    method = grpc.stream_stream_rpc_method_handler(stream)
    return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})


class _Stream:
    """One stream: the subscription of an Envoy. A task reads, and the caller's task writes."""

    def __init__(self, discovery: EndpointDiscovery, context: _Context) -> None:
        self._discovery = discovery
        self._context = context
        self._subscription = Subscription(discovery.list)
        self._wake = asyncio.Event()
        self._stopping = False
        self._wrong: RequestError | None = None

    async def run(self) -> None:
        refusal = self._discovery.refusal()
        if refusal is not None:
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, f"lora-router: {refusal}")
        self._discovery.joined(self)
        reader = asyncio.create_task(self._read())
        reader.add_done_callback(lambda _task: self._wake.set())
        try:
            while not (reader.done() or self._stopping):
                response = self._subscription.take()
                if response is not None:
                    await self._context.write(response)
                    continue
                await self._wake.wait()
                self._wake.clear()
        finally:
            self._discovery.left(self)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        if self._stopping:
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, "lora-router: shutting down")
        if self._wrong is not None:
            await self._context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"lora-router: {self._wrong}"
            )

    def send_due(self) -> None:
        self._wake.set()

    def shut_down(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _read(self) -> None:
        try:
            while (data := await self._context.read()) is not grpc.aio.EOF:
                rejected = self._subscription.receive(data)
                if rejected is not None:
                    self._discovery.was_rejected(rejected)
                self._wake.set()
        except RequestError as error:
            self._wrong = error
