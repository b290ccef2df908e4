"""Finds the series of a metrics page that routing needs, in one pass and mostly without a parser.

A vLLM page has 50 to 60 KB, of which a handful of lines matter. One regular expression scans the
page once and finds those lines. The text before a value is the same from scrape to scrape, so its
labels are cached. A line that does not have the simplest form (an escape, a time stamp, a value
that is more than a number) is read by the official Prometheus parser, which therefore decides what
is well formed everywhere.

The cost of reading a page is bounded, whatever it contains.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lora_router.scrape.labels import LabelCache, plain_labels
from lora_router.steps import Steps

MAX_LINES = 40_000
"""Lines of a page. vLLM's has about 600, plus one for each combination of adapters that ever ran
together."""
MAX_LINE_BYTES = 64 * 1024
"""Length of a line, whether it is read or not."""
MAX_LABELS = 100
"""Labels of a series that is read."""
MAX_LABELS_BYTES = 32 * 1024
"""Their length."""
MAX_VALUE_BYTES = 8 * 1024
"""Length of the value of a series that is read, with what follows it."""
MAX_PARSED_LINE_BYTES = 2 * 1024
"""Length of a line that is read by the official parser, which takes up to 1.5 µs for a byte."""
MAX_PARSED_BYTES = 64 * 1024
"""Length of all lines of a page that are read by the official parser."""

_FIRST_STEP_BYTES = 64 * 1024
"""Part of a page that is searched in the first step. Most pages need no other."""
_STEP_BYTES = 16 * 1024
"""Part of a page that is searched in another step, and the labels that are read in one step."""
_SERIES_BYTES = 128
"""What reading a series costs beside its labels, as a number of bytes that are read."""
_CACHED_BYTES = 32
"""The same for a series whose labels are cached."""
_PARSED_FACTOR = 32
"""How many times longer the official parser takes for a byte."""

_UNKNOWN: Mapping[str, str] = {}
_cache = LabelCache(16 * 1024 * 1024)

Line = tuple[bytes, bytes, bytes]
"""The parts of a line: the text up to the end of the labels, the metric's name, and the rest."""

Series = tuple[Mapping[str, str], float]
"""Labels and value."""


class ExpositionError(ValueError):
    """The page cannot be read. The message quotes at most the start of a line."""


class PageTooLargeError(ExpositionError):
    """Reading the page would take too long."""


class SeriesFinder:
    """Finds all lines of some metrics."""

    __slots__ = ("_pattern",)

    def __init__(self, names: Collection[str]) -> None:
        # The lookahead excludes metrics whose names are longer. Label values may contain braces;
        # the text after the labels does not.
        pattern = rf"\n(({_one_of(tuple(names))})(?=[{{ \t])(?:[^\n]*\}})?)([^\n]*)"
        self._pattern = re.compile(pattern.encode())

    def first(self, page: bytes, start: int, end: int) -> Line | None:
        """Return the first line of a part, if there is one."""
        found = self._pattern.search(page, start, end)
        return (found[1], found[2], found[3]) if found is not None else None

    def all(self, page: bytes, start: int, end: int) -> list[Line]:
        """Return the lines of a part."""
        return self._pattern.findall(page, start, end)


def parts(page: bytes) -> Iterator[tuple[int, int]]:
    """Yield the parts of a page: each starts with a line end and contains whole lines.

    Args:
        page: A page that starts with a line end.

    Raises:
        PageTooLargeError: The page has too many lines, or one is too long.
    """
    start, length, count = 0, len(page), 0
    step = _FIRST_STEP_BYTES
    while start < length:
        end, latest = length, start + step
        if latest < length:
            end = page.find(b"\n", latest, latest + MAX_LINE_BYTES)
            if end < 0:
                end = length
                if length - latest > MAX_LINE_BYTES:
                    raise PageTooLargeError(
                        f"the page has a line with more than {MAX_LINE_BYTES} bytes"
                    )
            count += page.count(b"\n", start, end)
            if count > MAX_LINES:
                raise PageTooLargeError(f"the page has more than {MAX_LINES} lines")
        yield start, end
        start, step = end, _STEP_BYTES


def read_values(lines: Sequence[Line]) -> list[float]:
    """Return the values, without reading the labels.

    Raises:
        ExpositionError: A value is not a number.
        PageTooLargeError: A value is too long.
    """
    if max([len(line[2]) for line in lines], default=0) > MAX_VALUE_BYTES:
        raise _long_value()
    try:
        return [float(line[2]) for line in lines]
    except ValueError:
        return [_value(line) for line in lines]


