"""Puts the name that the client wrote back into an answer, piece by piece.

In a JSON document, and in a stream of events that are JSON documents, a field ``model`` with the
name that the pod was asked for gets the client's name. Every other byte stays. Text that a model
generates cannot look like such a field, because its quotes are escaped inside a string.

A field may be cut by the border of two pieces. So the end of a piece that may be the beginning of
the field is kept until the next piece. A complete document or event does not end so. Nothing is
kept at its end.
"""

import json
import re

import msgspec

from lora_router.extproc.body import is_json
from lora_router.extproc.events import Message

_KEY = b'"model"'
_SPACE = rb"[ \t\n\r]{0,8}"
"""Writers of JSON put at most one space here. The limit bounds what is kept."""
_TO_VALUE = re.compile(_SPACE + rb"(:" + _SPACE + rb")?")


def is_named(content_type: str) -> bool:
    """Return whether an answer of this type may contain the name as this module finds it."""
    return is_json(content_type) or content_type[:17].lower() == "text/event-stream"


class AnswerNames:
    """The names of one answer, and what is kept of it."""

    __slots__ = ("_asked", "_kept", "_longest", "_pattern", "_served")

    def __init__(self, served: str, asked: str) -> None:
        """Create it, before the first piece.

        Args:
            served: The name that the pod was asked for.
            asked: The name that the client wrote.
        """
        # Python's writer escapes what is not ASCII, others do not.
        self._asked = {
            msgspec.json.encode(served): msgspec.json.encode(asked),
            json.dumps(served).encode(): json.dumps(asked).encode(),
        }
        self._served = tuple(self._asked)
        values = b"|".join(map(re.escape, self._served))
        self._pattern = re.compile(b"(" + _KEY + _SPACE + b":" + _SPACE + b")(" + values + b")")
        self._longest = len(_KEY) + 17 + max(map(len, self._served))
        self._kept = b""

    def add(self, piece: Message, *, ends: bool) -> bytes:
        """Return what the client gets for the next piece.

        Args:
            piece: The piece.
            ends: Whether it is the last one.
        """
        text = self._kept + piece
        text = self._pattern.sub(lambda found: found[1] + self._asked[found[2]], text)
        at = len(text) if ends else self._beginning(text)
        self._kept = text[at:]
        return text[:at]

    def _beginning(self, text: bytes) -> int:
        """Return where the beginning of a field is, with which a text ends, or its length."""
        size = len(text)
        at = text.rfind(_KEY, max(0, size - self._longest))
        if at >= 0:
            between = _TO_VALUE.match(text, at + len(_KEY))
            assert between is not None  # noqa: S101 -- it matches the empty text
            rest = text[between.end() :]
            is_cut = between[1] is not None and any(
                value.startswith(rest) and value != rest for value in self._served
            )
            if not rest or is_cut:
                return at
        for length in range(len(_KEY) - 1, 0, -1):
            if text.endswith(_KEY[:length]):
                return size - length
        return size
