"""The headers that the router adds to responses to clients, as bytes.

They are merged into the answer to ``response_headers``, or into the router's own answer: Protobuf
merges the fields of messages that follow each other.
"""

from functools import lru_cache

from lora_router.extproc.message_fields import (
    OVERWRITE,
    before_value,
    field,
    field_head,
    set_header,
)
from lora_router.telemetry.decisions import Decision

REQUEST_ID = "x-request-id"
POD, REASON, HELD_MS = "x-lora-router-pod", "x-lora-router-reason", "x-lora-router-held-ms"

_LONGEST_ID = 128
"""In characters. A longer ID would take the room of other headers, and its client knows it."""

# The tags of ProcessingResponse; HeadersResponse; CommonResponse; ImmediateResponse.
_RESPONSE_HEADERS, _IMMEDIATE_RESPONSE = b"\x12", b"\x3a"
_RESPONSE = b"\x0a"
_HEADER_MUTATION, _HEADERS = b"\x12", b"\x12"


def tell_request_id(request_id: str) -> bytes:
    """Return the part of an answer to ``response_headers`` that tells the ID of the request.

    Empty if there is none, or if it does not belong into a header.
    """
    if not is_told(request_id):
        return b""
    return _before_id(len(request_id)) + request_id.encode() + OVERWRITE


def tell_decision(decision: Decision) -> bytes:
    """Return the part of an answer to ``response_headers`` that tells what was decided."""
    told = _told_place(decision.retried_on or decision.pod, decision.reason)
    held_seconds = decision.held_seconds
    return told + (_told_held(round(held_seconds * 1000)) if held_seconds else _NOT_HELD)


def in_own_answer(request_id: str, decision: Decision | None) -> bytes:
    """Return the part of an answer of the router itself that tells the client the same.

    Args:
        request_id: The ID of the request.
        decision: The record, if the client is told of it.
    """
    headers = b""
    if is_told(request_id):
        headers += set_header(REQUEST_ID, request_id.encode())
    if decision is not None:
        headers += set_header(REASON, _value(decision.reason))
        headers += set_header(HELD_MS, b"%d" % round(decision.held_seconds * 1000))
    return field(_IMMEDIATE_RESPONSE, field(_HEADERS, headers)) if headers else b""


def is_told(request_id: str) -> bool:
    """Return whether a client is told the ID of its request."""
    return 0 < len(request_id) <= _LONGEST_ID and request_id.isascii() and request_id.isprintable()


@lru_cache(maxsize=_LONGEST_ID)
def _before_id(size: int) -> bytes:
    """Return what precedes an ID of so many characters. ``OVERWRITE`` follows it."""
    header = before_value(REQUEST_ID, size)
    return _before_headers(len(header) + size + len(OVERWRITE)) + header


@lru_cache(maxsize=4096)
def _told_place(pod: str, reason: str) -> bytes:
    return _in_response(set_header(POD, _value(pod)) + set_header(REASON, _value(reason)))


def _told_held(milliseconds: int) -> bytes:
    return _in_response(set_header(HELD_MS, b"%d" % milliseconds))


def _value(text: str) -> bytes:
    """Return a text that cannot end a header."""
    return text.encode("ascii", "replace") if text.isprintable() else b"unprintable"


def _in_response(headers: bytes) -> bytes:
    return _before_headers(len(headers)) + headers


def _before_headers(size: int) -> bytes:
    made = field_head(_HEADER_MUTATION, size)
    made = field_head(_RESPONSE, len(made) + size) + made
    return field_head(_RESPONSE_HEADERS, len(made) + size) + made


_NOT_HELD = _told_held(0)
