"""Carries sessions over ``grpc.aio``: one session for each stream.

``grpc.aio`` is the generic server. It costs about 0.5 ms of CPU time per request. This module shows
everything that a transport must do: pass each message to ``receive``, send what it returns, send
what the session sends late, and call ``end`` when the stream ends. A session does not know its
transport.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeAlias

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from lora_router.extproc.context import SessionContext
from lora_router.extproc.grpcio_memory import StreamMemory
from lora_router.extproc.grpcio_services import SideServices
from lora_router.extproc.outputs import EndStream, Output, Outputs
from lora_router.extproc.session import Session
from lora_router.extproc.tls import TlsIdentity, TlsSource, load_tls
from lora_router.extproc.transport import (
    LIVENESS_SERVICE,
    READINESS_SERVICES,
    SERVICE,
)
from lora_router.extproc.transport_error import listen_error
from lora_router.grpc_server.bounds import Bounds
from lora_router.grpc_server.limits import Limits, ProcessLimits
from lora_router.listening import everywhere, shown_address
from lora_router.supervision import Supervisor, unless

log = logging.getLogger("lora_router.extproc")

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_OF_A_CONNECTION = Limits()
"""The limits of the other transport, as far as grpcio has them."""
_Context: TypeAlias = grpc.aio.ServicerContext


class GrpcioTransport:
    """An ext_proc server with gRPC health checking on the same port."""

    def __init__(
        self,
        context: SessionContext,
        *,
        host: str,
        port: int,
        max_message_bytes: int,
        tls: TlsSource | None = None,
        supervisor: Supervisor | None = None,
        process_limits: ProcessLimits | None = None,
        handlers: Sequence[grpc.GenericRpcHandler] = (),
    ) -> None:
        """Create a server that does not listen yet.

        Args:
            context: What all sessions share.
            host: Address to listen on.
            port: Port to listen on; 0: any free port.
            max_message_bytes: Maximum length of a message from Envoy, which also bounds bodies.
            tls: Where the certificate comes from. Without it, connections are not encrypted.
            supervisor: Runs the tasks that send late answers. Default: a private supervisor.
            process_limits: Limits of all connections together, as far as grpcio has them.
            handlers: Further services on the same port.
        """
        limits = process_limits or ProcessLimits()
        loop = asyncio.get_running_loop()
        self.bounds = Bounds(
            limits,
            small=_OF_A_CONNECTION.stream_window,
            call_later=lambda seconds, call: loop.call_later(seconds, call).cancel,
        )
        self._context = context
        self._supervisor = supervisor or Supervisor()
        self._tls_files = tls
        self.tls: TlsIdentity | None = None
        self._tls_in_grpc: TlsIdentity | None = None
        """What grpcio has. Its threads fetch it at each new connection."""
        self._host = host
        self._streams: set[asyncio.Task[None]] = set()
        self._draining = False
        self._hurry = asyncio.Event()
        self._services = SideServices()
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                # In full duplex mode, the body is sent back to Envoy with some bytes around it.
                ("grpc.max_send_message_length", max_message_bytes + 65536),
                # A stream is open as long as its request, so this bounds the requests in flight of
                # the gateway. Envoy opens one connection per worker thread.
                ("grpc.max_concurrent_streams", limits.streams),
                ("grpc.max_allowed_incoming_connections", limits.connections),
                # With port reuse, a second server on the port would silently share the requests.
                ("grpc.so_reuseport", 0),
                # Envoy may be configured to send PINGs at any rate.
                ("grpc.http2.max_ping_strikes", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                # A gateway whose machine died does not close its connections.
                ("grpc.keepalive_time_ms", int(1000 * _OF_A_CONNECTION.keepalive_seconds)),
                (
                    "grpc.keepalive_timeout_ms",
                    int(1000 * _OF_A_CONNECTION.keepalive_timeout_seconds),
                ),
                # Streams are silent while pods answer.
                ("grpc.http2.max_pings_without_data", 0),
            ],
            maximum_concurrent_rpcs=limits.streams,
        )
        self._server.add_generic_rpc_handlers((self._handler(), *handlers))
        self._services.add_to(self._server)
        self.port = port
        """The port on which the server listens, after ``start``."""
        self.started = False

    @property
    def open_streams(self) -> int:
        """The number of open ext_proc streams."""
        return len(self._streams)

    async def start(self) -> None:
        """Start to listen.

        Raises:
            TransportError: The address is not available, or the TLS files cannot be used.
        """
        credentials = None if self._tls_files is None else self._credentials(self._tls_files)
        address = shown_address(everywhere(self._host), self.port)
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise listen_error(self._host, self.port) from error
        await self._services.health.set(LIVENESS_SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await self.set_ready(ready=False)
        await self._server.start()
        self.started = True

    async def use_tls(self, identity: TlsIdentity) -> None:
        """Use a renewed certificate for new connections. Open connections keep theirs."""
        self.tls = identity

    async def set_ready(self, *, ready: bool) -> None:
        """Report through gRPC health whether this router should receive new requests."""
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if ready
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for service in READINESS_SERVICES:
            await self._services.health.set(service, status)

    async def drain(self, seconds: float) -> int:
        """Stop listening, wait for open streams to end, and close the rest with status OK.

        Returns:
            The number of streams that were still open and were closed.
        """
        # From here on, grpc.aio refuses new streams with GOAWAY. Its grace period is longer.
        stopping = self._supervisor.once("grpc-stop", self._server.stop(seconds + 5))
        self._services.end()
        await unless(self._hurry, self._until_ended(seconds))
        left = len(self._streams)
        self._draining = True
        for task in tuple(self._streams):
            task.cancel()
        await stopping
        return left

    def hurry(self) -> None:
        """Let a drain, also one that begins later, wait for no more streams."""
        self._hurry.set()

    async def _until_ended(self, seconds: float) -> None:
        if self._streams:
            await asyncio.wait(self._streams, timeout=seconds)

    def _credentials(self, files: TlsSource) -> grpc.ServerCredentials:
        self.tls = self._tls_in_grpc = identity = load_tls(files)
        return grpc.dynamic_ssl_server_credentials(
            _certificate(identity),
            self._renewed,
            require_client_authentication=files.client_ca is not None,
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return a renewed certificate, or ``None`` for no change. Called in grpcio's threads."""
        identity = self.tls
        if identity is None or identity is self._tls_in_grpc:
            return None
        self._tls_in_grpc = identity
        return _certificate(identity)

    def _handler(self) -> grpc.GenericRpcHandler:
        # No deserializer: the session parses messages and reports malformed ones with a status.
        method = grpc.stream_stream_rpc_method_handler(self._process)
        return grpc.method_handlers_generic_handler(SERVICE, {"Process": method})

    async def _process(self, _requests: AsyncIterator[bytes], context: _Context) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- grpc.aio runs each stream in a task
        self._streams.add(task)
        writer = _Writer(context, task.cancel, self._supervisor)
        session = Session(self._context, writer.send_late)
        if self._context.headers.reads_traceparent:
            session.traceparent = _traceparent(context)
        memory = StreamMemory(self.bounds.budget, session, writer.send_late)
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                await writer.send(session.receive(data))
                await memory.let_in()
            await writer.send(session.half_closed())
            while session.is_held:
                writer.sent_late.clear()
                await writer.sent_late.wait()
        except asyncio.CancelledError:
            # The client disconnected, a late answer ended the stream, or the server drains.
            if writer.ended is None and not self._draining:
                raise
            task.uncancel()
            if writer.ended is None:
                await writer.send(session.draining())
        finally:
            session.end()
            memory.release()
            self._streams.discard(task)
        if writer.ended is not None:
            await context.abort(_STATUS[writer.ended.code], writer.ended.message)


