"""How soon a list or a watch may be repeated, and whether the end of a watch is a failure. No I/O.

An API server, or a proxy before it, may end each watch at once, or answer each one with ``410
Gone``. Whoever repeats them without a pause asks such a server hundreds of times in a second, for
ever. Rules:

- A watch has *lasted* if it ended ``SHORT_SECONDS`` or more after its response began. One that
  ended sooner is a failure, whatever it delivered: events and bookmarks are no success.
- ``410 Gone`` leads to a new list at once if a watch has lasted since the last list, and if the
  ``410 Gone`` before is at least ``GONE_AGAIN_SECONDS`` old. Else it is a failure.
- Each failure is followed by a pause, which doubles with the next one. A watch that lasted makes it
  short again, unless it ended with a failure that costs a list.
"""

import random
import time
from collections.abc import Callable

from lora_router.discovery.kubernetes_api import ApiError

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 15.0
SHORT_SECONDS = 1.0
"""A watch that ends sooner than this after its start is a failure."""
GONE_AGAIN_SECONDS = 30.0
"""A second ``410 Gone`` within this time is a failure: a list may cost seconds of CPU."""


class WatchPace:
    """The pace of one list and its watches."""

    def __init__(
        self,
        watch_seconds: float,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it, before the first list.

        Args:
            watch_seconds: Server-side timeout of a watch. Half of it is long enough to have lasted.
            rng: Source of the jitter, so that replicas do not all retry at the same time.
            clock: Returns seconds, monotonic.
        """
        self._short = min(SHORT_SECONDS, watch_seconds / 2)
        self._rng = rng or random.Random()
        self._clock = clock
        self._longest = FIRST_PAUSE_SECONDS
        self._began: float | None = None
        """When the response of the current watch began."""
        self._lasted_since_list = False
        self._gone_at = float("-inf")
        self.lasted = False
        """Whether the last watch lasted."""

    def listed(self) -> None:
        """Note that a list was read."""
        self._lasted_since_list = False

    def asked(self) -> None:
        """Note that a watch is requested, and has no response yet."""
        self._began, self.lasted = None, False

    def began(self) -> None:
        """Note that the response of a watch began."""
        self._began = self._clock()

    def ended(self) -> None:
        """Note that the watch ended, whatever ended it."""
        if self._began is not None and self._clock() - self._began >= self._short:
            self.lasted = self._lasted_since_list = True

    def check_end(self) -> None:
        """Check a watch that the server ended without an error.

        Raises:
            ApiError: It did not last.
        """
        if not self.lasted:
            raise ApiError("connect", "the server ended the watch immediately")
        self._longest = FIRST_PAUSE_SECONDS

    def may_list_again(self) -> bool:
        """Note ``410 Gone``. Return whether the new list may be read at once."""
        now = self._clock()
        again = now - self._gone_at < GONE_AGAIN_SECONDS
        self._gone_at = now
        return self._lasted_since_list and not again

    def pause_after(self, error: ApiError) -> float:
        """Return the seconds until the next attempt after a failure."""
        if self.lasted and error.cause not in _COST_A_LIST:
            self._longest = FIRST_PAUSE_SECONDS
        self.lasted = False
        seconds = self._longest * self._rng.uniform(0.5, 1.0)
        self._longest = min(2 * self._longest, LONGEST_PAUSE_SECONDS)
        return seconds


_COST_A_LIST = frozenset({"expired", "malformed"})
