"""Whose turn it is among tenants: those that were served least lately go first.

Each tenant's requests get *rounds*: the first one that waits the round that is being served now,
the next one the round after that, and so on (start-time fair queueing). So of each round every
tenant is served once, however many requests a tenant has. A tenant that was not served for a while
does not save up rounds. One whose requests left unserved, because their clients did or their time
was up, gets their rounds again.

What is served of one base model or priority takes nothing from the requests of another one, so each
has rounds of its own (``TurnsOfTenants``). Lines of the same base model can share pods, so their
rounds are comparable, and a tenant gains nothing by writing other filters. But each line has a
round that is being served (``LineRounds``): what a tenant was served on the pods of one filter
delays nobody on those of another.

Requests without a tenant have the round that is being served. If nobody names tenants, every
request has round 0.
"""

from collections import OrderedDict
from heapq import heappop, heappush

from lora_router.fleet.catalog import BaseModels
from lora_router.routing.counts import change

MOST_TENANTS = 1024
"""How many tenants are remembered, of all base models and priorities. One that is forgotten begins
with the round that is served."""


class TurnsOfTenants:
    """The rounds of the requests of one priority that wait for pods of the same base models."""

    __slots__ = ("_next", "_returned", "_served", "_waiting")

    def __init__(
        self, remembered: "OrderedDict[tuple[TurnsOfTenants, int], int] | None" = None
    ) -> None:
        """Begin with round 0.

        Args:
            remembered: The next round of each tenant, the most recently used tenant last. Shared by
                all base models and priorities, so that all of them together are bounded.
        """
        self._next = OrderedDict() if remembered is None else remembered
        self._returned: dict[int, list[int]] = {}
        """Rounds before the next one of a tenant that it has again, as a heap. They are no more
        than its queues that waited at the same time."""
        self._waiting: dict[int, int] = {}
        """How many queues of each tenant wait."""
        self._served = 0
        """The latest round that is being served in some line."""

    def __len__(self) -> int:
        return len(self._next)

    @property
    def is_over(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    def next(self, tenant: int, current: int | None = None) -> int:
        """Return the round of a tenant's queue that waits from now on.

        Args:
            tenant: The tenant; 0: nobody in particular.
            current: The round that is being served in its line; ``None``: the latest one.
        """
        found = self.peek(tenant, current)
        change(self._waiting, tenant, 1)
        if not tenant:
            return found
        rounds, key = self._next, (self, tenant)
        returned = self._returned.get(tenant)
        if returned and returned[0] == found:
            heappop(returned)
        else:
            rounds[key] = found + 1
        if key in rounds:
            rounds.move_to_end(key)
        if len(rounds) > MOST_TENANTS:
            (other, forgotten), _ = rounds.popitem(last=False)
            other._returned.pop(forgotten, None)
        return found

    def peek(self, tenant: int, current: int | None = None) -> int:
        """Return the same without giving it away."""
        if current is None:
            current = self._served
        if not tenant:
            return current
        # Rounds in which it was served elsewhere are no reason to wait here.
        latest = current + self._waiting.get(tenant, 0) + 1
        return min(latest, max(current, self._earliest(tenant)))

    def _earliest(self, tenant: int) -> int:
        returned = self._returned.get(tenant)
        if returned is not None:
            while returned and returned[0] < self._served:
                heappop(returned)
            if returned:
                return returned[0]
            del self._returned[tenant]
        return self._next.get((self, tenant), 0)

    def give_back(self, tenant: int, turn: int) -> None:
        """Take back a round in which no request of a tenant was served."""
        if not tenant:
            return
        following = self._next.get((self, tenant), 0)
        if turn + 1 == following:
            self._next[self, tenant] = turn
        elif turn < following:
            heappush(self._returned.setdefault(tenant, []), turn)

    def leave(self, tenant: int) -> None:
        """Count a queue no more that got a round."""
        change(self._waiting, tenant, -1)
        if tenant not in self._waiting:
            self._returned.pop(tenant, None)

    @property
    def current(self) -> int:
        """The latest round that is being served: the first one of a line that begins."""
        return self._served

    def served(self, turn: int) -> None:
        """Record that a round is being served in a line."""
        self._served = max(self._served, turn)


class LineRounds:
    """The round that is being served in one line, for each base model and priority there."""

    __slots__ = ("_queues", "_rounds")

    def __init__(self) -> None:
        self._rounds: dict[TurnsOfTenants, int] = {}
        self._queues: dict[TurnsOfTenants, int] = {}

    def current(self, turns: TurnsOfTenants) -> int:
        """Return the round that is being served: the next one of a tenant that has none waiting."""
        return self._rounds.get(turns, turns.current)

    def enter(self, turns: TurnsOfTenants) -> None:
        """Count a queue that comes. The first one begins with the latest round of other lines."""
        self._rounds.setdefault(turns, turns.current)
        change(self._queues, turns, 1)

    def leave(self, turns: TurnsOfTenants) -> None:
        """Count a queue no more that left."""
        change(self._queues, turns, -1)
        if turns not in self._queues:
            del self._rounds[turns]

    def served(self, turns: TurnsOfTenants, turn: int) -> None:
        """Record that a request of a round was served in the line.

        That ends one round at most. A tenant that is served late in one line, because of what it
        has in others, does not make those late that come to this line.
        """
        current = self.current(turns)
        self._rounds[turns] = current = max(current, min(turn, current + 1))
        turns.served(current)


class Turns:
    """The rounds of one waiting room, for each base model and priority that waits."""

    __slots__ = ("_of", "_remembered")

    def __init__(self) -> None:
        self._remembered: OrderedDict[tuple[TurnsOfTenants, int], int] = OrderedDict()
        self._of: dict[tuple[BaseModels, int], TurnsOfTenants] = {}

    def __len__(self) -> int:
        return len(self._of)

    def of(self, bases: BaseModels, priority: int) -> TurnsOfTenants:
        """Return the rounds of what waits for some base models. Nobody waits: round 0."""
        found = self._of.get((bases, priority))
        return TurnsOfTenants(self._remembered) if found is None else found

    def enter(self, bases: BaseModels, priority: int) -> TurnsOfTenants:
        """Return the same for a queue that is about to get a round of them."""
        turns = self._of[bases, priority] = self.of(bases, priority)
        return turns

    def leave(self, bases: BaseModels, priority: int) -> None:
        """Forget the rounds that nobody has any more."""
        if self._of[bases, priority].is_over:
            del self._of[bases, priority]
