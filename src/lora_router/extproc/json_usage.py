"""Finds the objects that a JSON document has under the key ``usage``, as its parts arrive.

Almost nothing of the document is kept. In JSON, the bytes ``"usage"`` before a colon are a key,
unless a backslash precedes them: inside a string, every quote has one. So nothing is parsed before
the first such key. From there on, only strings and brackets are told apart. At the end of the
document, the number of brackets that were closed says how deep each key was. A key that a client
wrote into the parameters of a tool, which some answers repeat, is too deep to count.
"""

import json
import re
from typing import Any

MAX_USAGE_BYTES = 4096
"""Bytes of an object under the key. A longer one is not read."""

KEY = b'"usage"'
_SPACE = rb"[ \t\n\r]{0,8}"
"""Writers of JSON put at most one space here. The limit bounds what is kept."""
_FIRST_KEY = re.compile(rb"(?<!\\)" + KEY + _SPACE + rb":" + _SPACE + rb"\{")
_LONGEST_KEY = len(KEY) + 18
_ANOTHER_KEY = re.compile(KEY + _SPACE + rb":")
_TO_OBJECT = re.compile(_SPACE + rb"(?::" + _SPACE + rb"(\{)?)?")
_STRING = rb'"(?!usage"' + _SPACE + rb'(?::|\Z))(?:[^"\\]++|\\.)*+"'
"""A string that is not the key, and cannot become it with the next part."""
_PLAIN = rb'[^"{}\[\]]++|' + _STRING
_FLAT = rb"[{\[](?:" + _PLAIN + rb")*+[}\]]"
_SHALLOW = rb"[{\[](?:" + _PLAIN + rb"|" + _FLAT + rb")*+[}\]]"
_SKIPPED = re.compile(rb"(?:" + _PLAIN + rb"|" + _SHALLOW + rb")*+", re.DOTALL)
"""What is passed over at once: all but the key, brackets of deeper values, and a string in which
the text ends. An object under the key may have what is passed over. No byte is looked at more than
three times."""
_REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_QUOTE = ord('"')
_OPENING = b"{["
_LEVELS = 2
"""Levels below the outermost one, so far, on which objects are kept."""


def may_have_usage(text: bytes | bytearray) -> bool:
    """Return whether a whole document may have an object under the key."""
    return KEY in text and _FIRST_KEY.search(text, 1) is not None


def _end(pattern: "re.Pattern[bytes]", text: bytes, at: int) -> int:
    """Return where the match ends of a pattern that matches the empty text, too."""
    found = pattern.match(text, at)
    assert found is not None  # noqa: S101 -- see above
    return found.end()


class JsonUsage:
    """One JSON document."""

    __slots__ = ("_depth", "_found", "_in_string", "_kept", "_lowest", "_scans", "head")

    HEAD_BYTES = 256

    def __init__(self) -> None:
        self.head = b""
        """The first bytes of the document."""
        self._kept = b""
        """The end of the last part, which may be the beginning of a key and its object."""
        self._scans = False
        """Whether a key was found. Depths are relative to that of the first one."""
        self._in_string = False
        self._depth = self._lowest = 0
        self._found: dict[int, Any] = {}
        """The last object on each level."""

    @property
    def kept_bytes(self) -> int:
        """Bytes that are kept."""
        return len(self.head) + len(self._kept)

    def add(self, part: bytes | bytearray) -> None:
        """Read the next part of the document."""
        missing = self.HEAD_BYTES - len(self.head)
        if missing > 0:
            self.head += part[:missing]
        text = self._kept + part
        at = 0
        if not self._scans:
            # No document begins with a key.
            key = _FIRST_KEY.search(text, 1) if KEY in text else None
            if key is None:
                self._kept = text[-_LONGEST_KEY - 1 :]
                return
            self._scans = True
            at = key.start()
        self._kept = self._scan(text, at)

    def end(self) -> None:
        """Take in that the document is complete."""
        if self._scans and self._kept:
            self._scan(self._kept, 0, ends=True)
        self._kept = b""

    def usage(self, depth: int) -> Any:
        """Return the last object that is so deep, now that the document is complete.

        Args:
            depth: 1: the key is in the document's own object. 2: in an object in that one.

        Returns:
            ``None``: there is none.
        """
        return self._found.get(self._depth + depth)

    def _scan(self, text: bytes, at: int, *, ends: bool = False) -> bytes:
        """Read a text from an offset on. Return what is needed of it with the next part, if any."""
        size = len(text)
        if self._in_string:
            at = _end(_REST_OF_STRING, text, at)
            if at == size or text[at] != _QUOTE:
                return text[at:]  # Nothing, or a backslash.
            self._in_string = False
            at += 1
        while (at := _end(_SKIPPED, text, at)) < size:
            if text[at] != _QUOTE:
                self._bracket(text[at])
                at += 1
            elif text.startswith(KEY, at):
                after = self._object(text, at + len(KEY), ends=ends)
                if after is None:
                    return text[at:]
                at = after
            elif size - at < len(KEY) and KEY.startswith(text[at:]):
                return text[at:]
            else:
                self._in_string = True
                return text[_end(_REST_OF_STRING, text, at + 1) :]
        return b""

    def _bracket(self, bracket: int) -> None:
        if bracket in _OPENING:
            self._depth += 1
            return
        self._depth -= 1
        if self._depth < self._lowest:
            self._lowest = self._depth
            self._found.pop(self._lowest + _LEVELS + 1, None)

    def _object(self, text: bytes, at: int, *, ends: bool) -> int | None:
        """Take the object after a key. Return where to read on; ``None``: with the next part."""
        value = _TO_OBJECT.match(text, at)
        assert value is not None  # noqa: S101 -- it matches the empty text
        start = value.end()
        if value[1] is None:
            return None if start == len(text) and not ends else start
        end = _end(_SKIPPED, text, start)
        start -= 1
        if text[end : end + 1] == b"}":
            end += 1
            if end - start <= MAX_USAGE_BYTES and self._depth <= self._lowest + _LEVELS:
                self._found[self._depth] = _decoded(text[start:end])
            return end
        # Another key is in it, it is too deep or too long, or it is cut.
        may_be_cut = not ends and len(text) - start < MAX_USAGE_BYTES
        return None if may_be_cut and _ANOTHER_KEY.match(text, end) is None else start


def _decoded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
