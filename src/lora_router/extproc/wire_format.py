"""The two messages that every request brings, read from their bytes. For ``event_reader`` only.

Protobuf makes an object of each header and copies a body twice. Of a dozen headers a few matter,
and where a wanted one stands can be searched for: in a list of headers a line feed, the length of
a name, the name and 0x1A are nothing but the start of that header, because no name and no value
may have a line feed in it (RFC 9110, section 5.5; Envoy refuses it). What stands beside the headers
is nearly always what stood there the last time.

That holds for messages written as Envoy writes them: fields in the order of their numbers, values
in ``raw_value``, lists of headers below 16 KB. Of any other message these functions return
``None``, and protobuf reads it.
"""

from collections.abc import Sequence
from functools import lru_cache

from google.protobuf.message import DecodeError

from lora_router.extproc import events
from lora_router.extproc.events import Message, RequestBody, RequestHeaders
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.extproc.setup import Setup, read_setup

REQUEST_HEADERS, REQUEST_BODY = 0x12, 0x22
"""How a message about them begins: fields 2 and 4 of ``ProcessingRequest``."""
_FIRST_FIELD = 0x0A
"""Field 1: of ``HttpHeaders`` the list, of a header its name, of ``HttpBody`` the bytes."""
_RAW_VALUE = b"\x1a"
_HEADERS_END_STREAM = b"\x18\x01"
_BODY_END_STREAM = b"\x10\x01"
_SHORT, _LONG = (0, 7), (0, 7, 14, 21)
"""Lengths of two bytes (below 16 KB), and of four: for each byte, where its bits belong."""
_LONGEST_REST = 512
"""Of what stands beside the headers, to be remembered."""


def request_headers(data: Message, names: HeaderNames) -> RequestHeaders | None:
    """Read a message that begins with ``REQUEST_HEADERS``."""
    needles = _needles(names)
    part = _inner(data, _SHORT)
    if part is None or needles is None:
        return None
    at, stop, end = part
    headers = data[at:stop]
    try:
        values = [
            _value(found) if (found := headers.partition(needle)[2]) else "" for needle in needles
        ]
    except (IndexError, OverflowError):
        return None
    ends = data[stop:end]
    # Whoever writes values into another field has no path here either.
    if not values[0] or (ends and ends != _HEADERS_END_STREAM):
        return None
    setup = _setup(data, end)
    return None if setup is None else events.request_headers(bool(ends), setup, *values)


def request_body(data: Message) -> RequestBody | None:
    """Read a message that begins with ``REQUEST_BODY``.

    A ``bytearray`` is not copied but cut down to the piece.
    """
    part = _inner(data, _LONG)
    if part is None:
        return None
    at, stop, end = part
    ends = data[stop:end]
    if ends and ends != _BODY_END_STREAM:
        return None
    if end < len(data) and _setup(data, end) is None:
        return None
    if isinstance(data, bytes):
        return RequestBody(data[at:stop], bool(ends))
    del data[stop:]
    del data[:at]
    return RequestBody(data, bool(ends))


def _inner(data: Message, shifts: Sequence[int]) -> tuple[int, int, int] | None:
    """Find the first field of a message's first field.

    Args:
        data: The message.
        shifts: How long lengths may be.

    Returns:
        Where it begins and ends, and where the field around it ends.
    """
    try:
        size, at = _size(data, 1, shifts)
        end = at + size
        if data[at] != _FIRST_FIELD:
            return None
        size, at = _size(data, at + 1, shifts)
    except (IndexError, OverflowError):
        return None
    stop = at + size
    return (at, stop, end) if stop <= end <= len(data) else None


def _value(data: Message) -> str:
    """Return a header's value, whose length comes first.

    Raises:
        IndexError, OverflowError: It is not whole.
    """
    size, at = data[0], 1
    if size > 0x7F:
        size, at = _size(data, 0, _SHORT)
    if at + size > len(data):
        raise IndexError
    return data[at : at + size].decode(errors="replace")


def _size(data: Message, at: int, shifts: Sequence[int]) -> tuple[int, int]:
    """Read a length; return it, and where it ends.

    Raises:
        IndexError: The data ends.
        OverflowError: It is longer than ``shifts`` allow.
    """
    size = 0
    for shift in shifts:
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return size, at
    raise OverflowError


@lru_cache(maxsize=16)
def _needles(names: HeaderNames) -> tuple[bytes, ...] | None:
    """Return how the headers begin that matter."""
    wanted = names.wanted
    if max(map(len, wanted)) > 0x7F:
        return None
    return tuple(bytes((_FIRST_FIELD, len(name))) + name.encode() + _RAW_VALUE for name in wanted)


def _setup(data: Message, start: int) -> Setup | None:
    """Read what stands beside; ``None``: more than the setup, or more than is remembered."""
    return None if len(data) - start > _LONGEST_REST else _read_setup(bytes(data[start:]))


@lru_cache(maxsize=256)
def _read_setup(rest: bytes) -> Setup | None:
    try:
        request = ProcessingRequest.FromString(rest)
    except DecodeError:
        return None
    if request.WhichOneof("request") is not None or request.observability_mode:
        return None
    return read_setup(request)
