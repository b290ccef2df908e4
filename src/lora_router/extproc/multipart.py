"""Reads small fields of a multipart form that may contain large files (RFC 7578, RFC 2046, 5.1).

Pods read forms with Starlette and python-multipart, whose releases differ about unusual forms. A
form that two readers could read differently is refused. What remains is what clients send: no text
before the form or after it, CRLF at the end of each line, one ``content-disposition`` in each part
with exactly one ``name``, and the values of ``model`` and ``stream`` in fields that are not files.

The reader searches the body for its boundary. Files are neither decoded nor copied. The last value
of a repeated field counts, as in the pod (Starlette's ``FormData`` is a multi-dict).
"""

import re
from collections.abc import Collection
from typing import NamedTuple

MAX_PARTS = 2000
"""Starlette reads at most 1,000 files and 1,000 fields."""
_MAX_PART_HEAD = 8192
"""In bytes. The headers of a part are its name, file name and type; more is an attack or a bug."""
_MAX_FIELD = 65536
"""In bytes. The fields that are read here contain names."""
_MAX_EPILOGUE = 64
"""In bytes. Line ends that a client may add."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 -- RFC 9110's word, not a secret
_CONTENT_TYPE = re.compile(r'multipart/form-data((?:; *[a-z-]+=(?:[^\s"\\;,]+|"[^"\\]*"))*);? *')
"""In lower case and without a space before a semicolon, because early releases of python-multipart
compare it so."""
_CONTENT_TYPE_PARAMETER = re.compile(r'; *([a-z-]+)=(?:([^\s"\\;,]+)|"([^"\\]*)")')
_BOUNDARY = re.compile(r"[!-~ ]{0,69}[!-~]")
"""1 to 70 printable ASCII characters that do not end with a space (RFC 2046, section 5.1.1)."""
_HEADER = re.compile(rf"({_TOKEN}): *([^\r\n\0]*)".encode())
_PARAMETER = rf'[a-z*-]+=(?:{_TOKEN}|"(?:[^"\\]|\\.)*")'
_DISPOSITION = re.compile(rf"form-data(?: *; *{_PARAMETER})*".encode(), re.IGNORECASE)
_NAME = re.compile(rf'; *name=(?:({_TOKEN})|"([^"\\]*)")( *;| *$)'.encode())
_NAMES = re.compile(rb";[\s\x1c-\x1f\x85\xa0]*name", re.IGNORECASE)
"""Every place where some reader may see a ``name`` or ``name*``, also inside quotes."""

_UNICODE_CHARSETS = frozenset(("utf-8", "utf8"))
_ASCII_CHARSETS = frozenset(("us-ascii", "ascii", "iso-8859-1"))
"""Charsets whose ASCII characters are those of UTF-8. Some clients in Java send them."""


class MultipartError(ValueError):
    """The form is invalid. The message contains no part of the body."""


class _Form(NamedTuple):
    delimiter: bytes
    ascii_only: bool
    """Whether values must be ASCII, because the charset reads other bytes in its own way."""


def read_fields(
    body: bytes | bytearray, content_type: str, wanted: Collection[str]
) -> dict[str, str]:
    """Return the wanted fields that the form contains.

    Raises:
        MultipartError: The form is truncated or malformed, or readers may differ about it.
    """
    delimiter, ascii_only = _form(content_type)
    found: dict[str, str] = {}
    at = _after_first(body, delimiter)
    parts = 0
    while not body.startswith(b"--", at):
        parts += 1
        if parts > MAX_PARTS:
            raise MultipartError(f"it has more than {MAX_PARTS} parts")
        if not body.startswith(b"\r\n", at):
            raise MultipartError("a boundary is not followed by a line end")
        head_end = body.find(b"\r\n\r\n", at, at + _MAX_PART_HEAD)
        if head_end < 0:
            raise MultipartError("the headers of a part have no end or are too long")
        begin = head_end + 4
        end = body.find(delimiter, begin)
        if end < 0:
            raise MultipartError("the closing boundary is missing")
        name, alone = _field_name(bytes(body[at + 2 : head_end]))
        if name in wanted:
            if not alone:
                raise MultipartError(f"the field '{name}' is a file, or has other parameters")
            found[name] = _value(name, body[begin:end], ascii_only=ascii_only)
        at = end + len(delimiter)
    if len(body) - at > _MAX_EPILOGUE or body[at + 2 :].strip(b"\r\n"):
        raise MultipartError("text follows the closing boundary")
    return found


def _after_first(body: bytes | bytearray, delimiter: bytes) -> int:
    # The first delimiter is at the start of the body. Some clients write its line end.
    if body.startswith(delimiter[2:]):
        return len(delimiter) - 2
    if body.startswith(delimiter):
        return len(delimiter)
    raise MultipartError("it does not begin with the boundary that its content-type names")


def _form(content_type: str) -> _Form:
    found = _CONTENT_TYPE.fullmatch(content_type.strip(" \t"))
    if found is None:
        raise MultipartError("its content-type is malformed")
    parameters: dict[str, str] = {}
    for key, token, quoted in _CONTENT_TYPE_PARAMETER.findall(found[1]):
        if key in parameters:
            raise MultipartError(f"its content-type has '{key}' twice")
        parameters[key] = token or quoted
    boundary = parameters.get("boundary")
    if not boundary:
        raise MultipartError("its content-type names no boundary")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise MultipartError("its boundary is longer than 70 characters or not printable ASCII")
    charset = parameters.get("charset", "utf-8").lower()
    if charset not in _UNICODE_CHARSETS | _ASCII_CHARSETS:
        raise MultipartError("its charset is not utf-8")
    return _Form(b"\r\n--" + boundary.encode(), ascii_only=charset in _ASCII_CHARSETS)


def _field_name(head: bytes) -> tuple[str, bool]:
    """Return the field name of a part, and whether its disposition has no other parameter."""
    disposition = None
    for line in head.split(b"\r\n") if head else ():
        header = _HEADER.fullmatch(line)
        if header is None:
            raise MultipartError("a header of a part is malformed")
        if header[1].lower() == b"content-disposition":
            if disposition is not None:
                raise MultipartError("a part has two content-dispositions")
            disposition = header[2]
    if disposition is None:
        raise MultipartError("a part has no content-disposition")
    name = _NAME.search(disposition)
    if (
        name is None
        or len(_NAMES.findall(disposition)) > 1
        or _DISPOSITION.fullmatch(disposition) is None
    ):
        raise MultipartError("the content-disposition of a part is malformed or ambiguous")
    return (name[1] or name[2] or b"").decode("latin-1"), disposition.count(b"=") == 1


def _value(name: str, value: bytes | bytearray, *, ascii_only: bool) -> str:
    if len(value) > _MAX_FIELD:
        raise MultipartError(f"the field '{name}' is longer than {_MAX_FIELD} bytes")
    if ascii_only and not value.isascii():
        raise MultipartError(f"the field '{name}' is not ASCII, and the charset is not utf-8")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise MultipartError(f"the field '{name}' is not valid UTF-8") from None
