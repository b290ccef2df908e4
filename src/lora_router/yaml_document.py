"""The only reader of YAML: bounded, safe, and with a single error type.

It reads the pods file, the settings file and the simulator's scenarios. YAML has many ways to make
a reader fail or run out of memory: numbers with thousands of digits, dates in month 13, unknown
tags, aliases that expand to billions of nodes, deep nesting. Each of them raises
``YamlDocumentError`` with its line.

YAML 1.1 takes ``010`` for 8, ``1:30`` for 90, and ``0x1F`` for 31. Where text is meant, as in
labels and versions, a ``WrittenNumber`` still has what was written.

The document is built from the parser's events, not from a tree of nodes: the limits hold while the
document is read, and a pods file with 20,000 pods takes 0.9 s of CPU instead of 3.7 s with
``yaml.CSafeLoader``. libyaml is used if PyYAML was built with it.
"""

import codecs
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeGuard

import yaml
from yaml.constructor import SafeConstructor
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    StreamEndEvent,
)
from yaml.nodes import ScalarNode
from yaml.reader import ReaderError
from yaml.resolver import Resolver

try:
    from yaml import CSafeLoader as _Parser
except ImportError:  # PyYAML was built without libyaml.
    from yaml import SafeLoader as _Parser  # type: ignore[assignment]

MAX_BYTES = 16 * 1024 * 1024
MAX_NODES = 2_000_000
"""Nodes of a document with its aliases expanded. The pods file of 100,000 pods has as many."""
MAX_DEPTH = 100
"""Levels of lists and mappings inside each other."""
MAX_NUMBER_LENGTH = 100
"""Characters of a number. Python reads long numbers in quadratic time and refuses the longest."""

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_STRING = _TAG + "str"
_SHOWN_CHARACTERS = 40
_BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class YamlDocumentError(ValueError):
    """The document cannot be read. The message gives the line where one is known."""

    def __init__(self, problem: str, line: int | None = None, column: int | None = None) -> None:
        self.line = line
        """Counted from 1. ``None``: the problem has no line, or it is unknown."""
        where = "" if line is None else f"line {line}: "
        if line is not None and column is not None:
            where = f"line {line}, column {column}: "
        super().__init__(where + problem)


class WrittenNumber(int):
    """An integer that was not written in plain decimal digits. ``str`` returns what was written."""

    written: str

    @classmethod
    def of(cls, value: int, written: str) -> Self:
        """Return a number with its text."""
        number = cls(value)
        number.written = written
        return number

    def __repr__(self) -> str:
        return self.written


def is_whole_number(value: object) -> TypeGuard[int]:
    """Return whether a value is an integer, and not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def read_file(path: Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file.

    Named pipes and devices are refused, since reading them can block for ever.

    Raises:
        YamlDocumentError: The file cannot be read, is not a regular file, or is too long.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise YamlDocumentError("cannot be read: it is not a regular file")
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise YamlDocumentError(f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        if isinstance(error, YamlDocumentError):
            raise
        raise YamlDocumentError(f"cannot be read: {error}") from None  # A NUL in the path.
    if len(content) > max_bytes:
        raise YamlDocumentError(f"is longer than {max_bytes} bytes")
    return content


def parse_yaml(content: bytes | str, *, max_bytes: int = MAX_BYTES) -> object:
    """Return the document: ``None``, strings, numbers, booleans, dates, lists and dictionaries.

    Args:
        content: UTF-8 or text; UTF-16 with a byte order mark is accepted too.
        max_bytes: Longest document.

    Raises:
        YamlDocumentError: The content is not YAML, is too large, contains several documents, a
            duplicate key, a key that is a list or a mapping, or a tag of any other type.
    """
    if len(content) > max_bytes:
        raise YamlDocumentError(f"is longer than {max_bytes} bytes")
    text = _decoded(content) if isinstance(content, bytes) else content
    try:
        parser = _Parser(text)
    except ReaderError as error:
        raise _reader_error(error, text) from None
    except UnicodeEncodeError as error:
        raise YamlDocumentError(
            "not YAML: a lone surrogate is not a character", _line_at(text, error.start)
        ) from None
    try:
        return _Builder(parser.get_event).document()
    except ReaderError as error:
        raise _reader_error(error, text) from None
    except yaml.MarkedYAMLError as error:
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise _error_at(error.problem_mark or error.context_mark, f"not YAML: {problem}") from None
    except (yaml.YAMLError, RecursionError, UnicodeError) as error:
        raise YamlDocumentError(f"not YAML: {' '.join(str(error).split())}") from None
    finally:
        parser.dispose()


def _decoded(content: bytes) -> str:
    try:
        return content.decode(_BYTE_ORDER_MARKS.get(content[:2], "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise YamlDocumentError(
            f"not YAML: not {error.encoding}: {error.reason}",
            content.count(b"\n", 0, error.start) + 1,
        ) from None


class _Open:
    """A list or mapping that has not ended."""

    __slots__ = ("anchor", "before", "key", "key_mark", "merged", "value")

    def __init__(self, value: list[object] | dict[object, object], before: int) -> None:
        self.value = value
        self.before = before
        """Number of nodes before it."""
        self.anchor: str | None = None
        self.key: object = _NO_KEY
        self.key_mark: object = None
        self.merged: dict[object, object] | None = None
        """Keys that ``<<`` adds. The mapping's own keys take precedence."""


