"""A gRPC server: listens, tracks its connections, drains them.

The server serves the methods that its owner passes to it, and gRPC health checking. Each connection
is one ``asyncio.Protocol``. A stream has no task, and a timer only if it has a deadline.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping
from dataclasses import replace

from lora_router.grpc_server import frames
from lora_router.grpc_server.health import Health
from lora_router.grpc_server.limits import Limits
from lora_router.grpc_server.methods import Method, Methods
from lora_router.grpc_server.violations import PeerError
from lora_router.grpc_server.wire import Wire
from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.grpc_server")

_DRAIN_SEEN_SECONDS = 1.0
"""Time for peers to acknowledge the first GOAWAY. Streams opened in this time are served."""


class GrpcServer:
    """A server for a set of methods and for gRPC health checking."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        *,
        max_message_bytes: int,
        limits: Limits | None = None,
    ) -> None:
        """Create a server that does not listen yet.

        Args:
            methods: The methods, by path.
            max_message_bytes: Maximum length of a message of any method.
            limits: Limits of one connection.
        """
        self.limits = _with_room(limits or Limits(), max_message_bytes)
        self.health = Health()
        self.methods = Methods(
            {**self.health.methods, **methods},
            max_header_list_bytes=self.limits.header_list_bytes,
        )
        self._connections: set[Wire] = set()
        self._socket: socket.socket | None = None
        """Listens. Each ``_server`` accepts from a duplicate."""
        self._server: asyncio.Server | None = None
        self._left = asyncio.Event()
        self._log_limit = LogLimit()

    async def start(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> int:
        """Listen, and return the port.

        Args:
            host: Address to listen on.
            port: Port to listen on; 0: any free port.
            tls: Without it, connections are not encrypted.

        Raises:
            OSError: The address is not available.
        """
        self._socket = _listen(host, port)
        await self.listen(tls)
        bound: int = self._socket.getsockname()[1]
        return bound

    async def listen(self, tls: ssl.SSLContext | None) -> None:
        """Accept connections with another TLS context. Open connections keep theirs.

        The socket stays, so that no connection is refused meanwhile.
        """
        if self._socket is None:
            return  # It drains.
        server = await asyncio.get_running_loop().create_server(
            lambda: Wire(self),
            sock=self._socket.dup(),
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else self.limits.handshake_seconds,
        )
        before, self._server = self._server, server
        if before is not None:
            before.close()

    async def drain(self, seconds: float) -> int:
        """Stop listening, wait for open streams to end, and end the rest.

        Args:
            seconds: Maximum time to wait for open streams.

        Returns:
            The number of calls that were still open and were ended by ``let_go``. Health ``Watch``
            calls do not count, because they end at once.
        """
        if self._socket is not None and self._server is not None:
            self._server.close()
            self._socket.close()
            self._socket = None
        self.health.close()
        for wire in tuple(self._connections):
            wire.drain()
        patience = min(seconds, _DRAIN_SEEN_SECONDS)
        await self._until_left(patience)
        for wire in tuple(self._connections):
            wire.refuse_new()
        await self._until_left(seconds - patience)
        ended = sum(wire.let_go() for wire in tuple(self._connections))
        await self._until_left(self.limits.close_seconds)
        for wire in tuple(self._connections):
            wire.abort()
        return ended

    async def _until_left(self, seconds: float) -> None:
        if self._connections:
            self._left.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._left.wait()
            except TimeoutError:
                return

    # Called by connections

    def joined(self, wire: "Wire") -> None:
        """Add a connection."""
        self._connections.add(wire)

    def left(self, wire: "Wire") -> None:
        """Remove a connection."""
        self._connections.discard(wire)
        if not self._connections:
            self._left.set()

    def log_violation(self, peer: object, violation: PeerError) -> None:
        """Log why a connection was closed. Lines are rate-limited for each error code."""
        self._log_limit.log(
            log,
            logging.WARNING,
            violation.code,
            "gRPC connection closed: %s: %s; peer %s",
            violation.code.name,
            violation.message,
            peer,
        )


def _with_room(limits: Limits, max_message_bytes: int) -> Limits:
    """Return limits that leave room for the longest message and for sending it back."""
    return replace(
        limits,
        held_bytes=min(frames.MAX_WINDOW, max(limits.held_bytes, max_message_bytes)),
        queued_bytes=max(limits.queued_bytes, 2 * max_message_bytes),
    )


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. ``::`` accepts IPv4 too, as other gRPC servers do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server(
        (host, port), family=family, backlog=1024, dualstack_ipv6=host == "::"
    )
