"""A collector of traces for tests: OTLP over HTTP or gRPC, on a free loopback port."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass(frozen=True)
class Received:
    """One span, as the collector received it."""

    span: Span
    resource: dict[str, object]

    @property
    def trace_id(self) -> str:
        return self.span.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent_id(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def attributes(self) -> dict[str, object]:
        return values(self.span.attributes)


def values(attributes: Sequence[KeyValue]) -> dict[str, object]:
    """Return attributes by their names."""
    found = {}
    for each in attributes:
        found[each.key] = getattr(each.value, each.value.WhichOneof("value") or "string_value")
    return found


@dataclass
class Collector:
    """Keeps what it receives. One that hangs never answers."""

    over_grpc: bool = False
    hangs: bool = False
    received: list[Received] = field(default_factory=list)
    requests: int = 0
    port: int = 0

    @property
    def environ(self) -> dict[str, str]:
        """The variables that send spans here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc" if self.over_grpc else "http/protobuf",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "NO_PROXY": "127.0.0.1",
        }

    @property
    def routes(self) -> list[Received]:
        """The router's spans."""
        return [each for each in self.received if each.span.name == "route"]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was received fulfils a condition."""
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.02)

    async def __aenter__(self) -> Self:
        if self.over_grpc:
            self._server = grpc.aio.server()
            method = grpc.unary_unary_rpc_method_handler(
                self._called,
                ExportTraceServiceRequest.FromString,
                ExportTraceServiceResponse.SerializeToString,
            )
            handler = grpc.method_handlers_generic_handler(_SERVICE, {"Export": method})
            self._server.add_generic_rpc_handlers((handler,))
            self.port = self._server.add_insecure_port("127.0.0.1:0")
            await self._server.start()
            return self
        application = web.Application()
        application.router.add_post("/v1/traces", self._posted)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.over_grpc:
            await self._server.stop(0)
        else:
            await self._runner.cleanup()

    async def _called(
        self, request: ExportTraceServiceRequest, _context: object
    ) -> ExportTraceServiceResponse:
        self._keep(request)
        return ExportTraceServiceResponse()

    async def _posted(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self.hangs:
            await asyncio.sleep(3600)
        self._keep(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(content_type="application/x-protobuf")

    def _keep(self, request: ExportTraceServiceRequest) -> None:
        for of_resource in request.resource_spans:
            resource = values(of_resource.resource.attributes)
            for scope in of_resource.scope_spans:
                self.received += [Received(span, resource) for span in scope.spans]
