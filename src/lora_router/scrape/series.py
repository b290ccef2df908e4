"""Finds the series of a metrics page that routing needs, in one pass and mostly without a parser.

A vLLM page has 50 to 60 KB, of which a handful of lines matter. One regular expression scans the
page once and finds those lines. The text before a value is the same from scrape to scrape, so its
labels are cached. A line that does not have the simplest form (an escape, a time stamp, a value
that is more than a number) is read by the official Prometheus parser, which therefore decides what
is well formed everywhere.

The cost of reading a page is bounded, whatever it contains.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lora_router.scrape.labels import LabelCache, plain_labels

MAX_LINES = 40_000
"""Lines of a page. vLLM's has about 600, plus one for each combination of adapters that ever ran
together."""
MAX_SERIES = 10_000
"""Series of one metric whose labels are read."""
MAX_PARSED_SERIES = 500
"""Series of one metric that are read by the official parser, which takes about 50 µs for each."""
MAX_LABELS_BYTES = 64 * 1024
_SMALL_PAGE_BYTES = 512 * 1024
"""Lines of smaller pages are not counted: they cannot contain ``MAX_LINES`` series."""

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
        # `re` searches for the common prefix of all names. The lookahead excludes metrics whose
        # names are longer. Label values may contain braces; the text after the labels does not.
        wanted = "|".join(map(re.escape, names))
        pattern = rf"\n(({wanted})(?=[{{ \t])(?:[^\n]*\}})?)([^\n]*)"
        self._pattern = re.compile(pattern.encode())

    def first(self, page: bytes) -> Line | None:
        """Return the first line, if there is one. ``page`` must start with a line end."""
        found = self._pattern.search(page)
        return (found[1], found[2], found[3]) if found is not None else None

    def all(self, page: bytes) -> dict[bytes, list[Line]]:
        """Return the lines by metric name. ``page`` must start with a line end.

        Raises:
            PageTooLargeError: The page has too many lines.
        """
        if len(page) > _SMALL_PAGE_BYTES and page.count(b"\n") > MAX_LINES:
            raise PageTooLargeError(f"the page has more than {MAX_LINES} lines")
        lines: dict[bytes, list[Line]] = {}
        for line in self._pattern.findall(page):
            lines.setdefault(line[1], []).append(line)
        return lines


def read_values(lines: Iterable[Line]) -> list[float]:
    """Return the values, without reading the labels.

    Raises:
        ExpositionError: A value is not a number.
    """
    try:
        return [float(line[2]) for line in lines]
    except ValueError:
        return [_value(line) for line in lines]


def read_series(lines: Sequence[Line]) -> list[Series]:
    """Return labels and values.

    Raises:
        ExpositionError: A line is malformed.
        PageTooLargeError: There are too many lines, one is too long, or too many need the parser.
    """
    if len(lines) > MAX_SERIES:
        raise PageTooLargeError(f"the page has more than {MAX_SERIES} series of one metric")
    series = []
    parsed = 0
    for line in lines:
        head, name, tail = line
        labels = _cache.get(head, _UNKNOWN)
        if labels is _UNKNOWN:
            if len(head) > MAX_LABELS_BYTES:
                raise PageTooLargeError(f"the page has a line with {len(head)} bytes of labels")
            labels = plain_labels(head, name)
            if labels is None:
                parsed = _one_more(parsed)
                labels = _parsed_labels(head, name)
            _cache.put(head, labels)
        # Python accepts "1_0" as a number; the official parser does not.
        if labels is not None and b"_" not in tail:
            try:
                series.append((labels, float(tail)))
                continue
            except ValueError:
                pass
        parsed = _one_more(parsed)
        series += [
            (sample.labels, sample.value) for sample in _parse(line) if sample.name == name.decode()
        ]
    return series


def _one_more(parsed: int) -> int:
    """Count a line that needs the official parser."""
    if parsed >= MAX_PARSED_SERIES:
        raise PageTooLargeError(f"the page has more than {MAX_PARSED_SERIES} unusual lines")
    return parsed + 1


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