class SeriesReader:
    """Reads the series of one page."""

    __slots__ = ("_cost", "_parsed_bytes")

    def __init__(self) -> None:
        self._parsed_bytes = 0
        self._cost = 0
        """The work of the current step, as a number of bytes that are read."""

    def read(self, lines: Sequence[Line]) -> Steps[list[Series]]:
        """Return labels and values.

        Raises:
            ExpositionError: A line is malformed.
            PageTooLargeError: A line is too long, or too many need the parser.
        """
        series = []
        for line in lines:
            head, name, tail = line
            if len(tail) > MAX_VALUE_BYTES:
                raise _long_value()
            self._cost += _CACHED_BYTES + len(tail)
            labels = _cache.get(head, _UNKNOWN)
            if labels is _UNKNOWN:
                labels = self._labels(head, name)
                _cache.put(head, labels)
            value = _plain_value(tail) if labels is not None else None
            if labels is not None and value is not None:
                series.append((labels, value))
            else:
                self._allow_parser(len(head) + len(tail))
                samples = [each for each in _parse(line) if each.name == name.decode()]
                series += [(sample.labels, sample.value) for sample in samples]
            if self._cost >= _STEP_BYTES:
                self._cost = 0
                yield
        return series

    def _labels(self, head: bytes, name: bytes) -> Mapping[str, str] | None:
        """Return labels that are not cached, or ``None`` if only the parser can read them."""
        if len(head) > MAX_LABELS_BYTES:
            raise PageTooLargeError(f"the page has a line with {len(head)} bytes of labels")
        if head.count(b'="') > MAX_LABELS:
            raise PageTooLargeError(f"the page has a line with more than {MAX_LABELS} labels")
        self._cost += _SERIES_BYTES + len(head)
        labels = plain_labels(head, name)
        if labels is None:
            self._allow_parser(len(head))
            labels = _parsed_labels(head, name)
        return labels

    def _allow_parser(self, length: int) -> None:
        if length > MAX_PARSED_LINE_BYTES:
            raise PageTooLargeError(f"the page has an unusual line with {length} bytes")
        self._parsed_bytes += length
        self._cost += length * _PARSED_FACTOR
        if self._parsed_bytes > MAX_PARSED_BYTES:
            raise PageTooLargeError(
                f"the page has more than {MAX_PARSED_BYTES} bytes of unusual lines"
            )


def _one_of(names: Sequence[str]) -> str:
    """Return a pattern of names in which what several of them begin with stands once.

    `re` tries alternatives one after the other, except for what all of them begin with.
    """
    length, (first, last) = 0, (min(names), max(names))
    while first[length : length + 1] == last[length : length + 1] != "":
        length += 1
    start = first[:length]
    if first == last:
        return re.escape(start)
    rests: dict[str, list[str]] = {}
    for name in names:
        rests.setdefault(name[length : length + 1], []).append(name[length:])
    return f"{re.escape(start)}(?:{'|'.join(map(_one_of, rests.values()))})"


def _long_value() -> PageTooLargeError:
    return PageTooLargeError(f"the page has a value with more than {MAX_VALUE_BYTES} bytes")


def _plain_value(tail: bytes) -> float | None:
    """Return the value of a line, or ``None`` if the official parser has to read it."""
    # Python accepts "1_0" as a number; the official parser does not.
    if b"_" in tail:
        return None
    try:
        return float(tail)
    except ValueError:
        return None


def _parsed_labels(head: bytes, name: bytes) -> Mapping[str, str] | None:
    """Return the labels, or ``None`` if they cannot be read apart from the value."""
    try:
        (sample,) = _parse((head, name, b" 0"))
    except (ExpositionError, ValueError):
        return None
    plain = sample.name == name.decode() and sample.timestamp is None
    return sample.labels if plain else None


def _parse(line: Line) -> list[Sample]:
    try:
        text = _text(line).decode() + "\n"
        return [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]
    except Exception:
        # The parser has no error type: it raises ValueError, KeyError and others.
        raise _malformed(line) from None


def _value(line: Line) -> float:
    """Return a value that may be followed by a time stamp."""
    words = line[2].split() if line[0].endswith(b"}") else _text(line).split()[1:]
    try:
        return float(words[0])
    except (ValueError, IndexError):
        raise _malformed(line) from None


def _text(line: Line) -> bytes:
    return (line[0] + line[2]).rstrip(b"\r")


def _malformed(line: Line) -> ExpositionError:
    shown = _text(line)[:120].decode("ascii", "backslashreplace")
    return ExpositionError(f"the page has a malformed line: {shown!r}")
