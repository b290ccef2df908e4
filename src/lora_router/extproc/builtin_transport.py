"""Carries sessions over the gRPC server of this project (``lora_router.grpc_server``)."""

from collections.abc import Mapping

from lora_router.extproc.context import SessionContext
from lora_router.extproc.process_call import Process
from lora_router.extproc.tls import TlsContents, TlsIdentity, TlsSource, identity_of, load_tls
from lora_router.extproc.transport import (
    LIVENESS_SERVICE,
    PROCESS_PATH,
    READINESS_SERVICES,
    REFLECTED,
)
from lora_router.extproc.transport_error import TransportError, listen_error
from lora_router.grpc_server.health import NOT_SERVING, SERVING
from lora_router.grpc_server.limits import Limits, ProcessLimits
from lora_router.grpc_server.methods import Method
from lora_router.grpc_server.reflection import Reflection
from lora_router.grpc_server.server import GrpcServer


class BuiltinTransport:
    """An ext_proc server with gRPC health checking on the same port."""

    def __init__(
        self,
        context: SessionContext,
        *,
        host: str | None,
        port: int,
        max_message_bytes: int,
        tls: TlsSource | None = None,
        limits: Limits | None = None,
        process_limits: ProcessLimits | None = None,
        methods: Mapping[str, Method] | None = None,
    ) -> None:
        """Create a server that does not listen yet.

        Args:
            context: What all sessions share.
            host: Address to listen on. ``None``: it does not listen, and ``server.take`` gets the
                connections that another process accepted.
            port: Port to listen on; 0: any free port.
            max_message_bytes: Maximum length of a message from Envoy, which also bounds bodies.
            tls: Where the certificate comes from. Without it, connections are not encrypted.
            limits: Limits of one connection.
            process_limits: Limits of all connections together.
            methods: Further methods on the same port, by path.
        """
        self._host = host
        self._tls_files = tls
        self.tls: TlsIdentity | None = None
        self.kept_tls: TlsContents | None = None
        """What is used at the start if the files cannot be."""
        self._reflection = Reflection(REFLECTED)
        self._process = Process(context, max_message_bytes)
        self.server = GrpcServer(
            {
                PROCESS_PATH: (
                    self._process.open_traced_call
                    if context.headers.reads_traceparent
                    else self._process.open_call
                ),
                **self._reflection.methods,
                **(methods or {}),
            },
            max_message_bytes=max_message_bytes,
            limits=limits,
            process_limits=process_limits,
        )
        self.bounds = self.server.bounds
        self.port = port
        """The port on which the server listens, after ``start``."""
        self.started = False

    @property
    def open_streams(self) -> int:
        """The number of open ext_proc streams."""
        return self._process.open

    async def start(self) -> None:
        """Start to listen.

        Raises:
            TransportError: The address is not available, or the TLS files cannot be used.
        """
        self.tls = None if self._tls_files is None else self._load_tls(self._tls_files)
        context = None if self.tls is None else self.tls.context
        # Before it listens, so that no health check finds an unknown service.
        self.server.health.set(LIVENESS_SERVICE, SERVING)
        await self.set_ready(ready=False)
        if self._host is None:
            self.server.start_handed(tls=context)
            self.started = True
            return
        try:
            self.port = await self.server.start(self._host, self.port, tls=context)
        except OSError as error:
            raise listen_error(self._host, self.port, error) from error
        self.started = True

    def _load_tls(self, files: TlsSource) -> TlsIdentity:
        try:
            return load_tls(files)
        except TransportError:
            if self.kept_tls is None:
                raise
            return identity_of(self.kept_tls)

    async def use_tls(self, identity: TlsIdentity) -> None:
        """Use a renewed certificate for new connections. Open connections keep theirs."""
        await self.server.listen(identity.context)
        self.tls = identity

    async def set_ready(self, *, ready: bool) -> None:
        """Report through gRPC health whether this router should receive new requests."""
        for service in READINESS_SERVICES:
            self.server.health.set(service, SERVING if ready else NOT_SERVING)

    async def drain(self, seconds: float) -> int:
        """Stop listening, wait for open streams to end, and close the rest with status OK.

        Returns:
            The number of streams that were still open and were closed.
        """
        self._reflection.close()
        return await self.server.drain(seconds)

    def hurry(self) -> None:
        """Let a drain, also one that begins later, wait for no more streams."""
        self.server.hurry()
