"""From the series of ``lora_requests_info`` to what a page says of adapters in use and of slots.

vLLM never removes a series, so that there is one for each combination of adapters that ever
occurred, and only the newest describes the present. It is found by its value, a Unix time, and only
its labels are read. The number of slots is the same in all of them, so it is read even if no value
can be believed.

With several API server processes, vLLM merges their pages by adding the values. A series that
several of them wrote then has a sum of Unix times, which is no time, and is ignored. The newest of
the other series may be days old. It describes the present only if it was written lately: while
requests run, a process writes one in each step. Otherwise such a page states slots and names no
adapters: what is in flight is known from routers, as for an engine that names no adapters.
"""

from collections.abc import Mapping

from lora_router.fleet.pod_metrics import LoraActivity
from lora_router.fleet.reading_bounds import MAX_LABEL_ADAPTERS, MAX_NAME_LENGTH, MAX_SLOTS
from lora_router.scrape.series import Line, PageTooLargeError, read_values

_LONGEST_SLOTS = 20
LATEST = 1.5
"""The latest Unix time, as a multiple of the router's own. A sum of two or more is above. The times
of a clock that is days ahead are below, and the newest of them is the newest."""
_FRESH_SECONDS = 60.0
"""Where times are lost, the newest one that is left counts if it is at most this far from the
router's own. A lower value loses the names of pods whose clock differs."""
MOST_PROCESSES = 1000
"""A value above the sum of so many Unix times is none, and says nothing of the page."""


class ActivityLines:
    """The lines of ``lora_requests_info`` on one page, of which the newest is read."""

    __slots__ = ("_first", "_is_merged", "_latest", "_newest", "_time", "_wall_now")

    def __init__(self, wall_now: float) -> None:
        """Create it; ``wall_now``: the current Unix time."""
        self._wall_now = wall_now
        self._latest = LATEST * wall_now
        self._first: Line | None = None
        self._newest: Line | None = None
        self._time = 0.0
        self._is_merged = False

    def add(self, lines: list[Line]) -> None:
        """Add the lines of a part of the page.

        Raises:
            ExpositionError: A value is not a number.
            PageTooLargeError: A value is too long.
        """
        if not lines:
            return
        if self._first is None:
            self._first = lines[0]
        for line, time in zip(lines, read_values(lines), strict=True):
            if time > self._time:
                if time <= self._latest:
                    self._newest, self._time = line, time
                elif time <= MOST_PROCESSES * self._wall_now:
                    self._is_merged = True

    @property
    def line(self) -> Line | None:
        """The line whose labels are read. ``None``: there is none."""
        return self._first if self._newest is None else self._newest

    @property
    def _is_present(self) -> bool:
        """Whether the newest line describes the present."""
        return not self._is_merged or abs(self._time - self._wall_now) <= _FRESH_SECONDS

    def read(self, labels: Mapping[str, str]) -> LoraActivity:
        """Return what the line says, whose labels these are.

        Raises:
            PageTooLargeError: A label has too many names.
        """
        running = _adapters(labels.get("running_lora_adapters", ""))
        waiting = _adapters(labels.get("waiting_lora_adapters", ""))
        if self._newest is None or not self._is_present:
            running = waiting = frozenset()
        return LoraActivity(slots_in(labels.get("max_lora", "")), running, waiting, self._time)


def slots_in(text: str) -> int | None:
    """Return a number of slots, or ``None`` (unknown) for any other text, including ``0``."""
    if len(text) > _LONGEST_SLOTS:
        return None  # Python is slow for long numbers, and refuses the longest.
    try:
        return believed_slots(int(text))
    except ValueError:
        return None


def believed_slots(slots: float) -> int | None:
    """Return a number of slots that can be true, or ``None``."""
    return int(slots) if 1 <= slots <= MAX_SLOTS else None


def _adapters(text: str) -> frozenset[str]:
    """Split a label. Servers join names by ``,`` or ``, ``. An empty label contains no name.

    A name that is too long for a request is left out.

    Raises:
        PageTooLargeError: The label has too many names.
    """
    if text.count(",") >= MAX_LABEL_ADAPTERS:
        raise PageTooLargeError(
            f"the page has a label with more than {MAX_LABEL_ADAPTERS} adapters"
        )
    names = [part.strip() for part in text.split(",")]
    return frozenset(name for name in names if 0 < len(name) <= MAX_NAME_LENGTH)
