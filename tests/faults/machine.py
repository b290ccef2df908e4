"""What the machine takes from processes: the time in which they could run and got no core."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

_FRESH_SECONDS = 0.1
"""A reading is used again for so long: it takes half a millisecond."""


def taken_seconds(pids: Iterable[int]) -> float:
    """Return how long these processes have waited for a core, since each of them began, in total.

    Linux counts it (``/proc/PID/schedstat``). A kernel that does not: 0.
    """
    nanoseconds = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                nanoseconds += int((task / "schedstat").read_text().split()[1])
            except (OSError, IndexError):  # It has ended.
                continue
    return nanoseconds / 1e9


class Taken:
    """The seconds that the machine took from some processes, which come and go."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._sum = 0.0
        self._at = 0.0
        self._last: dict[int, float] = {}

    def __call__(self) -> float:
        """Return them since the start of the first process. They never become fewer."""
        if time.monotonic() < self._at + _FRESH_SECONDS:
            return self._sum
        now = {pid: taken_seconds((pid,)) for pid in self._pids()}
        self._sum += sum(max(0.0, now[pid] - self._last.get(pid, 0.0)) for pid in now)
        self._last, self._at = now, time.monotonic()
        return self._sum
