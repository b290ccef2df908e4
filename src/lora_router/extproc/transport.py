"""What the app knows of a transport: whatever carries sessions to and from Envoy."""

from typing import Protocol

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
PROCESS_PATH = f"/{SERVICE}/Process"

READINESS_SERVICES = ("", "readiness", SERVICE)
"""gRPC health services that say whether new requests should come here."""
LIVENESS_SERVICE = "liveness"
"""The one that serves as long as the process answers."""


class TransportError(OSError):
    """The server cannot listen."""


def shown_address(host: str, port: int) -> str:
    """Return an address as it is written: an IPv6 one in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Transport(Protocol):
    """An ext_proc server with gRPC health on the same port."""

    port: int
    """The port it listens on, once started."""
    started: bool

    @property
    def open_streams(self) -> int:
        """ext_proc streams that are open now."""

    async def start(self) -> None:
        """Listen.

        Raises:
            TransportError: The address cannot be had, or the TLS files cannot be used.
        """

    async def set_ready(self, *, ready: bool) -> None:
        """Say through gRPC health whether new requests should come here."""

    async def drain(self, seconds: float) -> int:
        """Take no new streams, give the open ones some time to end, end the rest; stop listening.

        A stream that is still open then is closed with status OK: Envoy takes that as "nothing
        more to say" and lets the answer that it is sending run on, whereas a cancelled stream
        would break it.

        Returns:
            How many streams had to be closed.
        """
