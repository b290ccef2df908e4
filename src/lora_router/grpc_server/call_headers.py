"""Reads the request headers of a stream: first the rules of HTTP, then those of gRPC.

Sources: RFC 9113, section 8; grpc/doc/PROTOCOL-HTTP2.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lora_router.grpc_server.headers import Headers
from lora_router.grpc_server.outline import ENTRY_OVERHEAD
from lora_router.grpc_server.violations import ErrorCode, StreamError

_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_CONNECTION_HEADERS = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_BAD_NAME = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9a-z]")
_BAD_VALUE = re.compile(rb"[\0\r\n]")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_TIMEOUT_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


@dataclass(frozen=True, slots=True)
class CallHeaders:
    """The parts of a stream's request headers that this server uses."""

    path: str
    http_error: int = 0
    """The HTTP status to answer if the request is not gRPC; otherwise 0."""
    timeout: float | None = None
    """``grpc-timeout`` in seconds."""
    bad_timeout: bool = False
    encoding: bytes = b"identity"
    """``grpc-encoding``: the compression of messages whose compressed flag is set."""
    content_length: int | None = None
    list_bytes: int = 0
    fields: Mapping[bytes, bytes] = field(default_factory=dict)
    """All headers but the pseudo-headers. Of a repeated header, the first one."""


def read_call_headers(headers: Headers) -> CallHeaders:
    """Check request headers and return what this server uses of them.

    Raises:
        StreamError: The headers are malformed by the rules of HTTP.
    """
    pseudo: dict[bytes, bytes] = {}
    fields: dict[bytes, bytes] = {}
    size = 0
    for name, value in headers:
        size += len(name) + len(value) + ENTRY_OVERHEAD
        if name[:1] != b":":
            _check_field(name, value)
            fields.setdefault(name, value)
        elif fields or name in pseudo or name not in _PSEUDO or _BAD_VALUE.search(value):
            raise _malformed("a pseudo-header is misplaced, repeated or unknown")
        else:
            pseudo[name] = value
    method, path = pseudo.get(b":method"), pseudo.get(b":path")
    if not method or not path or b":scheme" not in pseudo:
        raise _malformed(":method, :scheme or :path is missing")
    timeout = _timeout(fields.get(b"grpc-timeout"))
    return CallHeaders(
        path=path.decode("latin-1"),
        http_error=_http_error(method, fields.get(b"content-type", b"")),
        timeout=timeout,
        bad_timeout=timeout is None and b"grpc-timeout" in fields,
        encoding=fields.get(b"grpc-encoding", b"identity"),
        content_length=_content_length(fields.get(b"content-length")),
        list_bytes=size,
        fields=fields,
    )


def check_trailers(headers: Headers) -> None:
    """Check the trailers of a request.

    Raises:
        StreamError: The trailers are malformed.
    """
    for name, value in headers:
        if name[:1] == b":":
            raise _malformed("trailers contain a pseudo-header")
        _check_field(name, value)


def _check_field(name: bytes, value: bytes) -> None:
    if (
        not name
        or _BAD_NAME.search(name)
        or _BAD_VALUE.search(value)
        or name in _CONNECTION_HEADERS
        or (name == b"te" and value != b"trailers")
    ):
        raise _malformed(f"header {name[:40]!r} is not allowed in HTTP/2")


def _http_error(method: bytes, content_type: bytes) -> int:
    if method != b"POST":
        return 405
    kind = content_type.lower()
    if kind.startswith(b"application/grpc") and kind[16:17] in (b"", b"+", b";"):
        return 0
    return 415


def _timeout(text: bytes | None) -> float | None:
    match = None if text is None else _TIMEOUT.fullmatch(text)
    return None if match is None else int(match[1]) * _TIMEOUT_UNITS[match[2]]


def _content_length(text: bytes | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise _malformed("content-length is not a number")
    return int(text)


def _malformed(what: str) -> StreamError:
    return StreamError(ErrorCode.PROTOCOL_ERROR, what)
