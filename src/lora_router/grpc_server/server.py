"""The lean transport: listens, keeps its connections, drains them.

One ``asyncio.Protocol`` for each connection; no task and no timer for each stream.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from lora_router.extproc.session import SessionContext
from lora_router.extproc.tls import TlsFiles, tls_context
from lora_router.extproc.transport import (
    LIVENESS_SERVICE,
    READINESS_SERVICES,
    TransportError,
)
from lora_router.grpc_server import frames
from lora_router.grpc_server.calls import Calls
from lora_router.grpc_server.health import NOT_SERVING, SERVING, Health
from lora_router.grpc_server.limits import Limits
from lora_router.grpc_server.violations import PeerError
from lora_router.grpc_server.wire import Wire

log = logging.getLogger("lora_router.extproc")

_DRAIN_SEEN_SECONDS = 1.0
"""Time for peers to see that they are asked to leave. Streams that they open meanwhile count."""
_COMPLAINT_SECONDS = 10.0
"""At most one line about misbehaving peers in this time."""


class LeanTransport:
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
        self.limits = _with_room(limits or Limits(), max_message_bytes)
        self._health = Health()
        self.calls = Calls(
            context,
            max_message_bytes=max_message_bytes,
            max_header_list_bytes=self.limits.header_list_bytes,
            call_later=self._call_later,
            others=self._health.methods,
        )
        self._connections: set[Wire] = set()
        self._server: asyncio.Server | None = None
        self._left = asyncio.Event()
        self._complaints = _Complaints()
        self.port = port
        """The port it listens on, once started."""
        self.started = False

    @property
    def open_streams(self) -> int:
        """Streams that are open now."""
        return self.calls.open

    async def start(self) -> None:
        """Listen.

        Raises:
            TransportError: The address cannot be had, or the TLS files cannot be used.
        """
        context = None if self._tls is None else tls_context(self._tls)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Wire(self),
                sock=_listen(self._host, self.port),
                ssl=context,
                ssl_handshake_timeout=None if context is None else self.limits.handshake_seconds,
            )
        except OSError as error:
            address = f"[{self._host}]" if ":" in self._host else self._host
            raise TransportError(
                f"cannot listen on {address}:{self.port} for gRPC; is another server there?"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        self._health.set(LIVENESS_SERVICE, SERVING)
        await self.set_ready(ready=False)
        self.started = True

    async def set_ready(self, *, ready: bool) -> None:
        """Say through gRPC health whether new requests should come here."""
        for service in READINESS_SERVICES:
            self._health.set(service, SERVING if ready else NOT_SERVING)

    async def drain(self, seconds: float) -> int:
        """Take no new streams, give the open ones some time to end, end the rest; stop listening.

        Returns:
            How many streams had to be closed; they were closed with status OK.
        """
        if self._server is not None:
            self._server.close()
        self._health.close()
        for wire in tuple(self._connections):
            wire.drain()
        patience = min(seconds, _DRAIN_SEEN_SECONDS)
        await self._until_left(patience)
        for wire in tuple(self._connections):
            wire.refuse_new()
        await self._until_left(seconds - patience)
        left = self.calls.open
        for wire in tuple(self._connections):
            wire.let_go()
        await self._until_left(self.limits.close_seconds)
        for wire in tuple(self._connections):
            wire.abort()
        return left

    async def _until_left(self, seconds: float) -> None:
        if self._connections:
            self._left.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._left.wait()
            except TimeoutError:
                return

    @staticmethod
    def _call_later(seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, call)

    # What connections do

    def joined(self, wire: "Wire") -> None:
        """Count a connection."""
        self._connections.add(wire)

    def left(self, wire: "Wire") -> None:
        """Forget a connection."""
        self._connections.discard(wire)
        if not self._connections:
            self._left.set()

    def complain(self, peer: object, violation: PeerError) -> None:
        """Log why a connection was ended."""
        self._complaints.say(f"{violation.code.name}: {violation.message}; from {peer}")


class _Complaints:
    """Lines about misbehaving peers, and the number of those that were left out."""

    def __init__(self) -> None:
        self._next = 0.0
        self._left_out = 0

    def say(self, text: str) -> None:
        now = time.monotonic()
        if now < self._next:
            self._left_out += 1
            return
        more = f" ({self._left_out} more since the last such line)" if self._left_out else ""
        log.warning("a gRPC connection was ended: %s%s", text, more)
        self._next = now + _COMPLAINT_SECONDS
        self._left_out = 0


def _with_room(limits: Limits, max_message_bytes: int) -> Limits:
    """Let a message of the longest kind fit, and in full duplex its way back."""
    return replace(
        limits,
        held_bytes=min(frames.MAX_WINDOW, max(limits.held_bytes, max_message_bytes)),
        queued_bytes=max(limits.queued_bytes, 2 * max_message_bytes),
    )


def _listen(host: str, port: int) -> socket.socket:
    """Listen on an address; on ``::`` for IPv4 too, as gRPC does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server(
        (host, port), family=family, backlog=1024, dualstack_ipv6=host == "::"
    )
