"""Which requests were refused early and would still wait, had they not been refused.

Each one counts for as long as it would have waited, by the pace of the moment at which it was
refused, and for ``MOST_SECONDS`` at most. The pace of a fleet that stalls is no estimate of the
pace after that: a thousand requests that were refused meanwhile would count for hours.

Those of a higher priority would be served before a request, and those of a lower one after it. Of
those of the same priority, each tenant is served once in a round.
"""

from collections.abc import Hashable, Mapping
from heapq import heappop, heappush
from itertools import count

from lora_router.routing.counts import change
from lora_router.routing.counts_by_priority import CountsByPriority

MOST_SECONDS = 20.0
"""A lower value hides how far a lasting overload exceeds the capacity. With a higher value, a fleet
that stalled is thought to be overloaded for longer."""
MOST_COUNTED = 4096
"""How many are counted. In place of the one that would be served first, the next one is."""
_DROPPED = 128
"""How many that wait no more are dropped at once. The others still count, until they are dropped at
the next times."""

_Entry = tuple[float, int, Hashable, int, int]
"""Until when one would wait, a number, what it would wait with, its priority, and its tenant."""

_NONE: Mapping[int, int] = {}


class RefusedEarly:
    """Those that were refused in one line."""

    __slots__ = ("_by_key", "_counts", "_heap", "_latest", "_numbers", "_tenants")

    def __init__(self) -> None:
        self._by_key: dict[Hashable, _Entry] = {}
        self._heap: list[_Entry] = []
        """Those that would be served first are first. Entries of those that were served stay."""
        self._counts = CountsByPriority()
        self._tenants: dict[int, dict[int, int]] = {}
        """By priority, how many each tenant has."""
        self._latest = 0.0
        """Until when the last one would wait."""
        self._numbers = count()

    def count(self, now: float, priority: int, rounds: int | None = None) -> int:
        """Return how many would still wait that are served before a request.

        Args:
            now: The time.
            priority: Its priority. All of a higher one are served before it.
            rounds: In which round of its tenant it is served. Each tenant is served once in a
                round. ``None``: all of its priority are served before it.
        """
        self._drop(now)
        found = self._counts.at_least(priority)
        if rounds is None:
            return found
        equal = self._counts.of(priority)
        return found - equal + min(equal, rounds * len(self._tenants.get(priority, ())))

    def of_tenant(self, priority: int, tenant: int) -> int:
        """Return how many of a priority and a tenant would still wait."""
        return self._tenants.get(priority, _NONE).get(tenant, 0)

    def add(
        self, key: Hashable, priority: int, now: float, seconds: float, tenant: int = 0
    ) -> bool:
        """Count one that is refused.

        Args:
            key: What it would wait with, which counts once, with the highest priority.
            priority: Its priority.
            now: The time.
            seconds: How long it would probably wait.
            tenant: Whose it is, as a hash; 0: nobody's in particular.

        Returns:
            Whether it did not count yet, or with a lower priority.
        """
        self._drop(now)
        known = self._by_key.get(key)
        if known is not None and known[0] > now and known[3] >= priority:
            return False
        self.served(key)
        if len(self._heap) >= MOST_COUNTED:
            self._drop_first()
        entry = now + min(seconds, MOST_SECONDS), next(self._numbers), key, priority, tenant
        self._by_key[key] = entry
        self._change(priority, tenant, 1)
        heappush(self._heap, entry)
        self._latest = max(self._latest, entry[0])
        return True

    def served(self, key: Hashable) -> None:
        """Count those no more that would have been served with another one."""
        entry = self._by_key.pop(key, None)
        if entry is not None:
            self._change(entry[3], entry[4], -1)

    def _change(self, priority: int, tenant: int, by: int) -> None:
        self._counts.change(priority, by)
        tenants = self._tenants.setdefault(priority, {})
        change(tenants, tenant, by)
        if not tenants:
            del self._tenants[priority]

    def _drop(self, now: float) -> None:
        """Drop those that would wait no more."""
        heap = self._heap
        if not heap or heap[0][0] > now:
            return
        if self._latest <= now:
            heap.clear()
            self._by_key.clear()
            self._counts.clear()
            self._tenants.clear()
        for _ in range(_DROPPED):
            if not heap or heap[0][0] > now:
                break
            self._drop_first()

    def _drop_first(self) -> None:
        entry = heappop(self._heap)
        if self._by_key.get(entry[2]) is entry:
            self.served(entry[2])
