"""A fast reader for the messages that most requests have. Used only by ``event_reader``.

Protobuf creates an object for each header and copies a body twice. The router uses only a few of a
dozen headers, and it can search for them: in a list of headers, the sequence of a line feed, the
length of a name and the name can only be the start of that header, because names and values
must not contain line feeds (RFC 9110, section 5.5; Envoy refuses them). A length of 10 or of 1,280
to 1,407 bytes is encoded with a line feed too, so a value could begin with such a sequence. What
precedes the sequence shows the difference: a header begins with a line feed and its own length.

The fields beside the headers are almost always the same as in an earlier message, so the results of
parsing them are cached.

This reader relies on the encoding that Envoy produces: fields in the order of their numbers, names
in lower case, values in ``raw_value``, lists of headers below 16 KB. For any other message the
functions return ``None``, and protobuf reads the message.
"""

import re
from functools import lru_cache

from google.protobuf.message import DecodeError

from lora_router.extproc.answer_attributes import (
    SERVED_KEY,
    UNKNOWN,
    Attributes,
    read_attributes,
)
from lora_router.extproc.events import (
    Message,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
    make_request_headers,
    make_response_headers,
)
from lora_router.extproc.header_names import READ_RESPONSE_WANTED, RESPONSE_WANTED, HeaderNames
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.stream_setup import Setup, read_setup

REQUEST_HEADERS, RESPONSE_HEADERS, REQUEST_BODY, RESPONSE_BODY = 0x12, 0x1A, 0x22, 0x2A
"""The first byte of such a message: the tags of fields 2 to 5 of ``ProcessingRequest``."""
_FIRST_FIELD = 0x0A
"""The tag of field 1: ``HttpHeaders``: the list; a header: its name; ``HttpBody``: the bytes."""
_RAW_VALUE = 0x1A
"""The tag of field 3 of a header. Field 2 precedes it, if there is one."""
_CAPITAL = re.compile(rb"\n[\x01-\x7f][!-@\[-~]*[A-Z]")
"""The start of a header whose name contains a capital letter."""
_HEADERS_END_STREAM = b"\x18\x01"
_BODY_END_STREAM = b"\x10\x01"
_LAST_IS_EMPTY = b"\x22\x02\x10\x01"
"""The start of an empty last piece, with which Envoy often ends a body in full duplex mode."""
_LONGEST_HEADERS = 16 * 1024
"""Length in bytes from which protobuf reads a list of headers."""
_SMALL_HEADER = 8
"""Length in bytes of a header with a name and a value of one letter each. A list that is shorter
than the allowed number of such headers need not be counted."""
_LONGEST_REST = 512
"""Maximum length of the cached fields beside the headers of a request."""
_METADATA = 0x42
"""The tag of field 8 of ``ProcessingRequest``."""
_SERVED = SERVED_KEY.encode()
_LONGEST_ATTRIBUTES = 256
"""Maximum length of the cached attributes beside the headers of a response."""
_NONE = ProcessingMode.NONE


def _needles(names: tuple[str, ...]) -> tuple[tuple[bytes, int], ...]:
    """Return the first bytes of each header, and their number with the tag that follows them.

    Returns:
        Empty if a name is too long.
    """
    if max(map(len, names)) > 0x7F:
        return ()
    needles = [bytes((_FIRST_FIELD, len(name))) + name.encode() for name in names]
    return tuple((needle, len(needle) + 1) for needle in needles)


@lru_cache(maxsize=16)
def _request_needles(names: HeaderNames) -> tuple[tuple[bytes, int], ...]:
    return _needles(names.wanted)


_RESPONSE_NEEDLES = _needles(RESPONSE_WANTED)
_READ_RESPONSE_NEEDLES = _needles(READ_RESPONSE_WANTED)


def read_request_headers(data: Message, names: HeaderNames) -> RequestHeaders | None:
    """Return the event of a message that begins with ``REQUEST_HEADERS``; ``None``: unknown."""
    part = _first_field(data)
    if part is None:
        return None
    at, stop, end = part
    values = _values(data, at, stop, _request_needles(names))
    ends = data[stop:end]
    if not values or not values[0] or (ends and ends != _HEADERS_END_STREAM):
        return None
    # Envoy sends method, content type and request ID with almost every request. A gateway that does
    # not may write names in another way.
    if not (values[1] and values[4] and (values[2] or ends)) and _CAPITAL.search(data, at, stop):
        return None
    setup = _setup(data, end)
    if setup is None:
        return None
    most = names.gateway_max
    # The tags of a header and of its name are newlines. So there are twice as many, at least.
    too_many = (
        stop - at > _SMALL_HEADER * most
        and data.count(b"\n", at, stop) > most
        and names.are_too_many(_number(data, at, stop))
    )
    return make_request_headers(bool(ends), setup, values, too_many)


def read_request_body(data: Message) -> RequestBody | None:
    """Return the event of a message that begins with ``REQUEST_BODY``; ``None``: unknown.

    A ``bytearray`` is not copied. It is cut down to the body.
    """
    part = _first_field(data)
    if part is None:
        return _read_empty_last(data)
    at, stop, end = part
    ends = data[stop:end]
    if ends and ends != _BODY_END_STREAM:
        return None
    subset = None
    if end < len(data):
        setup = _setup(data, end)
        if setup is None:
            return None
        subset = setup.subset
    if isinstance(data, bytes):
        return RequestBody(data[at:stop], bool(ends), subset)
    del data[stop:]
    del data[:at]
    return RequestBody(data, bool(ends), subset)


