"""Limits how often the same log line is written.

The module imports only ``logging`` and ``time``, so that every layer may use it.
"""

import logging
import time
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import TypeAlias

ExcInfo: TypeAlias = (
    BaseException
    | bool
    | tuple[type[BaseException], BaseException, TracebackType | None]
    | tuple[None, None, None]
    | None
)


SUPPRESSED = " (%d similar lines suppressed)"
"""The end of a line that follows suppressed ones."""


class LogLimit:
    """Writes the first lines of each key at once, up to ``burst`` per interval.

    Further lines are counted, and the next line that is written reports how many were
    suppressed. Keys should name a kind of event ("algorithm failed", a pod), not an occurrence.
    The number of keys is bounded: keys beyond it share one interval, so that an attacker who can
    vary the key can neither fill the log nor the memory.
    """

    def __init__(
        self,
        interval: float = 10.0,
        *,
        burst: int = 1,
        max_keys: int = 256,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a limiter that knows no keys.

        Args:
            interval: Seconds for which ``burst`` lines of one key may be written.
            burst: Lines of one key in an interval.
            max_keys: Keys that are tracked separately.
            clock: Returns seconds, monotonic.
        """
        self._interval = interval
        self._burst = burst
        self._max_keys = max_keys
        self._clock = clock
        self._keys: dict[Hashable, _Key] = {}
        self._other = _Key()

    def allow(self, key: Hashable) -> int | None:
        """Return the number of lines suppressed since the last; ``None``: suppress this one too.

        Call it once for each line. Write the line if the result is not ``None``.
        """
        now = self._clock()
        known = self._keys.get(key)
        if known is None:
            known = self._add(key, now)
        if now >= known.next_at:
            known.next_at = now + self._interval
            known.left = self._burst
        if known.left <= 0:
            known.suppressed += 1
            return None
        known.left -= 1
        suppressed, known.suppressed = known.suppressed, 0
        return suppressed

    def log(
        self,
        log: logging.Logger,
        level: int,
        key: Hashable,
        message: str,
        *args: object,
        exc_info: ExcInfo = None,
    ) -> bool:
        """Write a line, or count it as suppressed. Returns whether it was written.

        Args:
            log: The logger to write to.
            level: ``logging.WARNING`` and the like.
            key: The kind of event that is limited.
            message: The format string.
            args: The arguments of the format string.
            exc_info: As in ``logging``.
        """
        if not log.isEnabledFor(level):
            return False
        suppressed = self.allow(key)
        if suppressed is None:
            return False
        if suppressed:
            message += SUPPRESSED
            args = (*args, suppressed)
        log.log(level, message, *args, exc_info=exc_info, stacklevel=2)
        return True

    def _add(self, key: Hashable, now: float) -> "_Key":
        if len(self._keys) >= self._max_keys:
            self._evict_expired(now)
            if len(self._keys) >= self._max_keys:
                return self._other
        known = self._keys[key] = _Key()
        return known

    def _evict_expired(self, now: float) -> None:
        for key in [key for key, known in self._keys.items() if known.next_at <= now]:
            self._other.suppressed += self._keys.pop(key).suppressed


class _Key:
    """When the next interval begins, how many lines are left in this one, and how many were cut."""

    __slots__ = ("left", "next_at", "suppressed")

    def __init__(self) -> None:
        self.next_at = float("-inf")
        self.left = 0
        self.suppressed = 0
