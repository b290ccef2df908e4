"""The interface of a transport, which carries sessions to and from Envoy."""

from typing import Protocol

from grpc_health.v1 import health_pb2

from lora_router.extproc.pb import ext_proc_pb2
from lora_router.extproc.tls import TlsIdentity
from lora_router.grpc_server.bounds import Bounds

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
PROCESS_PATH = f"/{SERVICE}/Process"

READINESS_SERVICES = ("", "readiness", "inference-extension", SERVICE)
"""gRPC health services that report readiness: whether this router should receive new requests.
Manifests of endpoint pickers probe them by these names."""
REFLECTED = (ext_proc_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR)
"""The files whose services gRPC reflection describes."""

LIVENESS_SERVICE = "liveness"
"""The gRPC health service that reports SERVING as long as the process answers."""


class Transport(Protocol):
    """An ext_proc server with gRPC health checking on the same port."""

    port: int
    """The port on which the server listens, after ``start``."""
    started: bool
    tls: TlsIdentity | None
    """What new connections get, after ``start``; ``None`` without TLS."""

    bounds: Bounds
    """What all connections share, and how much of it is used."""

    @property
    def open_streams(self) -> int:
        """The number of open ext_proc streams."""

    async def start(self) -> None:
        """Start to listen.

        Raises:
            TransportError: The address is not available, or the TLS files cannot be used.
        """

    async def set_ready(self, *, ready: bool) -> None:
        """Report through gRPC health whether this router should receive new requests."""

    async def use_tls(self, identity: TlsIdentity) -> None:
        """Use a renewed certificate for new connections. Open connections keep theirs."""

    async def drain(self, seconds: float) -> int:
        """Stop listening, wait for open streams to end, and close the rest.

        A stream that is still open after the wait is closed with status OK. Envoy treats OK as
        "no further changes" and continues the response in progress. A cancelled stream would
        abort the response.

        It is called once. ``hurry`` ends the wait.

        Args:
            seconds: Maximum time to wait for open streams.

        Returns:
            The number of streams that were still open and were closed.
        """

    def hurry(self) -> None:
        """Let a drain, also one that begins later, wait for no more streams."""
