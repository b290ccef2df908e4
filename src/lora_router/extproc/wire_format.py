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

from functools import lru_cache

from google.protobuf.message import DecodeError

from lora_router.extproc.events import (
    Message,
    RequestBody,
    RequestHeaders,
    make_request_headers,
)
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.extproc.stream_setup import Setup, read_setup

REQUEST_HEADERS, REQUEST_BODY = 0x12, 0x22
"""How a message about them begins: fields 2 and 4 of ``ProcessingRequest``."""
_FIRST_FIELD = 0x0A
"""Field 1: of ``HttpHeaders`` the list, of a header its name, of ``HttpBody`` the bytes."""
_RAW_VALUE = b"\x1a"
_HEADERS_END_STREAM = b"\x18\x01"
_BODY_END_STREAM = b"\x10\x01"
_LONGEST_HEADERS = 16 * 1024
"""Of lists of headers in bytes; protobuf reads longer ones."""
_LONGEST_REST = 512
"""Of what stands beside the headers, to be remembered."""


def read_request_headers(data: Message, names: HeaderNames) -> RequestHeaders | None:
    """Read a message that begins with ``REQUEST_HEADERS``."""
    part = _first_field(data)
    if part is None:
        return None
    at, stop, end = part
    if stop - at >= _LONGEST_HEADERS:
        return None
    headers = data[at:stop]
    values = []
    try:
        for needle, length in _needles(names):
            at = headers.find(needle)
            if at < 0:
                values.append("")
                continue
            at += length
            size = headers[at]
            at += 1
            if size > 0x7F:
                size, at = _size(headers, at - 1)
            value = headers[at : at + size]
            if len(value) != size:
                return None
            values.append(value.decode(errors="replace"))
    except (IndexError, OverflowError):
        return None
    ends = data[stop:end]
    # A message that has values in another field has no path here either.
    if not values or not values[0] or (ends and ends != _HEADERS_END_STREAM):
        return None
    setup = _setup(data, end)
    return None if setup is None else make_request_headers(bool(ends), setup, *values)


def read_request_body(data: Message) -> RequestBody | None:
    """Read a message that begins with ``REQUEST_BODY``.

    A ``bytearray`` is not copied but cut down to the piece.
    """
    part = _first_field(data)
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


def _first_field(data: Message) -> tuple[int, int, int] | None:
    """Find the first field of a message's first field.

    Returns:
        Where it begins and ends, and where the field around it ends.
    """
    try:
        size, at = _size(data, 1)
        end = at + size
        if data[at] != _FIRST_FIELD:
            return None
        size, at = _size(data, at + 1)
    except (IndexError, OverflowError):
        return None
    stop = at + size
    return (at, stop, end) if stop <= end <= len(data) else None


def _size(data: Message, at: int) -> tuple[int, int]:
    """Read a length; return it, and where it ends.

    Raises:
        IndexError: The data ends.
        OverflowError: It is of more than four bytes.
    """
    size = data[at]
    if size < 0x80:
        return size, at + 1
    byte = data[at + 1]
    size += (byte - 1) << 7
    if byte < 0x80:
        return size, at + 2
    byte = data[at + 2]
    size += (byte - 1) << 14
    if byte < 0x80:
        return size, at + 3
    byte = data[at + 3]
    if byte < 0x80:
        return size + ((byte - 1) << 21), at + 4
    raise OverflowError


@lru_cache(maxsize=16)
def _needles(names: HeaderNames) -> tuple[tuple[bytes, int], ...]:
    """Return how the headers begin that matter, and how long that is; none if one is too long."""
    if max(map(len, names.wanted)) > 0x7F:
        return ()
    needles = [
        bytes((_FIRST_FIELD, len(name))) + name.encode() + _RAW_VALUE for name in names.wanted
    ]
    return tuple((needle, len(needle)) for needle in needles)


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
