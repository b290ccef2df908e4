"""When a pod is scraped: scrapes are spread evenly over the interval."""

import hashlib
import math
from collections.abc import Callable

READS_PER_SECOND = 400
"""Reads of metrics for which one router aims: about an eighth of a core."""
LONGEST_STRETCH_SECONDS = 1.0
"""The interval to which it stretches a shorter one for that."""


def pace(interval: float, pods: float) -> float:
    """Return the seconds between two scrapes of a pod, by a router that scrapes so many pods."""
    return max(interval, min(pods / READS_PER_SECOND, LONGEST_STRETCH_SECONDS))


class ScrapeSchedule:
    """The schedule of one pod: once in each interval, at an offset derived from the pod's name.

    The offset is the same in every process, and uniformly distributed over the pods.
    """

    __slots__ = ("_clock", "_last", "_offset", "interval")

    def __init__(self, pod: str, interval: float, clock: Callable[[], float]) -> None:
        digest = hashlib.blake2b(pod.encode(), digest_size=4).digest()
        self._offset = int.from_bytes(digest) / 2**32
        """As a part of the interval."""
        self.interval = interval
        self._clock = clock
        self._last = -math.inf

    def wait(self) -> float:
        """Return the seconds until the next scrape. Missed ones are skipped."""
        now, interval = self._clock(), self.interval
        phase = self._offset * interval
        # A timer can fire a little early, and must not repeat the scrape that it was set for.
        after = max(now, self._last + interval / 2)
        self._last = ((after - phase) // interval + 1) * interval + phase
        return self._last - now
