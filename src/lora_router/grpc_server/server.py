"""A gRPC server: listens, keeps its connections, drains them.

One ``asyncio.Protocol`` for each connection; no task and no timer for each stream. It serves the
methods that are handed to it, and gRPC's health checking beside them.
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
"""Time for peers to see that they are asked to leave. Streams that they open meanwhile count."""


class GrpcServer:
    """A server of some methods, and of gRPC health."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        *,
        max_message_bytes: int,
        limits: Limits | None = None,
    ) -> None:
        """Prepare a server.

        Args:
            methods: The methods, by their paths.
            max_message_bytes: The longest message that any of them takes.
            limits: What one connection may do.
        """
        self.limits = _with_room(limits or Limits(), max_message_bytes)
        self.health = Health()
        self.methods = Methods(
            {**self.health.methods, **methods},
            max_header_list_bytes=self.limits.header_list_bytes,
        )
        self._connections: set[Wire] = set()
        self._server: asyncio.Server | None = None
        self._left = asyncio.Event()
        self._log_limit = LogLimit()

    async def start(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> int:
        """Listen; return the port.

        Args:
            host: The address to listen on.
            port: The port; 0 takes a free one.
            tls: Without it connections are in the clear.

        Raises:
            OSError: The address cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Wire(self),
            sock=_listen(host, port),
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else self.limits.handshake_seconds,
        )
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def drain(self, seconds: float) -> int:
        """Take no new streams, give the open ones some time to end, end the rest; stop listening.

        Returns:
            How many calls had to be ended by ``let_go``. Those who watch health are not counted:
            they are told at once.
        """
        if self._server is not None:
            self._server.close()
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
        """Log why a connection was ended, at most once in a while for each error code."""
        self._log_limit.log(
            log,
            logging.WARNING,
            violation.code,
            "a gRPC connection was ended: %s: %s; from %s",
            violation.code.name,
            violation.message,
            peer,
        )


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
