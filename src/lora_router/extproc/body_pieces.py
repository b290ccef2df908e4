"""The messages that send a body back to Envoy in FULL_DUPLEX_STREAMED mode.

In this mode Envoy forwards what the router sends, in as many messages as the router likes. The
bytes of a body are not copied: a message is what precedes them, and a view of them. ``body`` is the
last field of each message, although its number is lower than that of ``end_of_stream``. Protobuf
reads fields in any order.
"""

from functools import lru_cache

from lora_router.extproc.events import Message
from lora_router.extproc.outputs import BodyPiece, Output

LONGEST = 60 * 1024
"""Bytes of a body in one message. Some gateways refuse more than 64 KB in one."""
_COPIED = 4096
"""Bytes below which a copy costs less than a view."""

_REQUEST_BODY, _RESPONSE_BODY = b"\x1a", b"\x22"
# The tags of BodyResponse; CommonResponse; BodyMutation; StreamedBodyResponse.
_RESPONSE, _BODY_MUTATION, _STREAMED_RESPONSE = b"\x0a", b"\x1a", b"\x1a"
_BODY, _END_OF_STREAM = b"\x0a", b"\x10\x01"


def request_pieces(body: Message, *, ends: bool) -> list[Output]:
    """Return the messages that forward a part of a request body.

    Args:
        body: The bytes. They must not change until they are sent.
        ends: Whether the request ends with them.
    """
    return _pieces(_REQUEST_BODY, body, ends)


def response_pieces(body: Message, *, ends: bool) -> list[Output]:
    """Return the messages that forward a part of a response body, likewise."""
    return _pieces(_RESPONSE_BODY, body, ends)


def request_piece(body: Message, *, ends: bool) -> bytes:
    """Return the one message that forwards a piece, for a gateway that may expect only one."""
    return _head(_REQUEST_BODY, len(body), ends) + body


def response_piece(body: Message, *, ends: bool) -> bytes:
    """Return the one message that forwards a piece of a response body, likewise."""
    return _head(_RESPONSE_BODY, len(body), ends) + body


def _pieces(kind: bytes, body: Message, ends: bool) -> list[Output]:
    size = len(body)
    if size < _COPIED:
        return [_head(kind, size, ends) + body]
    view = memoryview(body)
    pieces: list[Output] = []
    for start in range(0, size, LONGEST):
        part = view[start : start + LONGEST]
        last = start + LONGEST >= size
        pieces.append(BodyPiece(_head(kind, len(part), ends and last), part))
    return pieces


@lru_cache(maxsize=8192)
def _head(kind: bytes, size: int, ends: bool) -> bytes:
    """Return what precedes so many bytes of a body."""
    made = (_END_OF_STREAM if ends else b"") + _BODY + _length(size)
    for tag in (_STREAMED_RESPONSE, _BODY_MUTATION, _RESPONSE, kind):
        made = tag + _length(len(made) + size) + made
    return made


def _length(size: int) -> bytes:
    encoded = bytearray()
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded)
