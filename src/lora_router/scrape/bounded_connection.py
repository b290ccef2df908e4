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
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader

MAX_LINE_ENDS = 8192
"""Line ends (CR LF) in a response. A chunk has two."""
MAX_LINE_ENDS_AT_ONCE = 1024
"""Line ends in what is parsed in one go."""
MAX_INFORMATIONAL = 4
"""Informational responses (status 1xx) before the response."""
_HEAD_BYTES = 4096
"""The part of what arrives before the response in which status lines are counted."""
RECEIVE_BUFFER_BYTES = 128 * 1024
"""The kernel's buffer of a connection, and so about what is parsed in one go."""


class WastefulResponseError(aiohttp.ClientError):
    """The response consists of too many parts."""


class BoundedHandler(ResponseHandler):
    """The protocol of one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._line_ends = 0
        self._informational = 0
        self._has_begun = False
        self._refused = False
        self.received = 0
        """Bytes of the current response, with everything that is not its body."""

    def set_response_params(self, **params: Any) -> None:
        """Begin a response."""
        self._line_ends = self._informational = self.received = 0
        self._has_begun = False
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Parse the data, unless the response has too many parts."""
        if self._refused:
            return
        self.received += len(data)
        if not self._is_allowed(data):
            self._refuse()
            return
        super().data_received(data)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Note a response, or an informational one before it."""
        if data[0].code >= 200:
            self._has_begun = True
        else:
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                self._refuse()
        if not self._refused:
            super().feed_data(data, size)

    def _is_allowed(self, data: bytes) -> bool:
        """Count the parts of a response until they are too many."""
        if not self._has_begun and data.count(b"HTTP/1.", 0, _HEAD_BYTES) > MAX_INFORMATIONAL + 1:
            return False
        # Most pages contain none, and `find` is ten times faster than `count` then.
        before = self._line_ends
        position = data.find(b"\r")
        while position >= 0:
            self._line_ends += 1
            if self._line_ends - before > MAX_LINE_ENDS_AT_ONCE or self._line_ends > MAX_LINE_ENDS:
                return False
            position = data.find(b"\r", position + 1)
        return True

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
