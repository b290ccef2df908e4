"""A client of a router's gRPC port that behaves as no gateway does, within HTTP/2's rules."""

import asyncio
import struct
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Self, cast

from bench.ext_proc_client import header_block

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_INITIAL_WINDOW_SIZE = 4
_DEFAULT_WINDOW = 65_535
_WIDE = 2**30
_FRAME_HEAD, _LARGEST_FRAME = 9, 16_384
_CANCEL = struct.pack(">I", 8)
_AT_ONCE = 500
"""Streams whose frames are written in one piece."""
_PATIENCE_SECONDS = 1.0
"""How long to wait for room in a window."""


class Flood(asyncio.Protocol):
    """One connection. The router may close it at any time."""

    def __init__(self) -> None:
        self.closed = False
        self._read = b""
        self._next = 1
        self._window = _DEFAULT_WINDOW
        self._first_window = _DEFAULT_WINDOW
        self._windows: defaultdict[int, int] = defaultdict(int)
        """By stream: what was added to the first window, minus what was sent."""
        self._ends: dict[int, asyncio.Future[int]] = {}
        self._answered: defaultdict[int, int] = defaultdict(int)
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def connected(cls, port: int) -> Self:
        """Connect to the router on this port."""
        _, flood = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return flood

    async def reset_streams(self, count: int, *, by_the_server: bool) -> int:
        """Open streams and have them reset at once; return how many until it was closed."""
        opened = 0
        while opened < count and not self.closed:
            streams = min(_AT_ONCE, count - opened)
            data = _resets(self._next, streams, by_the_server=by_the_server)
            self._next += 2 * streams
            opened += streams
            await self._write(data)
        return opened

    async def send_unfinished(self, message: int, total: int) -> int:
        """Send messages without their last byte, each on a stream of its own; return the bytes.

        Stops when the windows stay shut for a second, or when the connection is closed.
        """
        sent = 0
        while sent < total:
            stream, self._next = self._next, self._next + 2
            await self._write(_frame(_HEADERS, _END_HEADERS, stream, header_block()))
            left = message - 1
            piece = struct.pack(">BI", 0, message)
            while left:
                room = min(self._window, self._first_window + self._windows[stream])
                if self.closed or (room < _LARGEST_FRAME and not await self._wider()):
                    return sent
                if room < _LARGEST_FRAME:
                    continue
                size = min(_LARGEST_FRAME - len(piece), left)
                piece += b"\n" * size
                self._window -= len(piece)
                self._windows[stream] -= len(piece)
                await self._write(_frame(_DATA, 0, stream, piece))
                sent, left, piece = sent + len(piece), left - size, b""
        return sent

    async def ask(self, messages: Iterable[bytes]) -> int:
        """Send all messages of a request on one stream; return the bytes of the answer."""
        stream, self._next = self._next, self._next + 2
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._ends[stream] = ended
        data = b"".join(struct.pack(">BI", 0, len(message)) + message for message in messages)
        await self._write(
            _frame(_HEADERS, _END_HEADERS, stream, header_block())
            + _frame(_DATA, _END_STREAM, stream, data)
        )
        async with asyncio.timeout(60):
            return await ended

    def close(self) -> None:
        """Close the connection."""
        self._transport.abort()

    async def _write(self, data: bytes) -> None:
        self._transport.write(data)
        # A turn of the loop, so that what the server says is read.
        await asyncio.sleep(0)
        await self._writable.wait()

    async def _wider(self) -> bool:
        self._changed.clear()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WIDE))
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember it."""
        self.closed = True
        self._changed.set()
        self._writable.set()

    def pause_writing(self) -> None:
        """Wait until the server has read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Continue."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Process complete frames."""
        data = self._read + data
        at = 0
        while len(data) - at >= _FRAME_HEAD:
            end = at + _FRAME_HEAD + int.from_bytes(data[at : at + 3])
            if len(data) < end:
                break
            stream = int.from_bytes(data[at + 5 : at + 9]) & 0x7FFFFFFF
            self._take(data[at + 3], data[at + 4], stream, data[at + _FRAME_HEAD : end])
            at = end
        self._read = data[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW_UPDATE and stream:
            self._windows[stream] += int.from_bytes(payload)
        elif kind == _WINDOW_UPDATE:
            self._window += int.from_bytes(payload)
        elif kind == _SETTINGS and not flags & _ACK:
            for key, value in struct.iter_unpack(">HI", payload):
                if key == _INITIAL_WINDOW_SIZE:
                    self._first_window = value
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _DATA:
            self._answered[stream] += len(payload)
        if kind == _RST_STREAM or (kind in {_DATA, _HEADERS} and flags & _END_STREAM):
            answered, ends = self._answered.pop(stream, 0), self._ends.pop(stream, None)
            if ends is not None and not ends.done():
                ends.set_result(answered)
        self._changed.set()


@cache
def _resets(first: int, streams: int, *, by_the_server: bool) -> bytes:
    """Return frames that open streams and have them reset.

    They are the same for all connections, and made once: other requests of the same test come from
    the same process, and would wait for it.
    """
    # An increment of 0 is an error of the stream, and the server has to reset it.
    kind, payload = (_WINDOW_UPDATE, b"\0\0\0\0") if by_the_server else (_RST_STREAM, _CANCEL)
    block = header_block()
    return b"".join(
        _frame(_HEADERS, _END_HEADERS, stream, block) + _frame(kind, 0, stream, payload)
        for stream in range(first, first + 2 * streams, 2)
    )


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
