"""The series of a metrics page that matter, found in one pass and read without a parser.

A vLLM page is 50 to 60 KB, of which a handful of lines matter. One regular expression goes through
the page once, from line to line of the engine's own metrics, and yields those. What stands before
the value is the same from scrape to scrape, so it is read once and remembered. A line that is not
of the plainest form (an escape, a time stamp, a value with more than a number in it) goes through
the official Prometheus parser, so what counts as well formed is the parser's decision everywhere.

The cost of a page is bounded, whatever is on it.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lora_router.scrape.labels import LabelMemory, plain_labels

MAX_LINES = 40_000
"""Lines of a page. A vLLM page has about 600, and one for each combination of adapters that ever
ran together."""
MAX_SERIES = 10_000
"""Series of one metric whose labels are read."""
MAX_PARSED_SERIES = 500
"""Series of one metric that the official parser reads, at some 50 µs each."""
MAX_LABELS_BYTES = 64 * 1024
_SMALL_PAGE_BYTES = 512 * 1024
"""A page of this size has less than ``MAX_LINES`` lines that matter, and need not be counted."""

_UNKNOWN: Mapping[str, str] = {}
_memory = LabelMemory(16 * 1024 * 1024)

Line = tuple[bytes, bytes, bytes]
"""A line in parts: all up to the end of its labels; of that, the metric's name; all the rest."""

Series = tuple[Mapping[str, str], float]
"""Labels and value."""


class ExpositionError(ValueError):
    """The page is not one that can be read; the message says why, shortened."""


class PageTooLargeError(ExpositionError):
    """Reading the page would take too long."""


class SeriesFinder:
    """Finds all the lines of some metrics."""

    __slots__ = ("_pattern",)

    def __init__(self, names: Collection[str]) -> None:
        # What all names begin with is what the search looks for; `re` sees to that itself.
        # A name must end there: another metric's may go on. Label values may hold braces, what
        # follows the labels does not.
        wanted = "|".join(map(re.escape, names))
        pattern = rf"\n(({wanted})(?=[{{ \t])(?:[^\n]*\}})?)([^\n]*)"
        self._pattern = re.compile(pattern.encode())

    def first(self, page: bytes) -> Line | None:
        """Return the first line. ``page`` begins with a line end."""
        found = self._pattern.search(page)
        return (found[1], found[2], found[3]) if found is not None else None

    def all(self, page: bytes) -> dict[bytes, list[Line]]:
        """Return the lines by the metrics' names. ``page`` begins with a line end.

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
    """Return the values, for which the labels are not looked at.

    Raises:
        ExpositionError: One is no number.
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
        labels = _memory.get(head, _UNKNOWN)
        if labels is _UNKNOWN:
            if len(head) > MAX_LABELS_BYTES:
                raise PageTooLargeError(f"the page has a line with {len(head)} bytes of labels")
            labels = plain_labels(head, name)
            if labels is None:
                parsed = _one_more(parsed)
                labels = _parsed_labels(head, name)
            _memory.put(head, labels)
        # Python reads "1_0" as a number, the parser does not.
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
    """Count a line that the official parser reads."""
    if parsed >= MAX_PARSED_SERIES:
        raise PageTooLargeError(f"the page has more than {MAX_PARSED_SERIES} unusual lines")
    return parsed + 1


def _parsed_labels(head: bytes, name: bytes) -> Mapping[str, str] | None:
    """Return the labels if nothing but a value can follow, else ``None``."""
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
        # The parser has no error of its own: by the line, it raises ValueError, KeyError, …
        raise _malformed(line) from None


def _value(line: Line) -> float:
    """Return a value that a time stamp may follow."""
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
