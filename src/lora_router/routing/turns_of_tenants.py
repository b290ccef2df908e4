"""Whose turn it is among tenants: those that were served least lately go first.

Each tenant's requests get *rounds*: the first one that waits the round that is being served now,
the next one the round after that, and so on (start-time fair queueing). So of each round every
tenant is served once, however many requests a tenant has. A tenant that was not served for a while
does not save up rounds.

Without tenants, every request has round 0.
"""

from collections import OrderedDict

MOST_TENANTS = 1024
"""How many tenants are remembered. One that is forgotten begins with the round that is served."""


class TurnsOfTenants:
    """The rounds of one waiting room."""

    __slots__ = ("_next", "_served")

    def __init__(self) -> None:
        self._next: OrderedDict[int, int] = OrderedDict()
        """The next round of each tenant, the most recently used tenant last."""
        self._served = 0
        """The round that is being served."""

    def __len__(self) -> int:
        return len(self._next)

    def next(self, tenant: int) -> int:
        """Return the round of a tenant's next request. 0: it has none."""
        if not tenant:
            return 0
        rounds = self._next
        found = max(self._served, rounds.get(tenant, 0))
        rounds[tenant] = found + 1
        rounds.move_to_end(tenant)
        if len(rounds) > MOST_TENANTS:
            rounds.popitem(last=False)
        return found

    def peek(self, tenant: int) -> int:
        """Return the same without giving it away."""
        return max(self._served, self._next.get(tenant, 0)) if tenant else 0

    @property
    def current(self) -> int:
        """The round that is being served: the next one of a tenant that has none waiting."""
        return self._served

    def served(self, turn: int) -> None:
        """Record that a request of a round was served."""
        self._served = max(self._served, turn)
