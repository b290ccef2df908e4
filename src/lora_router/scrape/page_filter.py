"""Keeps of a long metrics page only the lines that can matter, while the page arrives. No I/O.

vLLM never removes a series of ``lora_requests_info``: its page has one for each combination of
adapters that ever ran together, which is megabytes after a busy hour. Only few of them say
anything, so that hardly any byte of such a page has to be held, and none of the rest is parsed.

What is kept is read by ``exposition``, with the same result, or the same error, as the whole page:

- Of all other metrics that it reads, of any engine, each line is kept, in its order.
- Of the series that ``adapter_activity`` reads, at most four lines are kept: the first, the newest,
  one whose value is a sum of times, and the first whose value cannot be read.
"""

from collections.abc import Sequence
from contextlib import suppress

from lora_router.scrape.adapter_activity import LATEST, MOST_PROCESSES
from lora_router.scrape.engines import PAGES, PROCESS_START
from lora_router.scrape.series import (
    MAX_LINE_BYTES,
    MAX_VALUE_BYTES,
    ExpositionError,
    PageTooLargeError,
    SeriesFinder,
    read_values,
)
from lora_router.steps import Steps, all_at_once

MAX_FILTERED_LINES = 200_000
"""Lines of a page, kept or not."""
MAX_KEPT_BYTES = 4 * 1024 * 1024
"""Length of what is kept of a page."""
_STEP_BYTES = 16 * 1024
"""Part of a page that is searched in one step."""

_LINE_END = b"\n"
_finder = SeriesFinder(
    tuple(
        dict.fromkeys(
            (PROCESS_START, *(name for names in PAGES for name in (*names.identity, *names.all)))
        )
    )
)
_ACTIVITY_NAMES = tuple(names.lora_info for names in PAGES if names.lora_info is not None)


class PageFilter:
    """Filters one page."""

    __slots__ = ("_activities", "_kept", "_kept_bytes", "_lines", "_rest")

    def __init__(self, wall_now: float) -> None:
        """Create it for a page that begins.

        Args:
            wall_now: The Unix time with which the page is read.
        """
        self._activities = [_Activity(name, wall_now) for name in _ACTIVITY_NAMES]
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._lines = 0
        self._rest = _LINE_END
        """What has arrived and has not been searched. It starts with the end of a line."""

    @property
    def held(self) -> int:
        """The number of bytes that are held."""
        return (
            len(self._rest)
            + self._kept_bytes
            + sum(len(line) for each in self._activities for line in each.lines)
        )

    def add(self, data: bytes) -> Steps[None]:
        """Take in what follows.

        Raises:
            PageTooLargeError: A line is too long, or there are too many, or too many matter.
        """
        self._rest += data
        text, start, last = self._rest, 0, self._rest.rfind(_LINE_END)
        while start < last:
            end = text.find(_LINE_END, start + _STEP_BYTES, last)
            if end < 0:
                end = last
            self._search(text[start:end])
            start = end
            yield
        self._rest = text[last:]
        self._check_line(self._rest)

    def finish(self) -> Steps[bytes]:
        """Return a page with what is kept, once the whole page has been added.

        Raises:
            PageTooLargeError: Too many lines matter.
        """
        # The last line may have no end.
        yield from self.add(_LINE_END)
        lines = (line for each in self._activities for line in each.lines)
        return _LINE_END.join((b"".join(self._kept), *lines))

    def _search(self, text: bytes) -> None:
        """Search whole lines. Each starts with the end of the one before."""
        lines = text.split(_LINE_END)
        self._lines += len(lines) - 1
        if self._lines > MAX_FILTERED_LINES:
            raise PageTooLargeError(f"the page has more than {MAX_FILTERED_LINES} lines")
        if len(text) > MAX_LINE_BYTES:
            self._check_line(max(lines, key=len))
        for activity in self._activities:
            if activity.name not in text:
                continue
            starts = activity.starts
            found = [line for line in lines if line.startswith(starts)]
            activity.add(found)
            if len(found) == len(lines) - 1:
                return  # The first one is what is before the first line end.
            lines = [line for line in lines if not line.startswith(starts)]
            text = _LINE_END.join(lines)
        for head, _, tail in _finder.all(text, 0, len(text)):
            self._kept += (_LINE_END, head, tail)
            self._kept_bytes += len(head) + len(tail) + 1
        if self._kept_bytes > MAX_KEPT_BYTES:
            raise PageTooLargeError(
                f"the page has more than {MAX_KEPT_BYTES} bytes of lines that matter"
            )

    def _check_line(self, line: bytes) -> None:
        if len(line) > MAX_LINE_BYTES:
            raise PageTooLargeError(f"the page has a line with more than {MAX_LINE_BYTES} bytes")


class _Activity:
    """The lines of one gauge of adapters and times."""

    __slots__ = ("_latest", "_matter", "_most", "_newest", "name", "starts")

    def __init__(self, name: str, wall_now: float) -> None:
        self.name = name.encode()
        self.starts = tuple(self.name + end for end in (b"{", b" ", b"\t"))
        self._latest = LATEST * wall_now
        self._most = MOST_PROCESSES * wall_now
        self._newest = 0.0
        self._matter: dict[str, bytes] = {}
        """Lines, by why they matter."""

    @property
    def lines(self) -> Sequence[bytes]:
        """The lines that are kept."""
        return tuple(dict.fromkeys(self._matter.values()))

    def add(self, lines: Sequence[bytes]) -> None:
        """Take in some lines."""
        if "unreadable" in self._matter or not lines:
            return  # The page is malformed, whatever follows.
        self._matter.setdefault("first", lines[0])
        times = self._times(lines)
        possible = [time for time in times if time <= self._latest]
        if len(possible) < len(times) and "sum" not in self._matter:
            sums = (time for time in times if self._latest < time <= self._most)
            if (found := next(sums, None)) is not None:
                self._matter["sum"] = lines[times.index(found)]
        newest = max(possible, default=0.0)
        if newest > self._newest:
            self._newest = newest
            self._matter["newest"] = lines[times.index(newest)]

    def _times(self, lines: Sequence[bytes]) -> Sequence[float]:
        """Return the values up to the first that cannot be read."""
        if len(max(lines, key=len)) <= MAX_VALUE_BYTES:
            with suppress(ValueError):
                return [float(line.rpartition(b"}")[2]) for line in lines]
        times: list[float] = []
        for line in lines:
            try:
                times += read_values(_finder.all(_LINE_END + line, 0, len(line) + 1))
            except ExpositionError:
                self._matter["unreadable"] = line
                break
        return times


def filtered(page: bytes, wall_now: float) -> bytes:
    """Return what is kept of a whole page.

    Raises:
        PageTooLargeError: As ``PageFilter``.
    """
    page_filter = PageFilter(wall_now)
    all_at_once(page_filter.add(page))
    return all_at_once(page_filter.finish())