def _read_empty_last(data: Message) -> RequestBody | None:
    """Return the event of a last piece without bytes; ``None``: the message is another one."""
    start = len(_LAST_IS_EMPTY)
    if not data.startswith(_LAST_IS_EMPTY):
        return None
    setup = _setup(data, start)
    return None if setup is None else RequestBody(b"", True, setup.subset)


def read_response_body(data: Message) -> ResponseBody | None:
    """Return the event of a message that begins with ``RESPONSE_BODY``; ``None``: unknown.

    A ``bytearray`` is cut down to the body, too.
    """
    part = _first_field(data)
    if part is None:
        return None
    at, stop, end = part
    ends = data[stop:end]
    # What follows may be the configuration of the stream.
    if end < len(data) or (ends and ends != _BODY_END_STREAM):
        return None
    if isinstance(data, bytes):
        return ResponseBody(data[at:stop], bool(ends))
    del data[stop:]
    del data[:at]
    return ResponseBody(data, bool(ends))


def read_response_headers(data: Message, names: HeaderNames) -> ResponseHeaders | None:
    """Return the event of a message that begins with ``RESPONSE_HEADERS``; ``None``: unknown."""
    part = _first_field(data)
    if part is None:
        return None
    at, stop, end = part
    needles = _READ_RESPONSE_NEEDLES if names.reads_answers else _RESPONSE_NEEDLES
    values = _values(data, at, stop, needles)
    ends = data[stop:end]
    if not values or not values[0] or (ends and ends != _HEADERS_END_STREAM):
        return None
    attributes = _attributes(data, end)
    if attributes is None:
        return None
    return make_response_headers(bool(ends), attributes, *values, response_body_mode=_NONE)


def _values(
    data: Message, start: int, stop: int, needles: tuple[tuple[bytes, int], ...]
) -> list[str] | None:
    """Return the values of headers, empty for absent headers; ``None``: the list is unusual.

    Args:
        data: A message.
        start: The start of its list of headers.
        stop: The end of the list.
        needles: What to search for.
    """
    if stop - start >= _LONGEST_HEADERS:
        return None
    values = []
    try:
        for needle, length in needles:
            at = data.find(needle, start, stop)
            if at < 0:
                values.append("")
                continue
            # The length of the header is before the name, and a line feed before that.
            byte = data[at - 2]
            if byte != _FIRST_FIELD and (byte < 0x80 or data[at - 3] != _FIRST_FIELD):
                return None
            at += length
            if data[at - 1] != _RAW_VALUE:
                return None
            size = data[at]
            at += 1
            if size > 0x7F:
                size, at = _size(data, at - 1)
            end = at + size
            if end > stop:
                return None
            values.append(data[at:end].decode(errors="replace"))
    except (IndexError, OverflowError):
        return None
    return values


def _number(data: Message, at: int, stop: int) -> int:
    """Return the number of headers in a list."""
    number = 0
    try:
        while at < stop:
            size = data[at + 1]
            at += 2
            if size > 0x7F:
                size, at = _size(data, at - 1)
            at += size
            number += 1
    except (IndexError, OverflowError):
        return 0
    return number


def _attributes(data: Message, at: int) -> Attributes | None:
    """Return what the fields after an offset state of an answer; ``None``: unknown fields."""
    total = len(data)
    if at == total:
        return UNKNOWN
    served = False
    if data[at] == _METADATA:
        try:
            size, start = _size(data, at + 1)
        except (IndexError, OverflowError):
            return None
        at = start + size
        served = data.find(_SERVED, start, at) >= 0
    if not 0 <= total - at <= _LONGEST_ATTRIBUTES:
        return None
    attributes = _read_attributes(bytes(data[at:]))
    # Metadata count only where the attributes do not name the endpoint.
    return None if served and attributes is not None and not attributes[1] else attributes


@lru_cache(maxsize=8192)
def _read_attributes(rest: bytes) -> Attributes | None:
    """Return what the fields after the metadata state.

    They are the same in many answers: the endpoint of one of the pods, a status, and details.
    """
    try:
        request = ProcessingRequest.FromString(rest)
    except DecodeError:
        return None
    if request.WhichOneof("request") is not None or request.observability_mode:
        return None
    if request.HasField("metadata_context") or request.HasField("protocol_config"):
        return None
    return read_attributes(request)


def _first_field(data: Message) -> tuple[int, int, int] | None:
    """Locate the first field inside the first field of a message.

    Returns:
        The start and the end of the inner field, and the end of the outer field. ``None``: the
        message has another form.
    """
    # Lengths of two bytes are read here, because almost all have two. ``_size`` reads any length.
    try:
        size, byte, at = data[1], data[2], 3
        if size < 0x80 or byte >= 0x80:
            size, at = _size(data, 1)
        else:
            size += (byte - 1) << 7
        end = at + size
        if data[at] != _FIRST_FIELD:
            return None
        size, byte = data[at + 1], data[at + 2]
        if size < 0x80 or byte >= 0x80:
            size, at = _size(data, at + 1)
        else:
            size += (byte - 1) << 7
            at += 3
    except (IndexError, OverflowError):
        return None
    stop = at + size
    return (at, stop, end) if stop <= end <= len(data) else None


def _size(data: Message, at: int) -> tuple[int, int]:
    """Return the length that is encoded at an offset, and the offset after it.

    Raises:
        IndexError: The data ends inside the length.
        OverflowError: The length has more than four bytes.
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


def _setup(data: Message, start: int) -> Setup | None:
    """Return the setup in the fields after an offset; ``None``: unknown fields, or too long."""
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
