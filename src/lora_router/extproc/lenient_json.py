"""Rewrites JSON that Python's ``json`` reads and msgspec does not, so that msgspec reads it too.

Pods read bodies with Starlette's ``request.json()``, which is Python's ``json.loads`` on bytes. It
takes more than RFC 8259 defines: half of a surrogate pair (JavaScript makes one when it cuts a
string inside an emoji), ``NaN`` and infinities (Python writes them), and UTF-16 and UTF-32.

Parsing such a body with ``json`` would build all of its objects, which take many times the memory
of the body. The functions here only replace bytes, by others of the same number, so a large body
costs little more than its copies. What they insert cannot be a name of a model, and is invalid
where what it replaces is invalid.
"""

import re
from json import detect_encoding
from typing import TypeVar

import msgspec

MAX_NUMBERS = 20_000
"""Occurrences of ``NaN`` and ``Infinity``, in strings or not, that are looked at in one body."""

_HIGH, _LOW = rb"[dD][89abAB][0-9a-fA-F]{2}", rb"[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE = re.compile(
    rb"\\u(?:%b(?!\\u%b)|%b(?<!\\u%b\\u%b))" % (_HIGH, _LOW, _LOW, _HIGH, _LOW)
)
"""The escape of a surrogate that is not half of a pair. It begins with a literal, which makes the
search fast."""
_RAW_SURROGATE = re.compile("[\ud800-\udfff]")
_NONCHARACTER = "\uffff"
"""Takes the place of a surrogate. It is not printable, so it is in no name of a model."""
_WORDS = (b"NaN", b"Infinity")

# Bytes that occur in no UTF-8. They mark escapes while text is searched.
_BACKSLASH = b"\xff\xff"
_QUOTE = b"\xfe\xfe"


_T = TypeVar("_T")


class LenientJsonError(ValueError):
    """The body cannot be rewritten. The message contains no part of it."""


def decode_leniently(decoder: "msgspec.json.Decoder[_T]", body: bytes | bytearray) -> _T:
    """Return what a decoder reads in a body that ``read_body`` can read, rewritten if it must be.

    Raises:
        msgspec.DecodeError: The decoder cannot read the body after all.
        LenientJsonError: The body cannot be rewritten.
        RecursionError: The body is nested too deeply.
    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        plain = as_utf8(body)
    try:
        return decoder.decode(plain)
    except msgspec.DecodeError:
        rewritten = without_special_numbers(plain)
        if rewritten is None:
            raise
        return decoder.decode(rewritten)


def as_utf8(body: bytes | bytearray) -> bytes:
    """Return the body in UTF-8, without a byte order mark and without lone surrogates.

    Raises:
        LenientJsonError: The body is in no encoding that Python's ``json`` detects.
    """
    plain = _decoded(body)
    marked = plain.replace(rb"\\", _BACKSLASH)
    if _LONE_SURROGATE.search(marked) is None:
        return plain
    marked = _LONE_SURROGATE.sub(rb"\\uFFFF", marked)
    return marked.replace(_BACKSLASH, rb"\\")


def without_special_numbers(body: bytes) -> bytes | None:
    """Return a body in UTF-8 with an empty list in place of each ``NaN`` and infinity.

    An empty list is, as a number is, no name of an object's field, and no number can continue it.

    Returns:
        ``None``: the body has no such number.

    Raises:
        LenientJsonError: The body has too many places to look at.
    """
    marked = body.replace(rb"\\", _BACKSLASH).replace(rb"\"", _QUOTE)
    rewritten: bytearray | None = None
    in_string, at = False, 0
    for start, end in _places(marked):
        in_string ^= marked.count(b'"', at, start) % 2 == 1
        at = start
        if not in_string:
            if rewritten is None:
                rewritten = bytearray(body)
            rewritten[start:end] = b"[]".ljust(end - start)
    return None if rewritten is None else bytes(rewritten)


def _places(text: bytes) -> list[tuple[int, int]]:
    """Return where numbers may be that JSON does not have, in order, with their signs."""
    places: list[tuple[int, int]] = []
    for word in _WORDS:
        at = text.find(word)
        while at >= 0:
            if len(places) == MAX_NUMBERS:
                raise LenientJsonError(f"it contains NaN or Infinity more than {MAX_NUMBERS} times")
            signed = word is not _WORDS[0] and text[at - 1 : at] == b"-"
            places.append((at - signed, at + len(word)))
            at = text.find(word, at + len(word))
    return sorted(places)


def _decoded(body: bytes | bytearray) -> bytes:
    try:
        encoding = detect_encoding(body)
        if encoding == "utf-8" and (body.isascii() or _is_utf8(body)):
            return bytes(body)
        text = body.decode(encoding, "surrogatepass")
    except UnicodeDecodeError:
        raise LenientJsonError("it is not valid UTF-8") from None
    return _RAW_SURROGATE.sub(_NONCHARACTER, text).encode()


def _is_utf8(body: bytes | bytearray) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
