"""One socket and its connection. Each turn handles many frames and causes at most one write.

A connection whose input needs further turns is not read meanwhile, and neither is one that has much
input, so that other connections get their turn. Output that is not the result of a read (a late
answer, a deadline) is written once per iteration of the event loop.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol, cast

from lora_router.grpc_server.bounds import Bounds
from lora_router.grpc_server.connection import Connection
from lora_router.grpc_server.limits import Limits
from lora_router.grpc_server.methods import Methods
from lora_router.grpc_server.turns import Turns
from lora_router.grpc_server.violations import ErrorCode, PeerError
from lora_router.steps import Steps

log = logging.getLogger("lora_router.grpc_server")

_LARGE_READ = 64 * 1024
"""Bytes of a read after which more is likely to wait in the socket."""
_CHECKS = 6
"""Checks within the time without input after which a PING is sent. The time of each input is not
noted, so a PING may come by one check later."""


class Host(Protocol):
    """The server, as seen by its connections."""

    limits: Limits
    bounds: Bounds
    methods: Methods
    turns: Turns

    def joined(self, wire: "Wire") -> None:
        """Add a connection."""

    def left(self, wire: "Wire") -> None:
        """Remove a connection."""

    def log_violation(self, peer: object, error: PeerError) -> None:
        """Log why a connection was closed."""


class Wire(asyncio.Protocol):
    """One socket."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._limits = host.limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._connection = Connection(
            host.methods.open_call,
            time.monotonic,
            limits=host.limits,
            bounds=host.bounds,
            call_later=self._call_later,
            wake=self._wake,
            turns=host.turns,
        )
        self._turns = host.turns
        self._writable = True
        self._in_turn = True
        """Whether no turn has to come before the next read."""
        self._counted_unsent = 0
        self._closing = False
        self._flush_due = False
        self._heard = True
        """Whether anything has arrived since the last check."""
        self._silent = 0
        """Checks in a row that found nothing."""
        self._unsent = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def greeted(self) -> bool:
        """Whether the peer has completed the handshake."""
        return self._connection.greeted

    @property
    def open_streams(self) -> int:
        """The number of open streams."""
        return len(self._connection.streams)

    @property
    def is_closing(self) -> bool:
        """Whether the connection is being closed."""
        return self._closing

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the connection, unless TLS negotiated another protocol than h2."""
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=self._limits.high_water_bytes)
        self._host.joined(self)
        secure = transport.get_extra_info("ssl_object")
        if secure is not None and secure.selected_alpn_protocol() != "h2":
            self._give_up("TLS client does not offer h2 (ALPN)")
            return
        self._flush()
        self._timer = self._loop.call_later(self._limits.handshake_seconds, self._check_greeting)

    def data_received(self, data: bytes) -> None:
        """Handle input, and write the output that results from it."""
        self._heard = True
        if not self._closing:
            connection = self._connection
            connection.receive(data)
            self._flush()
            if connection.behind or len(data) >= _LARGE_READ:
                self._wait_for_turn()

    def take_turn(self) -> None:
        """Handle input that is left, or read again if none is.

        An exception, such as a ``MemoryError``, closes the connection: it would not be read again.
        """
        if self._closing:
            return
        try:
            self._take_turn()
        except BaseException:
            self.abort()
            raise

    def _take_turn(self) -> None:
        connection = self._connection
        if connection.behind:
            connection.proceed()
            self._flush()
            if connection.behind:
                self._join_turns()
                return
        self._in_turn = True
        if self._writable and not self._closing:
            self._transport.resume_reading()

    def eof_received(self) -> None:
        """Close the connection: HTTP/2 has no half-closed connections."""

    def pause_writing(self) -> None:
        """Stop reading from a peer that does not read."""
        self._writable = False
        self._count_unsent()
        if self._in_turn and not self._closing:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Resume reading: the peer has read."""
        self._writable = True
        if not self._closing:
            if self._in_turn:
                self._transport.resume_reading()
            self._flush()
        self._count_unsent()

    def connection_lost(self, _error: Exception | None) -> None:
        """End all streams."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._connection.lost()
        self._host.bounds.budget.count_output(-self._counted_unsent)
        self._counted_unsent = 0
        self._host.left(self)

    # Draining

    def drain(self) -> None:
        """Ask the peer to open no new streams. The connection closes after the last stream."""
        self._connection.drain()
        self._flush()

    def refuse_new(self) -> None:
        """Refuse new streams without waiting for the peer's acknowledgement."""
        self._connection.refuse_new()
        self._flush()

    def let_go(self) -> Steps[int]:
        """End all open calls and the connection, in steps; return the number of calls."""
        self._connection.refuse_new()
        ended = yield from self._connection.let_go()
        self._flush()
        return ended

    def abort(self) -> None:
        """Close the socket immediately."""
        self._closing = True
        self._transport.abort()

    # Timers

    def _call_later(self, seconds: float, call: Callable[[], None]) -> Callable[[], object]:
        return self._loop.call_later(seconds, call).cancel

    def _peer(self) -> object:
        return self._transport.get_extra_info("peername")

    # Taking turns

    def _wait_for_turn(self) -> None:
        if self._in_turn and not self._closing:
            self._in_turn = False
            if self._writable:
                self._transport.pause_reading()
            self._join_turns()

    def _join_turns(self) -> None:
        connection = self._connection
        pause, connection.pause = connection.pause, 0.0
        if pause:
            self._loop.call_later(pause, self._turns.join, self)
        else:
            self._turns.join(self)

    # Writing

    def _count_unsent(self) -> None:
        """Count what waits for the peer to read, since it takes memory from bodies."""
        unsent = 0
        if not self._writable:
            unsent = self._transport.get_write_buffer_size()
            unsent += sum(map(len, self._connection.outbox.chunks))
        change = unsent - self._counted_unsent
        self._counted_unsent = unsent
        self._host.bounds.budget.count_output(change)

    def _wake(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._closing:
            return
        connection = self._connection
        chunks = connection.outbox.chunks
        if self._writable:
            if chunks:
                try:
                    self._transport.write(connection.output())
                except MemoryError:  # The peer would wait for an answer that does not come.
                    self.abort()
                    raise
        else:
            self._count_unsent()
            if self._counted_unsent > self._limits.queued_bytes:
                self._transport.abort()
                return
        if connection.failure is not None:
            self._host.log_violation(self._peer(), connection.failure)
            self._close()
        elif connection.done:
            self._close()

    def _close(self) -> None:
        """Close this side and wait for the peer to close, so that it receives the last output."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._limits.close_seconds, self._transport.abort)
        if not (self._writable and self._in_turn):
            self._transport.resume_reading()
        if not self._transport.can_write_eof():  # TLS
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:  # The peer has disconnected, and asyncio has not reported it yet.
            self._transport.abort()

    def _give_up(self, message: str) -> None:
        self._connection.fail(PeerError(ErrorCode.PROTOCOL_ERROR, message))
        self._flush()

    # Keepalive

    def _check_greeting(self) -> None:
        if not self._connection.greeted:
            self._give_up(
                f"handshake timeout: no HTTP/2 SETTINGS within {self._limits.handshake_seconds:g} s"
            )
            return
        self._check_silence_soon()

    def _check_silence_soon(self) -> None:
        seconds = self._limits.keepalive_seconds / _CHECKS
        self._timer = self._loop.call_later(seconds, self._check_silence)

    def _check_silence(self) -> None:
        self._silent = 0 if self._moved() else self._silent + 1
        self._heard = False
        if self._silent < _CHECKS:
            self._check_silence_soon()
            return
        self._silent = 0
        self._connection.control.ping()
        self._flush()
        self._timer = self._loop.call_later(
            self._limits.keepalive_timeout_seconds, self._check_answer
        )

    def _check_answer(self) -> None:
        if self._moved():
            self._check_silence()
            return
        log.info("keepalive timeout: peer %s does not answer; gRPC connection closed", self._peer())
        self._transport.abort()

    def _moved(self) -> bool:
        """Return whether the peer has sent or read something since the last call."""
        before, self._unsent = self._unsent, self._transport.get_write_buffer_size()
        return self._heard or self._unsent < before
