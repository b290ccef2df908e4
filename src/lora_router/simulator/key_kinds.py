"""Kinds of values that a key of a scenario takes: each checks a value and describes what it allows.

Every number has bounds, so that a file cannot ask for a simulation that never ends. A boolean is
not a number here, nor is a number in quotes.
"""

from dataclasses import dataclass
from datetime import date
from math import isfinite
from typing import Generic, Protocol, TypeVar

Value = TypeVar("Value")
Read_co = TypeVar("Read_co", covariant=True)

_LONGEST_SHOWN = 60
"""Characters of a value that an error repeats."""
_MOST_ITEMS = 10_000
"""Items of a list: one for each pod of the largest fleet."""


class WrongValueError(ValueError):
    """A value is not allowed. The message says what is; ``key`` says where the value is."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key

    def inside(self, key: str) -> "WrongValueError":
        """Return the same error, with the key of the surrounding value in front of its own."""
        joint = "." if self.key and not self.key.startswith("[") else ""
        return WrongValueError(str(self), f"{key}{joint}{self.key}")


class Kind(Protocol[Read_co]):
    """A kind of value. ``str(kind)`` completes the sentence "must be …"."""

    def read(self, value: object) -> Read_co:
        """Return the value, converted.

        Raises:
            WrongValueError: The value is not allowed.
        """
        ...


def refuse(kind: object, value: object) -> WrongValueError:
    """Return the error for a value that a kind does not allow."""
    hint = ""
    if isinstance(value, str) and "number" in str(kind) and _is_number(value):
        hint = ", which YAML reads as text: write it in digits, without quotes"
    return WrongValueError(f"must be {kind}, not {shown(value)}{hint}")


def shown(value: object) -> str:
    """Return a value as an error repeats it: as YAML and JSON have it, and shortened."""
    try:
        text = _written(value)
    except ValueError:  # Python refuses to print integers of more than 4,300 digits.
        return "an integer of thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"


def _written(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value[:_LONGEST_SHOWN]))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_written(k)}: {_written(v)}' for k, v in value.items())}}}"
    return value.isoformat() if isinstance(value, date) else repr(value)


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer within bounds."""

    least: int
    most: int

    def __str__(self) -> str:
        return f"a whole number from {self.least:,} to {self.most:,}"

    def read(self, value: object) -> int:
        """Return the value."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise refuse(self, value)
        if not self.least <= value <= self.most:
            raise refuse(self, value)
        return int(value)


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number within bounds."""

    least: float
    most: float

    def __str__(self) -> str:
        return f"a number from {self.least:,g} to {self.most:,.10g}"

    def read(self, value: object) -> float:
        """Return the value as a float."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refuse(self, value)
        # The bounds come first: an integer of 400 digits has no float.
        if not self.least <= value <= self.most or not isfinite(value):
            raise refuse(self, value)
        return float(value)


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def __str__(self) -> str:
        return "true or false"

    def read(self, value: object) -> bool:
        """Return the value."""
        if not isinstance(value, bool):
            raise refuse(self, value)
        return value


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text."""

    longest: int

    def __str__(self) -> str:
        return f"a line of text of 1 to {self.longest:,} characters"

    def read(self, value: object) -> str:
        """Return the value."""
        if not isinstance(value, str) or not 1 <= len(value) <= self.longest:
            raise refuse(self, value)
        if not value.isprintable():
            raise refuse(self, value)
        return value


@dataclass(frozen=True, slots=True)
class WordOf:
    """One of some words."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.words[:-1])} or {self.words[-1]}"

    def read(self, value: object) -> str:
        """Return the word."""
        if not isinstance(value, str) or value not in self.words:
            raise refuse(self, value)
        return value


@dataclass(frozen=True, slots=True)
class WordOr(Generic[Value]):
    """One of some words, or a value of another kind."""

    words: tuple[str, ...]
    other: Kind[Value]

    def __str__(self) -> str:
        return f"{', '.join(self.words)}, or {self.other}"

    def read(self, value: object) -> str | Value:
        """Return the word, or what the other kind reads."""
        if isinstance(value, str):
            if value not in self.words:
                raise refuse(self, value)
            return value
        try:
            return self.other.read(value)
        except WrongValueError as error:
            if error.key:
                raise
            raise refuse(self, value) from None


@dataclass(frozen=True, slots=True)
class NumberOrNames:
    """A number of adapters, or a list of their names."""

    most: int

    def __str__(self) -> str:
        return f"{Whole(0, self.most)}, or a list of different names"

    def read(self, value: object) -> int | tuple[str, ...]:
        """Return the number, or the names."""
        if isinstance(value, list):
            names = ListOf(Text(256)).read(value)
            if len(set(names)) < len(names):
                raise refuse(self, value)
            return names
        if isinstance(value, bool) or not isinstance(value, int):
            raise refuse(self, value)
        return Whole(0, self.most).read(value)


@dataclass(frozen=True, slots=True)
class Range:
    """Two whole numbers: the smallest and the largest of what is drawn evenly between them."""

    bounds: Whole

    def __str__(self) -> str:
        return f"[smallest, largest], each {self.bounds}"

    def read(self, value: object) -> tuple[int, int]:
        """Return both numbers."""
        if not isinstance(value, list) or len(value) != 2:
            raise refuse(self, value)
        least, most = ListOf(self.bounds).read(value)
        if least > most:
            raise WrongValueError(f"the first must not be above the second: {shown(value)}")
        return least, most


@dataclass(frozen=True, slots=True)
class InTurn(Generic[Value]):
    """A value for all pods, or a list of values that the pods take in turn."""

    each: Kind[Value]

    def __str__(self) -> str:
        return f"{self.each}, or a list of such values"

    def read(self, value: object) -> tuple[Value, ...]:
        """Return the values; one for a value that is not a list."""
        if not isinstance(value, list):
            return (self.each.read(value),)
        if not value:
            raise refuse(self, value)
        return ListOf(self.each).read(value)


@dataclass(frozen=True, slots=True)
class ListOf(Generic[Value]):
    """A list."""

    each: Kind[Value]

    def __str__(self) -> str:
        return f"a list, each item {self.each}"

    def read(self, value: object) -> tuple[Value, ...]:
        """Return the items."""
        if not isinstance(value, list):
            raise refuse(self, value)
        if len(value) > _MOST_ITEMS:
            raise WrongValueError(f"must be a list of at most {_MOST_ITEMS:,}, not {len(value):,}")
        items = []
        for number, item in enumerate(value):
            try:
                items.append(self.each.read(item))
            except WrongValueError as error:
                raise error.inside(f"[{number}]") from None
        return tuple(items)
