"""Carries sessions over this service's own gRPC server."""

from lora_router.extproc.exchange import SessionContext
from lora_router.extproc.process_call import Process
from lora_router.extproc.tls import TlsFiles, tls_context
from lora_router.extproc.transport import (
    LIVENESS_SERVICE,
    PROCESS_PATH,
    READINESS_SERVICES,
    TransportError,
    shown_address,
)
from lora_router.grpc_server.health import NOT_SERVING, SERVING
from lora_router.grpc_server.limits import Limits
from lora_router.grpc_server.server import GrpcServer


class BuiltinTransport:
    """An ext_proc server with gRPC health on the same port."""

    def __init__(
        self,
        context: SessionContext,
        *,
        host: str,
        port: int,
        max_message_bytes: int,
        tls: TlsFiles | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Prepare a server.

        Args:
            context: What all sessions share.
            host: The address to listen on.
            port: The port; 0 takes a free one.
            max_message_bytes: The longest message taken from Envoy, which bounds the bodies.
            tls: The files of TLS; without them connections are in the clear.
            limits: What one connection may do.
        """
        self._host = host
        self._tls = tls
        self._process = Process(context, max_message_bytes)
        self.server = GrpcServer(
            {PROCESS_PATH: self._process.open_call},
            max_message_bytes=max_message_bytes,
            limits=limits,
        )
        self.port = port
        """The port it listens on, once started."""
        self.started = False

    @property
    def open_streams(self) -> int:
        """ext_proc streams that are open now."""
        return self._process.open

    async def start(self) -> None:
        """Listen.

        Raises:
            TransportError: The address cannot be had, or the TLS files cannot be used.
        """
        tls = None if self._tls is None else tls_context(self._tls)
        try:
            self.port = await self.server.start(self._host, self.port, tls=tls)
        except OSError as error:
            raise TransportError(
                f"cannot listen on {shown_address(self._host, self.port)} for gRPC; "
                "is another server there?"
            ) from error
        self.server.health.set(LIVENESS_SERVICE, SERVING)
        await self.set_ready(ready=False)
        self.started = True

    async def set_ready(self, *, ready: bool) -> None:
        """Say through gRPC health whether new requests should come here."""
        for service in READINESS_SERVICES:
            self.server.health.set(service, SERVING if ready else NOT_SERVING)

    async def drain(self, seconds: float) -> int:
        """Take no new streams, give the open ones some time to end, end the rest; stop listening.

        Returns:
            How many streams had to be closed; they were closed with status OK.
        """
        return await self.server.drain(seconds)
