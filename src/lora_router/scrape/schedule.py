"""When a pod is read: spread over the interval, so that no moment has more to do than another."""

import hashlib
import math
from collections.abc import Callable


class ScrapeSchedule:
    """One pod's: once in each interval, at a time in it that is the pod's own.

    That time is the same in every process and run, and as good as random from pod to pod.
    """

    __slots__ = ("_clock", "_interval", "_last", "_phase")

    def __init__(self, pod: str, interval: float, clock: Callable[[], float]) -> None:
        digest = hashlib.blake2b(pod.encode(), digest_size=4).digest()
        self._phase = int.from_bytes(digest) / 2**32 * interval
        self._interval = interval
        self._clock = clock
        self._last = -math.inf

    def wait(self) -> float:
        """Return the seconds until the next turn. ScrapeSchedule that were missed are left out."""
        now = self._clock()
        # A timer can go off a little early, and the turn that it was for must not come again.
        after = max(now, self._last + self._interval / 2)
        self._last = ((after - self._phase) // self._interval + 1) * self._interval + self._phase
        return self._last - now
