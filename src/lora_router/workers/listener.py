"""The socket that gateways connect to. It belongs to the parent, which hands connections on."""

import asyncio
import logging
import socket
from contextlib import suppress
from typing import Protocol

from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.workers")

_AT_ONCE = 64
"""Connections accepted in one iteration of the event loop."""
_RETRY_SECONDS = 0.1
"""Pause while no worker takes connections, or when ``accept`` failed."""


class Takers(Protocol):
    """Those that connections are handed to (``crew.Crew``)."""

    @property
    def takes_connections(self) -> bool:
        """Whether one of them could get a connection now."""

    def place(self, accepted: socket.socket) -> bool:
        """Hand a connection on; return whether one of them took it."""


class Listener:
    """Accepts connections for the workers."""

    def __init__(self, crew: Takers) -> None:
        self._crew = crew
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._limit = LogLimit()
        self.refused = 0
        """Connections that were closed because no worker took them."""

    def start(self, listening: socket.socket) -> None:
        """Accept from a socket, which ``close`` closes. It must not block."""
        self._socket = listening
        self._resume()

    def close(self) -> None:
        """Stop listening."""
        if self._retry is not None:
            self._retry.cancel()
        listening, self._socket = self._socket, None
        if listening is not None:
            self._loop.remove_reader(listening.fileno())
            listening.close()

    def _resume(self) -> None:
        self._retry = None
        if self._socket is not None:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def _pause(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._retry = self._loop.call_later(_RETRY_SECONDS, self._resume)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if self._socket is None:
                return
            if not self._crew.takes_connections:
                # They wait in the queue of the kernel.
                self._pause()
                return
            try:
                accepted, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._limit.log(
                    log, logging.ERROR, "accept", "cannot accept gRPC connections: %s", error
                )
                self._pause()
                return
            self._hand(accepted)

    def _hand(self, accepted: socket.socket) -> None:
        with accepted, suppress(OSError):
            if not self._crew.place(accepted):
                self.refused += 1
                self._limit.log(
                    log, logging.WARNING, "refused", "gRPC connection refused: no worker took it"
                )
