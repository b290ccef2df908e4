"""Rewrites JSON that Python's ``json`` reads and msgspec does not, so that msgspec reads it too.

Pods read bodies with Starlette's ``request.json()``, which is Python's ``json.loads`` on bytes. It
takes more than RFC 8259 defines: half of a surrogate pair (JavaScript makes one when it cuts a
string inside an emoji), ``NaN`` and infinities (Python writes them), and UTF-16 and UTF-32.

Parsing such a body with ``json`` would build all of its objects, which take many times the memory
of the body. The functions here only replace bytes, by others of the same number, so a large body
costs little more than its copies. What they insert cannot be a name of a model, and is invalid
where what it replaces is invalid.

The event loop waits while a body is rewritten. So the work in Python is bounded: it is done for at
most ``MAX_SURROGATES`` and ``MAX_NUMBERS`` places. All else are searches and copies in C, each of
which passes over the body once.
"""

import re
from codecs import getincrementaldecoder
from json import detect_encoding

from msgspec import Struct

from lora_router.extproc.events import Message

MAX_SURROGATES = 100_000
"""Surrogates, in pairs or alone, that are looked at in one body. A pair that is written with
escapes counts as one. They are looked at only in a body that must be rewritten."""
MAX_NUMBERS = 20_000
"""Occurrences of ``NaN`` and ``Infinity``, in strings or not, that are looked at in one body."""

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?")
"""The escape of a surrogate, with the one that may be the second half of a pair. It begins with a
literal, which makes the search fast."""
_FIRST_HALF = b"89abAB"
"""The second digits of surrogates that begin a pair."""
_RAW_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
"""What a surrogate would be in UTF-8. The first byte begins a character wherever it stands."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_NONCHARACTER = "\uffff"
"""Takes the place of a surrogate. It is not printable, so it is in no name of a model."""
_RAW_NONCHARACTER = _NONCHARACTER.encode()
_ESCAPED_NONCHARACTER = rb"\uFFFF"
_NUMBERS = re.compile(rb"NaN"), re.compile(rb"Infinity")
"""Searches for one literal each, which takes a fraction of the time of ``bytes.find`` in Base64."""
_MARK = b"\xef\xbb\xbf"
_BACKSLASH = ord("\\")
_PIECE_BYTES = 64 * 1024
"""A multiple of the size of a character, in any encoding."""


class LenientJsonError(ValueError):
    """The body cannot be rewritten. The message contains no part of it."""


class Rewritten(Struct, frozen=True):
    """A body as msgspec can read it, if it is JSON for Python."""

    text: Message
    """In UTF-8, without a byte order mark. The body itself, if there is nothing to rewrite."""
    has_numbers: bool
    """Whether it has ``NaN`` or infinities as numbers."""


def rewritten(body: Message) -> Rewritten:
    """Rewrite a body that msgspec cannot read.

    An empty list takes the place of each ``NaN`` and infinity. It is, as a number is, no name of an
    object's field, and no number can continue it.

    Raises:
        LenientJsonError: The body is in no encoding that Python's ``json`` detects, or has too many
            places to look at.
    """
    plain = _without_lone_surrogates(_in_utf8(body))
    try:
        text = _without_special_numbers(plain)
    except LenientJsonError:
        if plain is body:
            raise
        # All of them may be in strings.
        text = plain
    return Rewritten(text, text is not plain)


def in_utf8(body: Message) -> Message:
    """Return a body that Python's ``json`` reads in UTF-8, with its surrogates as they are."""
    encoding = detect_encoding(body[:4])
    if encoding.startswith("utf-8"):
        return body
    return body.decode(encoding, "surrogatepass").encode(errors="surrogatepass")


def _in_utf8(body: Message) -> Message:
    """Return the body in UTF-8, without a byte order mark, and with no surrogate but escapes."""
    encoding = detect_encoding(body[:4])
    try:
        if not encoding.startswith("utf-8"):
            return _transcoded(body, encoding)
        if body.isascii():
            return body
        plain = body[len(_MARK) :] if encoding == "utf-8-sig" else body
        plain = _without_raw_surrogates(plain)
        plain.decode()
    except UnicodeError:
        raise LenientJsonError("it is not valid UTF-8") from None
    return plain


