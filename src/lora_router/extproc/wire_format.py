"""The two messages that every request brings, read from their bytes.

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

from lora_router.extproc.messages import HeaderNames, RequestHead, Setup, make_head, read_setup
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest

Message = bytes | bytearray

_REQUEST_HEADERS, _REQUEST_BODY = 0x12, 0x22
"""Fields 2 and 4 of ``ProcessingRequest``."""
_FIRST_FIELD = 0x0A
"""Field 1: of ``HttpHeaders`` the list, of a header its name, of ``HttpBody`` the bytes."""
_RAW_VALUE = b"\x1a"
_HEADERS_END_STREAM = b"\x18\x01"
_BODY_END_STREAM = b"\x10\x01"
_LONGEST_REST = 512
"""Of what stands beside the headers, to be remembered."""


def first_message(data: Message, names: HeaderNames) -> tuple[RequestHead, bool, Setup] | None:
    """Read a message of request headers: what of them matters, ``end_of_stream``, and the setup."""
    needles = _needles(names)
    try:
        if data[0] != _REQUEST_HEADERS or needles is None:
            return None
        size, at = _size(data, 1)
        end = at + size
        if data[at] != _FIRST_FIELD:
            return None
        size, at = _size(data, at + 1)
        stop = at + size
        ends = stop != end
        if end > len(data) or (ends and data[stop:end] != _HEADERS_END_STREAM):
            return None
        headers = data[at:stop]
        path, content_type, length, request_id, strategy, pod_filter = [
            _value(found) if (found := headers.partition(needle)[2]) else "" for needle in needles
        ]
    except (IndexError, OverflowError):
        return None
    # Whoever writes values into another field has no path here either.
    if not path or len(data) - end > _LONGEST_REST:
        return None
    setup = _setup(bytes(data[end:]))
    if setup is None:
        return None
    return make_head(path, content_type, length, request_id, strategy, pod_filter), ends, setup


def body_message(data: Message) -> tuple[Message, bool] | None:
    """Read a message of the request's body: the piece, and ``end_of_stream``.

    A ``bytearray`` is not copied but cut down to the piece.
    """
    try:
        if data[0] != _REQUEST_BODY:
            return None
        size, at = _long_size(data, 1)
        end = at + size
        if data[at] != _FIRST_FIELD:
            return None
        size, at = _long_size(data, at + 1)
        stop = at + size
    except (IndexError, OverflowError):
        return None
    rest = data[stop:end]
    if end > len(data) or (rest and rest != _BODY_END_STREAM):
        return None
    if end < len(data):
        beside = len(data) - end
        if beside > _LONGEST_REST or _says_more(bytes(data[end:])):
            return None
    if isinstance(data, bytes):
        return data[at:stop], bool(rest)
    del data[stop:]
    del data[:at]
    return data, bool(rest)


def _value(data: Message) -> str:
    """Return a header's value, whose length comes first.

    Raises:
        IndexError, OverflowError: It is not whole.
    """
    size, at = data[0], 1
    if size > 0x7F:
        size, at = _size(data, 0)
    if at + size > len(data):
        raise IndexError
    return data[at : at + size].decode(errors="replace")


def _size(data: Message, at: int) -> tuple[int, int]:
    """Read a length of at most two bytes; return it, and where it ends.

    Raises:
        IndexError: The data ends.
        OverflowError: It is longer.
    """
    low = data[at]
    if low < 0x80:
        return low, at + 1
    high = data[at + 1]
    if high > 0x7F:
        raise OverflowError
    return low & 0x7F | high << 7, at + 2


def _long_size(data: Message, at: int) -> tuple[int, int]:
    """Read a length of up to four bytes, likewise."""
    size = 0
    for shift in (0, 7, 14, 21):
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return size, at
    raise OverflowError


@lru_cache(maxsize=16)
def _needles(names: HeaderNames) -> tuple[bytes, ...] | None:
    """Return how the headers begin that matter."""
    wanted = (
        ":path",
        "content-type",
        "content-length",
        names.request_id,
        names.strategy,
        names.pod_filter,
    )
    if max(map(len, wanted)) > 0x7F:
        return None
    return tuple(bytes((_FIRST_FIELD, len(name))) + name.encode() + _RAW_VALUE for name in wanted)


@lru_cache(maxsize=256)
def _setup(rest: bytes) -> Setup | None:
    """Read what follows the headers; ``None``: it is not only the setup."""
    request = _parsed(rest)
    return None if request is None else read_setup(request)


@lru_cache(maxsize=256)
def _says_more(rest: bytes) -> bool:
    """Say whether what follows a body matters."""
    request = _parsed(rest)
    return request is None or request.observability_mode


def _parsed(rest: bytes) -> ProcessingRequest | None:
    try:
        request = ProcessingRequest.FromString(rest)
    except DecodeError:
        return None
    return None if request.WhichOneof("request") is not None else request
