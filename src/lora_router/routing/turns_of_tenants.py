"""Whose turn it is among tenants: those that were served least lately go first.

Each tenant's requests get *rounds*: the first one that waits the round that is being served now,
the next one the round after that, and so on (start-time fair queueing). So of each round every
tenant is served once, however many requests a tenant has. A tenant that was not served for a while
does not save up rounds. One whose requests left unserved, because their clients did or their time
was up, gets their rounds again.

Without tenants, every request has round 0.
"""

from collections import OrderedDict
from heapq import heappop, heappush

MOST_TENANTS = 1024
"""How many tenants are remembered. One that is forgotten begins with the round that is served."""


class TurnsOfTenants:
    """The rounds of one waiting room."""

    __slots__ = ("_next", "_returned", "_served")

    def __init__(self) -> None:
        self._next: OrderedDict[int, int] = OrderedDict()
        """The next round of each tenant, the most recently used tenant last."""
        self._returned: dict[int, list[int]] = {}
        """Rounds before the next one of a tenant that it has again, as a heap. They are no more
        than its queues that waited at the same time."""
        self._served = 0
        """The round that is being served."""

    def __len__(self) -> int:
        return len(self._next)

    def next(self, tenant: int) -> int:
        """Return the round of a tenant's next request. 0: it has none."""
        if not tenant:
            return 0
        rounds, found = self._next, self.peek(tenant)
        returned = self._returned.get(tenant)
        if returned:
            heappop(returned)
        else:
            rounds[tenant] = found + 1
        rounds.move_to_end(tenant)
        if len(rounds) > MOST_TENANTS:
            forgotten, _ = rounds.popitem(last=False)
            self._returned.pop(forgotten, None)
        return found

    def peek(self, tenant: int) -> int:
        """Return the same without giving it away."""
        if not tenant:
            return 0
        returned = self._returned.get(tenant)
        if returned is not None:
            while returned and returned[0] < self._served:
                heappop(returned)
            if returned:
                return returned[0]
            del self._returned[tenant]
        return max(self._served, self._next.get(tenant, 0))

    def give_back(self, tenant: int, turn: int) -> None:
        """Take back a round in which no request of a tenant was served."""
        following = self._next.get(tenant, 0)
        if turn + 1 == following:
            self._next[tenant] = turn
        elif turn < following:
            heappush(self._returned.setdefault(tenant, []), turn)

    @property
    def current(self) -> int:
        """The round that is being served: the next one of a tenant that has none waiting."""
        return self._served

    def served(self, turn: int) -> None:
        """Record that a request of a round was served."""
        self._served = max(self._served, turn)
