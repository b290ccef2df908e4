"""Which requests were refused early and would still wait, had they not been refused.

Each one counts for as long as it would have waited, by the pace of the moment at which it was
refused, and for ``MOST_SECONDS`` at most. The pace of a fleet that stalls is no estimate of the
pace after that: a thousand requests that were refused meanwhile would count for hours.
"""

from collections.abc import Hashable
from heapq import heappop, heappush
from itertools import count

MOST_SECONDS = 20.0
"""A lower value hides how far a lasting overload exceeds the capacity. With a higher value, a fleet
that stalled is thought to be overloaded for longer."""
MOST_COUNTED = 4096
"""How many are counted. In place of the one that would be served first, the next one is."""
_DROPPED = 128
"""How many that wait no more are dropped at once. The others still count, until they are dropped at
the next times."""

_Entry = tuple[float, int, Hashable]
"""Until when one would wait, a number, and what it would wait with."""


class RefusedEarly:
    """Those that were refused in one line."""

    __slots__ = ("_by_key", "_heap", "_latest", "_numbers")

    def __init__(self) -> None:
        self._by_key: dict[Hashable, _Entry] = {}
        self._heap: list[_Entry] = []
        """Those that would be served first are first. Entries of those that were served stay."""
        self._latest = 0.0
        """Until when the last one would wait."""
        self._numbers = count()

    def count(self, now: float) -> int:
        """Return how many would still wait."""
        heap = self._heap
        if heap and heap[0][0] <= now:
            if self._latest <= now:
                heap.clear()
                self._by_key.clear()
            for _ in range(_DROPPED):
                if not heap or heap[0][0] > now:
                    break
                self._drop_first()
        return len(self._by_key)

    def add(self, key: Hashable, now: float, seconds: float) -> bool:
        """Count one that is refused; return whether it was not counted yet.

        Args:
            key: What it would wait with, which counts once.
            now: The time.
            seconds: How long it would probably wait.
        """
        self.count(now)
        known = self._by_key.get(key)
        if known is not None and known[0] > now:
            return False
        if len(self._heap) >= MOST_COUNTED:
            self._drop_first()
        entry = now + min(seconds, MOST_SECONDS), next(self._numbers), key
        self._by_key[key] = entry
        heappush(self._heap, entry)
        self._latest = max(self._latest, entry[0])
        return True

    def served(self, key: Hashable) -> None:
        """Count those no more that would have been served with another one."""
        self._by_key.pop(key, None)

    def _drop_first(self) -> None:
        entry = heappop(self._heap)
        if self._by_key.get(entry[2]) is entry:
            del self._by_key[entry[2]]
