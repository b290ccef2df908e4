"""Finds IDs: those that a request names, and those in the first bytes of an answer.

An answer is a JSON object, or a stream of events whose first one has the object. The ID is the
field ``id`` of the object, or of its field ``response``. The first bytes of an answer are rarely a
whole document, so tokens are read one after the other, until the fields are found.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from lora_router.extproc.lenient_json import LenientJsonError, decode_leniently
from lora_router.fleet.made_ids import is_id

LOOK_BYTES = 16 * 1024
"""How much of an answer is read. Servers write the ID first."""
LOOK_PIECES = 16
"""In how many pieces. The bytes are read again with each of them."""

_TOKEN = re.compile(rb'\s+|"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s"{}\[\]:,]+', re.DOTALL)
_FIRST_DATA = re.compile(rb"(?:^|[\r\n])data: ?")
_QUOTE, _COLON, _COMMA = b'":,'
_OPENING, _CLOSING = b"{[", b"}]"


class IdSearch:
    """Looks for IDs in the pieces of one answer."""

    __slots__ = ("_events", "_fields", "_pieces", "_seen")

    def __init__(self, fields: Sequence[str], *, event_stream: bool) -> None:
        """Create a search at the beginning of an answer.

        Args:
            fields: The fields of the object that contain IDs.
            event_stream: Whether the answer is a stream of events.
        """
        self._fields = frozenset(fields)
        self._events = event_stream
        self._seen = b""
        self._pieces = 0

    @property
    def began(self) -> bool:
        """Whether a piece of the answer arrived."""
        return self._pieces > 0

    def add(self, piece: bytes | bytearray) -> list[str] | None:
        """Look at the next piece.

        Returns:
            The IDs, perhaps none; ``None``: further pieces are needed.
        """
        self._pieces += 1
        self._seen += piece[: LOOK_BYTES - len(self._seen)]
        text: bytes | memoryview = self._seen
        if self._events:
            begin = _FIRST_DATA.search(text)
            text = b"" if begin is None else memoryview(text)[begin.end() :]
        found = dict(ids_of_object(text, self._fields))
        whole = found.pop("", None) is not None
        if (
            whole
            or found.keys() == self._fields
            or self._pieces >= LOOK_PIECES
            or len(self._seen) >= LOOK_BYTES
        ):
            return [name for name in found.values() if is_id(name)]
        return None


def ids_of_object(text: bytes | memoryview, fields: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield fields and texts of a JSON object, or of its field ``response``.

    The document may be cut anywhere. The field ``""`` is yielded at the end of the object.
    """
    path: list[bytes] = []
    key = last = b""
    is_value = False
    at, end = 0, len(text)
    while at < end:
        token = _TOKEN.match(text, at)
        if token is None:
            return  # A string that is cut.
        at = token.end()
        word = token[0]
        first = word[0]
        if first == _QUOTE:
            if is_value and (len(path) == 1 or path[1:] == [b'"response"']):
                name = key[1:-1].decode(errors="replace")
                if name in fields:
                    yield name, word[1:-1].decode(errors="replace")
            last = bytes(word)
        elif first == _COLON:
            key, is_value = last, True
        elif first == _COMMA:
            is_value = False
        elif first in _OPENING:
            path.append(key if is_value else b"")
            is_value = False
        elif first in _CLOSING:
            if path:
                path.pop()
            is_value = False
            if not path:
                yield "", ""
                return


class _Named(msgspec.Struct):
    """The fields of a request that name an ID, and whether its answer is stored."""

    previous_response_id: Any = None
    conversation: Any = None
    input_file_id: Any = None
    store: Any = None


_decoder = msgspec.json.Decoder(_Named)


class NamedId(msgspec.Struct, frozen=True):
    """An ID that a request names."""

    name: str
    kind: str
    """Of what: a response, a file, a batch."""
    param: str | None = None
    """The field of the body that names it."""


class NamedIds(msgspec.Struct, frozen=True):
    """What a body says of IDs."""

    first: NamedId | None
    is_stored: bool
    """Whether the pod keeps its answer under a new ID."""


def ids_in_body(body: bytes | bytearray, kinds: Sequence[tuple[str, str]]) -> NamedIds:
    """Return the first ID that a JSON body names.

    Args:
        body: It was found to be JSON.
        kinds: The fields that name IDs, and of what.
    """
    try:
        named = decode_leniently(_decoder, body)
    except (msgspec.DecodeError, LenientJsonError, RecursionError):
        named = _Named()
    for field, kind in kinds:
        value = getattr(named, field)
        if isinstance(value, dict):
            value = value.get("id")
        if isinstance(value, str) and value:
            return NamedIds(NamedId(value, kind, field), named.store is not False)
    return NamedIds(None, named.store is not False)
