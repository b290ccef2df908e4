"""HTTP/2 frames: from bytes and to bytes (RFC 9113, sections 4 and 6)."""

import struct
from collections.abc import Iterator
from typing import TypeAlias

from lora_router.grpc_server.violations import ErrorCode, PeerError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

DEFAULT_WINDOW = 65535
MAX_WINDOW = 2**31 - 1
SMALLEST_MAX_FRAME = 16384
LARGEST_MAX_FRAME = 2**24 - 1

_VIEWED_BYTES = 4096
"""Payloads of this size or more are views of the input. Below it, a copy costs less than a view."""

Payload: TypeAlias = bytes | memoryview
Frame: TypeAlias = tuple[int, int, int, Payload]
"""Type, flags, stream, payload."""

# A frame begins with 24 bits of length and 8 bits of type, which form one 32-bit word here.
_header = struct.Struct(">IBI")
_HEADER_BYTES = 9
_settings = struct.Struct(">HI")
_numbers = struct.Struct(">II")
number = struct.Struct(">I")


class FrameReader:
    """Cuts input into frames, and holds the start of an incomplete frame."""

    __slots__ = ("_preface", "_rest")

    def __init__(self) -> None:
        self._preface: bytearray | None = bytearray()
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Add bytes; yield the frames that they complete.

        Raises:
            PeerError: The input is not HTTP/2, or a frame is longer than this server allows.
        """
        if self._preface is not None:
            data = self._read_preface(self._preface, data)
        at = 0
        if self._rest:
            at = self._complete_rest(data)
            if at < 0:
                return
            frame = bytes(self._rest)
            self._rest = bytearray()
            word, flags, stream = _header.unpack_from(frame)
            yield word & 0xFF, flags, stream & MAX_WINDOW, frame[_HEADER_BYTES:]
        size = len(data)
        view = None
        while size - at >= _HEADER_BYTES:
            word, flags, stream = _header.unpack_from(data, at)
            length = word >> 8
            start = at + _HEADER_BYTES
            at = start + length
            if at > size or length > SMALLEST_MAX_FRAME:
                _check_length(length)
                at = start - _HEADER_BYTES
                break
            if length < _VIEWED_BYTES:
                yield word & 0xFF, flags, stream & MAX_WINDOW, data[start:at]
            else:
                if view is None:
                    view = memoryview(data)
                yield word & 0xFF, flags, stream & MAX_WINDOW, view[start:at]
        if at < size:
            self._rest += data[at:] if at else data

    def _read_preface(self, preface: bytearray, data: bytes) -> bytes:
        """Read the client's connection preface; return the bytes after it."""
        missing = len(PREFACE) - len(preface)
        preface += data[:missing]
        if not PREFACE.startswith(preface):
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "not HTTP/2: no connection preface")
        if len(preface) == len(PREFACE):
            self._preface = None
        return data[missing:]

    def _complete_rest(self, data: bytes) -> int:
        """Complete the held frame; return the bytes used, or -1 if it is still incomplete."""
        rest = self._rest
        at = 0
        if len(rest) < _HEADER_BYTES:
            at = _HEADER_BYTES - len(rest)
            rest += data[:at]
            if len(rest) < _HEADER_BYTES:
                return -1
        length = _header.unpack_from(rest)[0] >> 8
        _check_length(length)
        end = at + _HEADER_BYTES + length - len(rest)
        rest += data[at:end]
        return end if len(rest) == _HEADER_BYTES + length else -1


def _check_length(length: int) -> None:
    if length > SMALLEST_MAX_FRAME:
        raise PeerError(
            ErrorCode.FRAME_SIZE_ERROR,
            f"a frame has {length} bytes; the limit is {SMALLEST_MAX_FRAME}",
        )


def unpadded(flags: int, payload: Payload) -> Payload:
    """Return a DATA or HEADERS payload without its padding.

    Raises:
        PeerError: The padding is as long as the payload or longer.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise PeerError(ErrorCode.PROTOCOL_ERROR, "padding is as long as its frame")
    return payload[1 : len(payload) - payload[0]]


def read_settings(payload: Payload) -> list[tuple[int, int]]:
    """Return the settings of a SETTINGS payload, in order.

    Raises:
        PeerError: The payload is not a list of settings.
    """
    if len(payload) % _settings.size:
        raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS has a wrong length")
    return list(_settings.iter_unpack(payload))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame of any type."""
    return _header.pack(len(payload) << 8 | kind, flags, stream) + payload


def frame_head(kind: int, flags: int, stream: int, length: int) -> bytes:
    """Return the header of a frame, which precedes its payload."""
    return _header.pack(length << 8 | kind, flags, stream)


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join(_settings.pack(key, value) for key, value in values.items())
    return frame(SETTINGS, 0, 0, payload)


def rst_stream(stream: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, number.pack(code))


def goaway(last_stream: int, code: int, message: str = "") -> bytes:
    """Return a GOAWAY frame."""
    return frame(GOAWAY, 0, 0, _numbers.pack(last_stream, code) + message.encode())


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame. Stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, number.pack(increment))


SETTINGS_ACK = frame(SETTINGS, ACK, 0)
