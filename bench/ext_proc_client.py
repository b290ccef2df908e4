"""A minimal ext_proc client: Envoy's side of the protocol, without Envoy.

It implements as much of HTTP/2 and gRPC as is needed to open ten thousand streams on one connection
and to time an answer. Every header is sent as a literal. The client obeys the server's flow control
windows and opens its own ones wide.
"""

import asyncio
import struct
from typing import Self, cast

_METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_INITIAL_WINDOW_SIZE = 4
_FRAME_HEAD = 9
_LARGEST_FRAME = 16_384
_WIDE = 2**30
_DEFAULT_WINDOW = 65_535


class ClientError(RuntimeError):
    """The server did not behave as expected. The message says what it sent."""


class _Stream:
    """One stream."""

    __slots__ = ("answers", "buffer", "waits", "window")

    def __init__(self, window: int) -> None:
        self.answers = 0
        """Complete messages received."""
        self.buffer = b""
        self.waits: asyncio.Future[None] | None = None
        self.window = window
        """Bytes that may be sent."""


class ExtProcClient(asyncio.Protocol):
    """One connection to the router."""

    def __init__(self) -> None:
        self._buffer = b""
        self._streams: dict[int, _Stream] = {}
        self._next = 1
        self._window = _DEFAULT_WINDOW
        self._stream_window = _DEFAULT_WINDOW
        self._more: asyncio.Event = asyncio.Event()
        self._error: ClientError | None = None
        self._header_block = header_block()

    @classmethod
    async def connected(cls, port: int) -> Self:
        """Connect to the router on this port."""
        _, client = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return client

    async def open(self) -> int:
        """Open a stream; return its number."""
        number, self._next = self._next, self._next + 2
        self._streams[number] = _Stream(self._stream_window)
        self._transport.write(_frame(_HEADERS, _END_HEADERS, number, self._header_block))
        return number

    async def ask(self, number: int, message: bytes) -> None:
        """Send a message and wait until it is answered.

        Raises:
            ClientError: The stream or the connection ends instead.
        """
        stream = self._streams[number]
        waits = stream.waits = asyncio.get_running_loop().create_future()
        data = struct.pack(">BI", 0, len(message)) + message
        while data:
            room = min(self._window, stream.window, _LARGEST_FRAME)
            if room <= 0:
                self._more.clear()
                await self._more.wait()
                continue
            piece, data = data[:room], data[room:]
            self._window -= len(piece)
            stream.window -= len(piece)
            self._transport.write(_frame(_DATA, 0, number, piece))
        if self._error is not None:
            raise self._error
        await waits

    def finish(self, number: int) -> None:
        """Half-close a stream, as Envoy does after the last byte of an answer."""
        self._transport.write(_frame(_DATA, _END_STREAM, number, b""))
        del self._streams[number]

    def close(self) -> None:
        """Close the connection and its streams."""
        self._transport.close()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, _WIDE))
            + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WIDE))
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail all waiting calls."""
        self._fail(f"the connection was closed: {exc or 'by the server'}")

    def data_received(self, data: bytes) -> None:
        """Process complete frames."""
        data = self._buffer + data
        at = 0
        while len(data) - at >= _FRAME_HEAD:
            length = int.from_bytes(data[at : at + 3])
            end = at + _FRAME_HEAD + length
            if len(data) < end:
                break
            number = int.from_bytes(data[at + 5 : at + 9]) & 0x7FFFFFFF
            self._take(data[at + 3], data[at + 4], number, data[at + _FRAME_HEAD : end])
            at = end
        self._buffer = data[at:]

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == _DATA:
            self._answered(number, payload)
        elif kind == _WINDOW_UPDATE:
            self._widen(number, int.from_bytes(payload))
        elif kind == _SETTINGS and not flags & _ACK:
            for key, value in struct.iter_unpack(">HI", payload):
                if key == _INITIAL_WINDOW_SIZE:
                    self._stream_window = value
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            self._fail(f"the server sent GOAWAY: {payload!r}")
        elif number in self._streams and (
            kind == _RST_STREAM or (kind == _HEADERS and flags & _END_STREAM)
        ):
            self._fail(f"the server ended stream {number}: {payload!r}")

    def _answered(self, number: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        data = stream.buffer + payload
        while len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[1:5]):
            data = data[5 + int.from_bytes(data[1:5]) :]
            stream.answers += 1
            if stream.waits is not None and not stream.waits.done():
                stream.waits.set_result(None)
        stream.buffer = data

    def _widen(self, number: int, by: int) -> None:
        if number == 0:
            self._window += by
        elif number in self._streams:
            self._streams[number].window += by
        self._more.set()

    def _fail(self, why: str) -> None:
        self._error = self._error or ClientError(why)
        self._more.set()
        for stream in self._streams.values():
            if stream.waits is not None and not stream.waits.done():
                stream.waits.set_exception(self._error)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block() -> bytes:
    """Encode the request's headers with HPACK, as literals without indexing (RFC 7541, 6.2.2)."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": _METHOD,
        ":authority": "bench",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        b"\0" + bytes((len(key),)) + key.encode() + bytes((len(value),)) + value.encode()
        for key, value in headers.items()
    )
