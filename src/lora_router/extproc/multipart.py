"""Small fields out of a multipart form, past large files (RFC 7578, RFC 2046 section 5.1).

The body is searched for its boundary; files are neither decoded nor copied. A field that stands
twice counts with its last value, as in the pod (Starlette's ``FormData``, a multi-dict).
"""

import re
from collections.abc import Collection
from email.message import Message

_MAX_PART_HEAD = 8192
"""Bytes. A part's headers are its name, file name and type; more is an attack or a mistake."""
_MAX_FIELD = 65536
"""Bytes of a wanted field; none that is read here is longer than a name."""
_DISPOSITION = re.compile(rb"^content-disposition[ \t]*:[ \t]*(.*)$", re.IGNORECASE | re.MULTILINE)


class MultipartError(ValueError):
    """The form is broken. The message repeats nothing of it."""


def read_fields(body: bytes, content_type: str, wanted: Collection[str]) -> dict[str, bytes]:
    """Return those of the wanted fields that the form has.

    Raises:
        MultipartError: No boundary is given or found, the form is cut off, or a part is broken.
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
            raise MultipartError("the headers of a part do not end")
        part_end = body.find(delimiter, head_end + 2)
        if part_end < 0:
            raise MultipartError("it has no closing boundary")
        name = _field_name(body[line_end + 2 : head_end])
        if name is not None and name in wanted:
            value = body[head_end + 4 : part_end]
            if len(value) > _MAX_FIELD:
                raise MultipartError(f"the field '{name}' is longer than {_MAX_FIELD} bytes")
            found[name] = value
        at = part_end + len(delimiter)
    return found


def _after_first(body: bytes, delimiter: bytes) -> int:
    # The first delimiter may stand at the very start, with no line end before it.
    if body.startswith(delimiter[2:]):
        return len(delimiter) - 2
    at = body.find(delimiter)
    if at < 0:
        raise MultipartError("the boundary that its content-type names is not in it")
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
    """Return a part's field name; ``None`` if it has none, or is a file."""
    disposition = _DISPOSITION.search(head.replace(b"\r\n", b"\n"))
    if disposition is None:
        return None
    value = disposition.group(1).decode(errors="replace")
    if _parameter("content-disposition", value, "filename") is not None:
        return None
    return _parameter("content-disposition", value, "name")


def _parameter(header: str, value: str, name: str) -> str | None:
    """Read a parameter of a header, quoted or not, as the standard library's e-mail parser does."""
    message = Message()
    message[header] = value
    found = message.get_param(name, header=header)
    return found if isinstance(found, str) else None
