"""Finds IDs: those that a request names, and those in the first bytes of an answer.

An answer is a JSON object, or a stream of events whose first one has the object. The ID is the
field ``id`` of the object, or of its field ``response``. The first bytes of an answer are rarely a
whole document, so tokens are read one after the other, until the fields are found.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec

from lora_router.extproc.body import Document
from lora_router.fleet.made_ids import is_id

LOOK_BYTES = 16 * 1024
"""How much of an answer is read. Servers write the ID first."""
LOOK_PIECES = 16
"""In how many pieces. The bytes are read again with each of them."""
MAX_FIELD_BYTES = 1024
"""How long a field of a request is at most that names an ID. A longer one names none: no pod makes
such an ID."""

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
    """An object that names an ID."""

    id: str = ""


_decode = msgspec.json.Decoder(str | _Named).decode
_FALSE = b"false"


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


def ids_in_body(document: Document | None, kinds: Sequence[tuple[str, str]]) -> NamedIds:
    """Return the first ID that a body names.

    Args:
        document: The fields of the body; ``None``: it is a form.
        kinds: The fields that name IDs, and of what.
    """
    if document is None:
        return NamedIds(None, is_stored=True)
    is_stored = bytes(document.store) != _FALSE
    for field, kind in kinds:
        name = _name_in(getattr(document, field))
        if name:
            return NamedIds(NamedId(name, kind, field), is_stored)
    return NamedIds(None, is_stored)


def _name_in(field: msgspec.Raw) -> str:
    """Return the ID that a field names: as a string, or as an object that has it."""
    if not 0 < len(field) <= MAX_FIELD_BYTES:
        return ""
    try:
        value = _decode(field)
    except (msgspec.DecodeError, RecursionError):
        return ""
    return value if isinstance(value, str) else value.id
