"""Reads small fields of a multipart form that may contain large files (RFC 7578, RFC 2046, 5.1).

The reader searches the body for its boundary. Files are neither decoded nor copied. The last value
of a repeated field counts, as in the pod (Starlette's ``FormData`` is a multi-dict).
"""

import re
from collections.abc import Collection
from email.message import Message

_MAX_PART_HEAD = 8192
"""In bytes. The headers of a part are its name, file name and type; more is an attack or a bug."""
_MAX_FIELD = 65536
"""In bytes. The fields that are read here contain names."""
_DISPOSITION = re.compile(rb"^content-disposition[ \t]*:[ \t]*(.*)$", re.IGNORECASE | re.MULTILINE)


class MultipartError(ValueError):
    """The form is invalid. The message contains no part of the body."""


def read_fields(body: bytes, content_type: str, wanted: Collection[str]) -> dict[str, bytes]:
    """Return the wanted fields that the form contains.

    Raises:
        MultipartError: The boundary is missing, or the form is truncated or malformed.
    """
    delimiter = b"\r\n--" + _boundary(content_type)
    found: dict[str, bytes] = {}
    at = _after_first(body, delimiter)
    while not body.startswith(b"--", at):
        line_end = body.find(b"\r\n", at, at + 1024)
        if line_end < 0 or body[at:line_end].strip(b" \t"):
            raise MultipartError("a boundary is not followed by a line end")
        head_end = body.find(b"\r\n\r\n", line_end, line_end + _MAX_PART_HEAD)
        if head_end < 0:
            raise MultipartError("the headers of a part have no end or are too long")
        part_end = body.find(delimiter, head_end + 2)
        if part_end < 0:
            raise MultipartError("the closing boundary is missing")
        name = _field_name(body[line_end + 2 : head_end])
        if name is not None and name in wanted:
            value = body[head_end + 4 : part_end]
            if len(value) > _MAX_FIELD:
                raise MultipartError(f"the field '{name}' is longer than {_MAX_FIELD} bytes")
            found[name] = value
        at = part_end + len(delimiter)
    return found


def _after_first(body: bytes, delimiter: bytes) -> int:
    # The first delimiter may be at the start of the body, without a line end before it.
    if body.startswith(delimiter[2:]):
        return len(delimiter) - 2
    at = body.find(delimiter)
    if at < 0:
        raise MultipartError("it does not contain the boundary that its content-type names")
    return at + len(delimiter)


def _boundary(content_type: str) -> bytes:
    boundary = _parameter("content-type", content_type, "boundary")
    if not boundary:
        raise MultipartError("its content-type names no boundary")
    if len(boundary) > 70 or not boundary.isascii():
        # RFC 2046, section 5.1.1: 1 to 70 characters, all of them ASCII.
        raise MultipartError("its boundary is longer than 70 characters or not ASCII")
    return boundary.encode()


def _field_name(head: bytes) -> str | None:
    """Return the field name of a part, or ``None`` for a file or a part without a name."""
    disposition = _DISPOSITION.search(head.replace(b"\r\n", b"\n"))
    if disposition is None:
        return None
    value = disposition.group(1).decode(errors="replace")
    if _parameter("content-disposition", value, "filename") is not None:
        return None
    return _parameter("content-disposition", value, "name")


def _parameter(header: str, value: str, name: str) -> str | None:
    """Return a parameter of a header, quoted or not, as the parser of ``email`` reads it."""
    message = Message()
    message[header] = value
    found = message.get_param(name, header=header)
    return found if isinstance(found, str) else None
