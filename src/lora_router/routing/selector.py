"""Kubernetes label selectors, as used in the header ``external-filter`` and by the pod watcher.

The grammar and its rules are those of ``labels.Parse`` in apimachinery. A selector consists of
requirements separated by commas. Each requirement is one of ``key``, ``!key``, ``key=value``,
``key==value``, ``key!=value``, ``key in (a,b)``, ``key notin (a,b)``, ``key>1``, ``key<1``. ``!=``
and ``notin`` also match pods without the key. An empty selector selects everything.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

MAX_LENGTH = 4096
"""Maximum length in characters. A longer header is a mistake or an attack."""
MAX_PREFIX_LENGTH = 253
"""Maximum length of what is before the slash in the key of a label."""

_TOKEN = re.compile(r"[ \t\r\n]*(?:(?P<mark>==|!=|[=!<>(),])|(?P<word>[^\s=!<>(),]+))")
_BLANK = re.compile(r"[ \t\r\n]*\Z")
_NAME_PATTERN = "[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_PREFIX_PATTERN = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
_INTEGER_PATTERN = "[+-]?[0-9]{1,18}"
_NAME = re.compile(_NAME_PATTERN)
_PREFIX = re.compile(_PREFIX_PATTERN)
_INTEGER = re.compile(_INTEGER_PATTERN)


def selector_pattern() -> str:
    """Return the grammar as a regular expression, for the chart, which has no other parser.

    It allows a prefix of any length: Go's regular expressions cannot count it.
    """
    blank = r"[ \t\r\n]"
    key = f"(?:{_PREFIX_PATTERN}/)?{_NAME_PATTERN}"
    value = f"(?:{_NAME_PATTERN})?"
    values = rf"\({blank}*{value}(?:{blank}*,{blank}*{value})*{blank}*\)"
    conditions = (
        f"{blank}*(?:==?|!=){blank}*{value}",
        f"{blank}+(?:not)?in{blank}*{values}",
        f"{blank}*[<>]{blank}*{_INTEGER_PATTERN}",
    )
    requirement = f"(?:!{blank}*{key}|{key}(?:{'|'.join(conditions)})?)"
    return f"{blank}*(?:{requirement}{blank}*(?:,{blank}*{requirement}{blank}*)*)?"


class SelectorError(ValueError):
    """The text is not a label selector.

    The message names the position and is safe to show to clients.
    """


class Operator(Enum):
    """The condition that a requirement places on a label."""

    EXISTS = "exists"
    ABSENT = "!"
    IN = "in"
    NOT_IN = "notin"
    GREATER = ">"
    LESS = "<"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether a pod with these labels meets the requirement."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.EXISTS:
                return value is not None
            case Operator.ABSENT:
                return value is None
            case Operator.IN:
                return value in self.values
            case Operator.NOT_IN:
                return value not in self.values
            case Operator.GREATER | Operator.LESS:
                if value is None or _INTEGER.fullmatch(value) is None:
                    return False
                (bound,) = self.values
                if self.operator is Operator.GREATER:
                    return int(value) > int(bound)
                return int(value) < int(bound)

    def __str__(self) -> str:
        match self.operator:
            case Operator.EXISTS:
                return self.key
            case Operator.ABSENT:
                return f"!{self.key}"
            case Operator.GREATER | Operator.LESS:
                (bound,) = self.values
                return f"{self.key}{self.operator.value}{bound}"
            case Operator.IN | Operator.NOT_IN:
                if len(self.values) == 1:
                    (value,) = self.values
                    equals = "=" if self.operator is Operator.IN else "!="
                    return f"{self.key}{equals}{value}"
                return f"{self.key} {self.operator.value} ({','.join(sorted(self.values))})"


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements that a pod must all meet."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether a pod with these labels is selected."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


def parse_selector(text: str) -> Selector:
    """Return the selector that a text describes.

    Raises:
        SelectorError: The text is not a label selector. The message names the character position
            and what is expected there.
    """
    if len(text) > MAX_LENGTH:
        raise SelectorError(f"it is longer than {MAX_LENGTH} characters")
    return _Parser(text).selector()


class _Parser:
    """A recursive-descent parser over the tokens, with one method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[int, str, bool]] = []
        """Each token's position, its text, and whether it is a word."""
        at = 0
        while not _BLANK.match(text, at):
            match = _TOKEN.match(text, at)
            if match is None:
                raise SelectorError(f"a character is not allowed at position {at + 1}")
            word = match.group("word")
            token = match.group("mark") if word is None else word
            self._tokens.append((match.end() - len(token) + 1, token, word is not None))
            at = match.end()
        self._tokens.append((len(text) + 1, "", False))
        self._next = 0

    def selector(self) -> Selector:
        if self._at_end():
            return Selector()
        requirements = [self._requirement()]
        while not self._at_end():
            self._expect(",")
            requirements.append(self._requirement())
        return Selector(tuple(requirements))

    def _requirement(self) -> Requirement:
        if self._take("!"):
            return Requirement(self._key(), Operator.ABSENT)
        key = self._key()
        position, token, _ = self._tokens[self._next]
        if token in {"", ","}:
            return Requirement(key, Operator.EXISTS)
        self._next += 1
        match token:
            case "=" | "==":
                return Requirement(key, Operator.IN, frozenset((self._value(),)))
            case "!=":
                return Requirement(key, Operator.NOT_IN, frozenset((self._value(),)))
            case "in":
                return Requirement(key, Operator.IN, self._values())
            case "notin":
                return Requirement(key, Operator.NOT_IN, self._values())
            case ">" | "<":
                return Requirement(key, Operator(token), frozenset((self._integer(),)))
        raise SelectorError(
            f"expected one of =, ==, !=, in, notin, >, <, a comma or the end at position {position}"
        )

    def _key(self) -> str:
        position, token, is_word = self._tokens[self._next]
        if not is_word:
            raise SelectorError(f"expected a label key at position {position}")
        self._next += 1
        prefix, slash, name = token.rpartition("/")
        is_prefix = len(prefix) <= MAX_PREFIX_LENGTH and _PREFIX.fullmatch(prefix) is not None
        if _NAME.fullmatch(name) is None or (slash and not is_prefix):
            raise SelectorError(f"invalid label key at position {position}")
        return token

    def _value(self) -> str:
        position, token, is_word = self._tokens[self._next]
        if not is_word:
            if token in {"", ",", ")"}:
                return ""  # `key=` selects the empty value.
            raise SelectorError(f"expected a label value at position {position}")
        self._next += 1
        if _NAME.fullmatch(token) is None:
            raise SelectorError(f"invalid label value at position {position}")
        return token

    def _values(self) -> frozenset[str]:
        self._expect("(")
        values = [self._value()]
        while not self._take(")"):
            self._expect(",")
            values.append(self._value())
        return frozenset(values)

    def _integer(self) -> str:
        position, token, is_word = self._tokens[self._next]
        if not is_word or _INTEGER.fullmatch(token) is None:
            raise SelectorError(f"expected an integer at position {position}")
        self._next += 1
        return token

    def _at_end(self) -> bool:
        return self._next == len(self._tokens) - 1

    def _take(self, mark: str) -> bool:
        _, token, is_word = self._tokens[self._next]
        if is_word or token != mark:
            return False
        self._next += 1
        return True

    def _expect(self, mark: str) -> None:
        if not self._take(mark):
            raise SelectorError(f"expected '{mark}' at position {self._tokens[self._next][0]}")