def _transcoded(body: Message, encoding: str) -> bytes:
    """Return a body in UTF-8 that is in UTF-16 or UTF-32.

    The decoder calls a function for each surrogate, so they are counted in pieces of the body.
    """
    decoder = getincrementaldecoder(encoding)("surrogatepass")
    parts, surrogates = [], 0
    for at in range(0, len(body), _PIECE_BYTES):
        after = at + _PIECE_BYTES
        text = decoder.decode(body[at:after], after >= len(body))
        try:
            parts.append(text.encode())
        except UnicodeEncodeError:
            text, found = _SURROGATE.subn(_NONCHARACTER, text)
            surrogates += found
            if surrogates > MAX_SURROGATES:
                raise _too_many_surrogates() from None
            parts.append(text.encode())
    return b"".join(parts)


def _without_raw_surrogates(body: Message) -> Message:
    """Return a body in UTF-8 with another character in place of each surrogate."""
    changed: bytearray | None = None
    for number, match in enumerate(_RAW_SURROGATE.finditer(body)):
        if number == MAX_SURROGATES:
            raise _too_many_surrogates()
        if changed is None:
            changed = bytearray(body)
        changed[match.start() : match.end()] = _RAW_NONCHARACTER
    return body if changed is None else changed


def _without_lone_surrogates(body: Message) -> Message:
    """Return a body with another character for each escape of a surrogate without its other half.

    An escaped backslash before a ``u`` begins no such escape.
    """
    changed: bytearray | None = None
    read = 0
    for number, match in enumerate(_ESCAPED_SURROGATE.finditer(body)):
        if number == MAX_SURROGATES:
            raise _too_many_surrogates()
        start, second = match.start(), match.start(1)
        if start and body[start - 1] == _BACKSLASH and _is_escaped(body[read:start]):
            lone: tuple[int, ...] = (second,)
        elif second < 0:
            lone = (start,)
        elif body[start + 3] in _FIRST_HALF:
            lone = ()
        else:
            lone = start, second
        read = match.end()
        for at in lone:
            if at < 0:
                continue
            if changed is None:
                changed = bytearray(body)
            changed[at : at + len(_ESCAPED_NONCHARACTER)] = _ESCAPED_NONCHARACTER
    return body if changed is None else changed


def _is_escaped(before: Message) -> bool:
    """Return whether the backslashes at the end of a text escape what follows."""
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def _without_special_numbers(body: Message) -> Message:
    """Return a body in UTF-8 with an empty list in place of each ``NaN`` and infinity."""
    changed: bytearray | None = None
    in_string, at = False, 0
    for start, end in _places(body):
        in_string ^= _quotes(body[at:start]) % 2 == 1
        at = start
        if not in_string:
            if changed is None:
                changed = bytearray(body)
            changed[start:end] = b"[]".ljust(end - start)
    return body if changed is None else changed


def _places(text: Message) -> list[tuple[int, int]]:
    """Return where numbers may be that JSON does not have, in order, with their signs."""
    places: list[tuple[int, int]] = []
    for word in _NUMBERS:
        for match in word.finditer(text):
            if len(places) == MAX_NUMBERS:
                raise LenientJsonError(f"it contains NaN or Infinity more than {MAX_NUMBERS} times")
            at, end = match.span()
            signed = word is not _NUMBERS[0] and text[at - 1 : at] == b"-"
            places.append((at - signed, end))
    return sorted(places)


def _quotes(text: Message) -> int:
    """Return the number of quotes that begin or end a string."""
    quotes = text.count(b'"')
    if quotes and b"\\" in text:
        quotes -= text.replace(rb"\\", b"").count(rb"\"")
    return quotes


def _too_many_surrogates() -> LenientJsonError:
    return LenientJsonError(f"it contains surrogates more than {MAX_SURROGATES} times")
