"""Which tenant has most requests waiting, among those of one priority.

If no further request may wait, the tenant with the most gives way. So a burst of one tenant cannot
keep the others out. Each change costs the same however many wait.
"""

from lora_router.routing.waiting_queue import Held, Queue


class WaitingTenants:
    """The queues and requests of each tenant that wait with one priority."""

    __slots__ = ("_by_count", "_counts", "_most", "_queues")

    def __init__(self) -> None:
        self._queues: dict[int, dict[Queue, None]] = {}
        """The queues of each tenant, in the order in which they were opened."""
        self._counts: dict[int, int] = {}
        """The requests of each tenant."""
        self._by_count: dict[int, dict[int, None]] = {}
        """The tenants with each number of requests, those that have it for longest first."""
        self._most = 0
        """The highest number of requests of a tenant."""

    def __len__(self) -> int:
        return len(self._queues)

    def count(self, tenant: int) -> int:
        """Return how many requests of a tenant wait."""
        return self._counts.get(tenant, 0)

    @property
    def most(self) -> int:
        """How many requests wait of the tenant that has the most."""
        return self._most

    def open(self, queue: Queue) -> None:
        """Add a queue, which has no requests yet."""
        self._queues.setdefault(queue.question.tenant, {})[queue] = None

    def close(self, queue: Queue) -> None:
        """Remove a queue, which has no requests any more."""
        tenant = queue.question.tenant
        queues = self._queues[tenant]
        del queues[queue]
        if not queues:
            del self._queues[tenant]

    def add(self, tenant: int) -> None:
        """Count a request of a tenant."""
        count = self._move(tenant, 1)
        self._most = max(self._most, count)

    def remove(self, tenant: int) -> None:
        """Count a request of a tenant no more."""
        self._move(tenant, -1)
        if self._most not in self._by_count:
            self._most -= 1

    def last(self) -> Held:
        """Return the request that came last of the tenant with the most, in its last queue."""
        tenant = next(iter(self._by_count[self._most]))
        return next(reversed(next(reversed(self._queues[tenant])).requests))

    def _move(self, tenant: int, by: int) -> int:
        before = self._counts.get(tenant, 0)
        after = before + by
        if before:
            equal = self._by_count[before]
            del equal[tenant]
            if not equal:
                del self._by_count[before]
        if after:
            self._counts[tenant] = after
            self._by_count.setdefault(after, {})[tenant] = None
        else:
            del self._counts[tenant]
        return after