def _traceparent(context: _Context) -> str:
    """Return the gateway's span of a stream, if it names one."""
    for name, value in context.invocation_metadata() or ():
        if name == "traceparent" and isinstance(value, str):
            return value
    return ""


def _certificate(identity: TlsIdentity) -> grpc.ServerCertificateConfiguration:
    contents = identity.contents
    return grpc.ssl_server_certificate_configuration(
        [(contents.key, contents.certificate)], root_certificates=contents.client_ca
    )


class _Writer:
    """Sends the messages of one stream in order, whether or not a received message caused them."""

    __slots__ = ("_cancel", "_context", "_queue", "_sending", "_supervisor", "ended", "sent_late")

    def __init__(
        self, context: _Context, cancel: Callable[[], object], supervisor: Supervisor
    ) -> None:
        self._context = context
        self._cancel = cancel
        self._supervisor = supervisor
        self._queue: deque[Output] = deque()
        self._sending = False
        self.ended: EndStream | None = None
        """The status with which the session ended the stream, if it did."""
        self.sent_late = asyncio.Event()
        """Set whenever late output has been sent, or cannot be."""

    async def send(self, outputs: Outputs) -> None:
        """Send after everything that is already queued."""
        self._queue.extend(outputs)
        if self._sending:
            return  # The task that is sending sends these too: one write at a time.
        self._sending = True
        try:
            while self._queue and self.ended is None:
                output = self._queue.popleft()
                if isinstance(output, EndStream):
                    if output.answer:
                        await self._context.write(output.answer)
                    self.ended = output
                    self._cancel()
                else:
                    await self._context.write(
                        output if isinstance(output, bytes) else output.joined()
                    )
        finally:
            self._sending = False

    def send_late(self, outputs: Outputs) -> None:
        """Send output that is not the result of a received message."""
        self._supervisor.once("late-answer", self._send_late(outputs))

    async def _send_late(self, outputs: Outputs) -> None:
        try:
            await self.send(outputs)
        except grpc.aio.BaseError as error:
            # The stream may end between the decision and the write; its session then releases
            # everything.
            log.debug("the stream of a late answer is closed: %s", error)
        finally:
            self.sent_late.set()
