"""Accepts connections, as many as the process may have.

A connection counts from the moment it is accepted, before any handshake. When no more are allowed,
the oldest one that has not completed its handshake makes room. If all have, the new one is closed
at once. So clients that connect and stay silent keep no gateway out.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress

from lora_router.grpc_server.bounds import Bounds
from lora_router.grpc_server.wire import Wire
from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.grpc_server")

_AT_ONCE = 64
"""Connections accepted in one iteration of the event loop."""
_RETRY_SECONDS = 0.5
"""Pause after ``accept`` failed, for example because no file descriptor was left."""


class Acceptor:
    """A listening socket, and the connections that are being opened."""

    def __init__(
        self,
        listening: socket.socket | None,
        make: Callable[[], Wire],
        open_wires: Iterable[Wire],
        *,
        bounds: Bounds,
        tls: ssl.SSLContext | None,
        handshake_seconds: float,
    ) -> None:
        """Create an acceptor that does not accept yet.

        Args:
            listening: The socket. The acceptor closes it. ``None``: connections are accepted
                elsewhere, and handed to ``take``.
            make: Makes the protocol of a connection.
            open_wires: The connections that exist, the oldest first.
            bounds: Has the maximum number of connections, including those being opened.
            tls: Without it, connections are not encrypted.
            handshake_seconds: Timeout of the TLS handshake.
        """
        self._socket = listening
        self._make = make
        self._open_wires = open_wires
        self._bounds = bounds
        self._max = bounds.limits.connections
        self.tls = tls
        """Used for the connections accepted from now on."""
        self._handshake_seconds = handshake_seconds
        self._loop = asyncio.get_running_loop()
        self._opening: dict[Wire, asyncio.Task[None]] = {}
        self._closed = False
        self._retry: asyncio.TimerHandle | None = None
        self._log_limit = LogLimit()

    def start(self) -> None:
        """Accept connections from now on."""
        self._retry = None
        if self._socket is not None:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening, and give up the connections that are being opened."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        if self._socket is not None and self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        for task in tuple(self._opening.values()):
            task.cancel()

    def opened(self, wire: Wire) -> None:
        """Note that a connection is open."""
        self._opening.pop(wire, None)

    def _accept(self) -> None:
        listening = self._socket
        assert listening is not None  # noqa: S101 -- it is readable
        for _ in range(_AT_ONCE):
            try:
                accepted, _address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._log_limit.log(
                    log, logging.ERROR, "accept", "cannot accept gRPC connections: %s", error
                )
                self._loop.remove_reader(listening.fileno())
                self._retry = self._loop.call_later(_RETRY_SECONDS, self.start)
                return
            self.take(accepted)

    def take(self, accepted: socket.socket) -> None:
        """Open an accepted connection. After ``close``, it is closed at once."""
        if self._closed:
            accepted.close()
            return
        if not self._has_room():
            self._bounds.refused_connections += 1
            self._log_limit.log(
                log,
                logging.WARNING,
                "connections",
                "gRPC connection refused: %d are open, the limit of grpc_max_connections",
                self._max,
            )
            accepted.close()
            return
        accepted.setblocking(False)
        # The answer to a request is one small write.
        with suppress(OSError):
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = self._make()
        self._opening[wire] = self._loop.create_task(self._open(accepted, wire))

    def _has_room(self) -> bool:
        wires = list(self._open_wires)
        if len(wires) + len(self._opening) < self._max:
            return True
        for wire in tuple(self._opening):
            self._opening.pop(wire).cancel()
            return True
        for wire in wires:
            if not wire.greeted and not wire.is_closing:
                wire.abort()
                return True
        return False

    async def _open(self, accepted: socket.socket, wire: Wire) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: wire,
                accepted,
                ssl=self.tls,
                ssl_handshake_timeout=None if self.tls is None else self._handshake_seconds,
            )
        except (OSError, asyncio.CancelledError) as error:  # An ssl.SSLError is an OSError.
            log.debug("gRPC connection not opened: %s", error)
        finally:
            self._opening.pop(wire, None)