_NO_KEY = object()
_MERGE_KEY = object()


class _Builder:
    """Builds a document from events, without recursion."""

    def __init__(self, get_event: Callable[[], Event | None]) -> None:
        self._get_event = get_event
        self._nodes = 0
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[object, int]] = {}
        """By name: the value and the number of its nodes. Contains completed values only."""

    def document(self) -> object:
        """Return the document; ``None`` if the stream is empty."""
        self._next_event()  # The stream begins.
        if isinstance(self._next_event(), StreamEndEvent):
            return None
        result = self._node(self._next_event())
        while self._open:
            event = self._next_event()
            result = self._node(event) if isinstance(event, NodeEvent) else self._end()
        self._next_event()  # The document ends.
        if isinstance(event := self._next_event(), DocumentStartEvent):
            raise _error_at(event.start_mark, "more than one document")
        return result

    def _next_event(self) -> Event:
        event = self._get_event()
        assert event is not None  # noqa: S101 -- only the end of the stream is followed by none
        return event

    def _node(self, event: Event) -> object:
        """Read a scalar or an alias, or begin a list or mapping. Returns the value."""
        self._nodes += 1
        value: object
        if isinstance(event, ScalarEvent):
            value = self._scalar(event)
            if event.anchor is not None:
                self._anchors[event.anchor] = (value, 1)
        elif isinstance(event, AliasEvent):
            value = self._alias(event)
        else:
            assert isinstance(event, CollectionStartEvent)  # noqa: S101 -- there are no other nodes
            return self._begin(event)
        if self._nodes > MAX_NODES:
            raise _too_many(event)
        if self._open:
            self._add(value, event)
        return value

    def _begin(self, event: CollectionStartEvent) -> object:
        is_mapping = isinstance(event, MappingStartEvent)
        if event.tag not in (None, "!", _TAG + ("map" if is_mapping else "seq")):
            raise _unknown_tag(event)
        if len(self._open) >= MAX_DEPTH:
            raise _error_at(event.start_mark, f"not YAML: nested more than {MAX_DEPTH} levels deep")
        if self._open:
            parent = self._open[-1]
            if isinstance(parent.value, dict) and parent.key is _NO_KEY:
                raise _error_at(event.start_mark, "a key must not be a list or a mapping")
        value: dict[object, object] | list[object] = {} if is_mapping else []
        opened = _Open(value, self._nodes)
        opened.anchor = event.anchor
        self._open.append(opened)
        return value

    def _end(self) -> object:
        ended = self._open.pop()
        value = ended.value
        if ended.merged is not None:
            assert isinstance(value, dict)  # noqa: S101 -- only mappings have keys
            for key, merged in ended.merged.items():
                value.setdefault(key, merged)
        if ended.anchor is not None:
            self._anchors[ended.anchor] = (value, self._nodes - ended.before + 1)
        if self._open:
            self._add(value, None)
        return value

    def _add(self, value: object, event: Event | None) -> None:
        """Put a value into the innermost list or mapping."""
        parent = self._open[-1]
        target = parent.value
        if isinstance(target, list):
            target.append(value)
            return
        if parent.key is _NO_KEY:
            mark = None if event is None else event.start_mark
            if isinstance(value, list | dict):
                raise _error_at(mark, "a key must not be a list or a mapping")
            if value in target:
                raise _error_at(mark, f"duplicate key {_shown(value)}")
            parent.key, parent.key_mark = value, mark
            return
        key, parent.key = parent.key, _NO_KEY
        if key is _MERGE_KEY:
            self._merge(parent, value)
        else:
            target[key] = value

    @staticmethod
    def _merge(parent: _Open, value: object) -> None:
        mappings = value if isinstance(value, list) else [value]
        merged = parent.merged = {} if parent.merged is None else parent.merged
        for mapping in mappings:
            if not isinstance(mapping, dict):
                raise _error_at(parent.key_mark, "'<<' needs a mapping, or a list of mappings")
            for key, item in mapping.items():
                merged.setdefault(key, item)

    def _alias(self, event: AliasEvent) -> object:
        anchor = str(event.anchor)
        known = self._anchors.get(anchor)
        if known is None:
            inside = any(opened.anchor == anchor for opened in self._open)
            why = "refers to itself" if inside else "has no anchor before it"
            raise _error_at(event.start_mark, f"the alias *{_shown_text(anchor)} {why}")
        value, nodes = known
        # Each use counts in full, since code that walks the document visits each use in full.
        self._nodes += nodes - 1
        return value

    def _scalar(self, event: ScalarEvent) -> object:
        text, tag = event.value, event.tag
        if tag in (None, "!") and event.implicit[0]:
            for tag, pattern in _RESOLVERS.get(text[:1], ()):  # noqa: B007 -- the last one counts
                if pattern.match(text) is not None:
                    break
            else:
                return text
        elif tag in (None, "!", _STRING):
            return text
        if tag == _MERGE:
            parent = self._open[-1] if self._open else None
            if parent is not None and isinstance(parent.value, dict) and parent.key is _NO_KEY:
                return _MERGE_KEY
            return text
        read = _READERS.get(tag)
        if read is None:
            if tag == _TAG + "value":  # YAML 1.1 reserves a plain "=". Treat it as a string.
                return text
            raise _unknown_tag(event)
        if len(text) > MAX_NUMBER_LENGTH:
            raise _error_at(
                event.start_mark,
                f"{_shown(text)} is longer than {MAX_NUMBER_LENGTH} characters; quote it if it is "
                "text",
            )
        try:
            value = read(_constructor, ScalarNode(tag, text))
            if type(value) is int and str(value) != text:
                return WrittenNumber.of(value, text)
            return value
        except Exception as error:
            # PyYAML raises ValueError, KeyError, AttributeError and others for bad scalars.
            why = f": {error}" if type(error) is ValueError else ""
            raise _error_at(
                event.start_mark,
                f"{_shown(text)} is not a valid {tag.removeprefix(_TAG)}{why}; quote it if it is "
                "text",
            ) from None


