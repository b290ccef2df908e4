"""A gRPC server: listens, tracks its connections, drains them.

The server serves the methods that its owner passes to it, and gRPC health checking. Each connection
is one ``asyncio.Protocol``. A stream has no task, and a timer only if it has a deadline.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from lora_router.grpc_server.acceptor import Acceptor
from lora_router.grpc_server.bounds import Bounds
from lora_router.grpc_server.health import Health
from lora_router.grpc_server.limits import Limits, ProcessLimits
from lora_router.grpc_server.methods import Method, Methods
from lora_router.grpc_server.turns import Turns
from lora_router.grpc_server.violations import PeerError
from lora_router.grpc_server.wire import Wire
from lora_router.listening import listen
from lora_router.log_limit import LogLimit
from lora_router.steps import Steps

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
        process_limits: ProcessLimits | None = None,
    ) -> None:
        """Create a server that does not listen yet. Must be created inside a running event loop.

        Args:
            methods: The methods, by path.
            max_message_bytes: Maximum length of a message of any method.
            limits: Limits of one connection.
            process_limits: Limits of all connections together.
        """
        loop = asyncio.get_running_loop()
        shared = _with_room_for_one(process_limits or ProcessLimits(), max_message_bytes)
        self.limits = _with_room(limits or Limits(), shared, max_message_bytes)
        self.bounds = Bounds(
            shared,
            small=self.limits.stream_window,
            call_later=lambda seconds, call: loop.call_later(seconds, call).cancel,
        )
        self.turns = Turns(loop.call_soon, time.monotonic)
        self.health = Health()
        self.methods = Methods(
            {**self.health.methods, **methods},
            max_header_list_bytes=self.limits.header_list_bytes,
        )
        self._connections: dict[Wire, None] = {}
        self._shed: set[Wire] = set()
        """Connections on which the gateway was asked to open no more streams."""
        self._acceptor: Acceptor | None = None
        self._changed = asyncio.Event()
        """Set when the last connection is gone, and by ``hurry``."""
        self._hurried = False
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
        listening = listen(host, port)
        self._accept_from(listening, tls)
        bound: int = listening.getsockname()[1]
        return bound

    def start_handed(self, *, tls: ssl.SSLContext | None = None) -> None:
        """Serve the connections that ``take`` gets, and listen on no port."""
        self._accept_from(None, tls)

    def take(self, accepted: socket.socket) -> None:
        """Serve a connection that was accepted elsewhere."""
        if self._acceptor is None:
            accepted.close()
        else:
            self._acceptor.take(accepted)

    def shed(self) -> bool:
        """Ask a gateway to replace a connection: the one with the most streams.

        Its streams continue. For new ones the gateway opens another connection.

        Returns:
            Whether there was one.
        """
        left = [each for each in self._connections if each not in self._shed and each.greeted]
        if not left:
            return False
        wire = max(left, key=lambda each: each.open_streams)
        self._shed.add(wire)
        wire.drain()
        return True

    def _accept_from(self, listening: socket.socket | None, tls: ssl.SSLContext | None) -> None:
        self._acceptor = Acceptor(
            listening,
            lambda: Wire(self),
            self._connections,
            bounds=self.bounds,
            tls=tls,
            handshake_seconds=self.limits.handshake_seconds,
        )
        self._acceptor.start()

    async def listen(self, tls: ssl.SSLContext | None) -> None:
        """Accept connections with another TLS context. Open connections keep theirs."""
        if self._acceptor is not None:
            self._acceptor.tls = tls

    @property
    def connections(self) -> int:
        """The number of open connections, without those that are being replaced (``shed``)."""
        return len(self._connections) - len(self._shed)

    async def drain(self, seconds: float) -> int:
        """Stop listening, wait for open streams to end, and end the rest.

        Args:
            seconds: Maximum time to wait for open streams.

        Returns:
            The number of calls that were still open and were ended by ``let_go``. Health ``Watch``
            calls do not count, because they end at once.
        """
        if self._acceptor is not None:
            self._acceptor.close()
        self.health.close()
        for wire in tuple(self._connections):
            wire.drain()
        patience = min(seconds, _DRAIN_SEEN_SECONDS)
        await self._until_left(patience)
        for wire in tuple(self._connections):
            wire.refuse_new()
        await self._until_left(seconds - patience)
        ended = 0
        for wire in tuple(self._connections):
            ended += await _with_breaks(wire.let_go())
        await self._until_left(self.limits.close_seconds, or_hurried=False)
        for wire in tuple(self._connections):
            wire.abort()
        return ended

    def hurry(self) -> None:
        """Let a drain, also one that begins later, wait for no more streams."""
        self._hurried = True
        self._changed.set()

    async def _until_left(self, seconds: float, *, or_hurried: bool = True) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._connections and not (or_hurried and self._hurried):
                    self._changed.clear()
                    await self._changed.wait()

    # Called by connections

    def joined(self, wire: "Wire") -> None:
        """Add a connection."""
        self._connections[wire] = None
        self.bounds.resets.connections = len(self._connections)
        if self._acceptor is not None:
            self._acceptor.opened(wire)

    def left(self, wire: "Wire") -> None:
        """Remove a connection."""
        self._connections.pop(wire, None)
        self._shed.discard(wire)
        self.bounds.resets.connections = len(self._connections)
        if not self._connections:
            self._changed.set()

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


async def _with_breaks(steps: Steps[int]) -> int:
    """Do all steps, and let others run between them."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: int = end.value
            return result
        await asyncio.sleep(0)


def _with_room_for_one(limits: ProcessLimits, max_message_bytes: int) -> ProcessLimits:
    """Return limits that leave room for the longest message beside small ones."""
    return replace(limits, buffered_bytes=max(limits.buffered_bytes, 2 * max_message_bytes))


def _with_room(limits: Limits, shared: ProcessLimits, max_message_bytes: int) -> Limits:
    """Return limits that leave room for all that may be sent back."""
    return replace(
        limits,
        max_streams=min(limits.max_streams, shared.streams),
        queued_bytes=max(limits.queued_bytes, 2 * max_message_bytes, shared.buffered_bytes),
    )
