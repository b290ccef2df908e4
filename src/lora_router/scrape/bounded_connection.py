"""Connections that bound what a response may cost beside its body.

A body is bounded by its reader. A server can make other parts of a response expensive: a million
chunks of one byte, informational responses without end, long chunk extensions. aiohttp parses all
that has arrived in one go, so these are counted before aiohttp sees them.
"""

import asyncio
import socket
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

MAX_LINE_ENDS = 8192
"""Line ends (CR LF) in a response. A chunk has two."""
MAX_LINE_ENDS_AT_ONCE = 1024
"""Line ends in what is parsed in one go."""
MAX_BLANK_LINES = 64
"""Blank lines in a response. An informational response has one."""
RECEIVE_BUFFER_BYTES = 32 * 1024
"""The kernel's buffer of a connection, and so what is parsed in one go."""


class WastefulResponseError(aiohttp.ClientError):
    """The response consists of too many parts."""


class BoundedHandler(ResponseHandler):
    """The protocol of one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._line_ends = 0
        self._blank_lines = 0
        self._refused = False
        self.received = 0
        """Bytes of the current response, with everything that is not its body."""

    def set_response_params(self, **params: Any) -> None:
        """Begin a response."""
        self._line_ends = self._blank_lines = self.received = 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Parse the data, unless the response has too many parts."""
        if self._refused:
            return
        self.received += len(data)
        line_ends = data.count(b"\r\n")
        self._line_ends += line_ends
        self._blank_lines += data.count(b"\r\n\r\n")
        if (
            line_ends > MAX_LINE_ENDS_AT_ONCE
            or self._line_ends > MAX_LINE_ENDS
            or self._blank_lines > MAX_BLANK_LINES
        ):
            self._refuse()
            return
        super().data_received(data)

    def _refuse(self) -> None:
        self._refused = True
        error = WastefulResponseError("the response consists of too many parts")
        if self._payload is not None:
            self._payload.set_exception(error)
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()


class BoundedConnector(aiohttp.TCPConnector):
    """Opens such connections."""

    def __init__(self, **options: Any) -> None:
        super().__init__(socket_factory=_socket, **options)
        self._factory = partial(BoundedHandler, loop=self._loop)  # type: ignore[assignment]


def _socket(address: Any) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES // 2)
    return made