_constructor = SafeConstructor()
_READERS: dict[str, Callable[[SafeConstructor, ScalarNode], object]] = {
    _TAG + "null": SafeConstructor.construct_yaml_null,
    _TAG + "bool": SafeConstructor.construct_yaml_bool,
    _TAG + "int": SafeConstructor.construct_yaml_int,
    _TAG + "float": SafeConstructor.construct_yaml_float,
    _TAG + "timestamp": SafeConstructor.construct_yaml_timestamp,
}
_RESOLVERS = Resolver.yaml_implicit_resolvers
"""By first character: pairs of a tag and the pattern of its plain scalars."""


def _error_at(mark: object, problem: str) -> YamlDocumentError:
    line, column = getattr(mark, "line", None), getattr(mark, "column", None)
    return YamlDocumentError(
        problem,
        line + 1 if isinstance(line, int) else None,
        column + 1 if isinstance(column, int) else None,
    )


def _too_many(event: Event) -> YamlDocumentError:
    return _error_at(
        event.start_mark, f"more than {MAX_NODES} values, counting each use of an alias in full"
    )


def _unknown_tag(event: ScalarEvent | CollectionStartEvent) -> YamlDocumentError:
    tag = str(event.tag).replace(_TAG, "!!", 1)
    return _error_at(event.start_mark, f"the tag {_shown_text(tag)} is not supported")


def _reader_error(error: ReaderError, text: str) -> YamlDocumentError:
    position = error.position if isinstance(error.position, int) else 0
    character = error.character if isinstance(error.character, int) else ord(str(error.character))
    problem = f"not YAML: the character U+{character:04X} is not allowed: {error.reason}"
    return YamlDocumentError(problem, _line_at(text, position))


def _line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _shown(value: object) -> str:
    return repr(value if not isinstance(value, str) else _shown_text(value))


def _shown_text(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
