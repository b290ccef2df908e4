"""When a pod is scraped: scrapes are spread evenly over the interval."""

import hashlib
import math
from collections.abc import Callable


class ScrapeSchedule:
    """The schedule of one pod: once in each interval, at an offset derived from the pod's name.

    The offset is the same in every process, and uniformly distributed over the pods.
    """

    __slots__ = ("_clock", "_interval", "_last", "_phase")

    def __init__(self, pod: str, interval: float, clock: Callable[[], float]) -> None:
        digest = hashlib.blake2b(pod.encode(), digest_size=4).digest()
        self._phase = int.from_bytes(digest) / 2**32 * interval
        self._interval = interval
        self._clock = clock
        self._last = -math.inf

    def wait(self) -> float:
        """Return the seconds until the next scrape. Missed ones are skipped."""
        now = self._clock()
        # A timer can fire a little early, and must not repeat the scrape that it was set for.
        after = max(now, self._last + self._interval / 2)
        self._last = ((after - self._phase) // self._interval + 1) * self._interval + self._phase
        return self._last - now
