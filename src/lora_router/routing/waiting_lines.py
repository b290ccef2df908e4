"""All lines of queues that wait for the same pods (``waiting_queue``), and their paces.

Those that wait for the same pods stand in one line, whatever filters left these pods. So a client
cannot have more lines than there are sets of pods that its filters leave.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from lora_router.clock import Clock
from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.fleet.waiting_at_peers import WaitingAtPeers
from lora_router.routing.algorithm import WakesOn
from lora_router.routing.candidates import Candidates
from lora_router.routing.order_of_asking import COMPARED
from lora_router.routing.pace import Pace
from lora_router.routing.question import WHO_ASKS, Question
from lora_router.routing.slot_on_pod import has_slot
from lora_router.routing.waiting_queue import HasRoom, Line, Queue

_PACES = 64
"""How many paces are remembered."""
MAX_NARROWED = 64
"""Lines of candidates that a filter or a subset chose. Clients write filters, and after a change of
pods each line has to find its candidates again. So a change takes longer with a higher value."""
MOST_DISPLACED = 32
"""A line makes room for another one only if no more requests wait in it: they are refused in one
go."""


class Lines:
    """All lines."""

    def __init__(self, has_room: HasRoom, clock: Clock, at_peers: WaitingAtPeers) -> None:
        """Create none.

        Args:
            has_room: Returns whether a pod has room for another request of an algorithm.
            clock: The time.
            at_peers: Who waits for slots at peers.
        """
        self._at_peers = at_peers
        at_peers.on_change = self._hear
        self._has_room = has_room
        self._clock = clock
        self._lines: dict[Line, None] = {}
        self._by_candidates: dict[tuple[str, frozenset[PodView], bool], Line] = {}
        """By algorithm, the pods, and whether they wait for room."""
        self._for_slots: dict[str, dict[Queue, None]] = {}
        """The queues that wait for slots, by model."""
        self._narrowed: dict[Line, None] = {}
        """Those whose candidates a filter or a subset chose, in the order in which they began."""
        self._paces: dict[tuple[str, frozenset[PodView], bool], Pace] = {}
        """The paces of the last lines, so that a line that ends and begins again has one."""

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines)

    def in_order(self) -> list[Line]:
        """Return all lines by the places of their first queues."""
        return sorted(self._lines, key=Line.first_place)

    def with_room(self, pods: Collection[PodState]) -> dict[PodState, list[Line]]:
        """Return the lines that wait for what pods have: a free slot, or room.

        Many pods may be given, and there may be many lines, each of them for few pods.
        """
        found: dict[PodState, list[Line]] = {}
        with_slot = {pod: None for pod in pods if has_slot(pod)}
        every = dict.fromkeys(pods)
        for line in self._lines:
            for pod in _common(every if line.for_room else with_slot, line.candidates.members):
                if not line.for_room or line.has_room_on(pod):
                    found.setdefault(pod, []).append(line)
        return found

    def in_order_on(self, pod: PodState, lines: list[Line]) -> list[Line]:
        """Return lines that wait for slots of a pod, the one that should have the next first.

        Pods can have different adapters, so that queues of several lines wait for the same pod. The
        first queues of the lines are compared as those of one line are (``order_of_asking``).
        """
        if len(lines) < 2:
            return lines
        lines = sorted(lines, key=Line.first_place)
        first, now = lines[0].first_place()[:2], self._clock.now()
        some = [each for each in lines[:COMPARED] if each.first_place()[:2] == first]
        some.sort(key=lambda line: line.cost_on(pod, now))
        return [*some, *lines[len(some) :]]

    def find(self, algorithm: str, candidates: Candidates, *, for_room: bool) -> Line | None:
        """Return the line of some candidates; ``None``: nobody waits for them."""
        return self._by_candidates.get((algorithm, candidates.members, for_room))

    def may_take(self, algorithm: str, candidates: Candidates) -> bool:
        """Return whether a further request may wait for some candidates.

        It may not begin a line if there are ``MAX_NARROWED`` that filters or subsets made.
        """
        return (
            len(self._narrowed) < MAX_NARROWED
            or not candidates.is_narrowed
            or any(self.find(algorithm, candidates, for_room=each) for each in (False, True))
        )

    def to_displace(self, question: Question) -> Line | None:
        """Return the line that makes room for one of another question; ``None``: none does.

        It is the one that began last, of those in which only the lowest priority waits, if that is
        lower than the other's. If all have the same priority, it is the last one of the tenant that
        has the most lines, if these would still be no fewer than the other's.
        """
        lines = [each for each in self._narrowed if not each.has_more_requests(MOST_DISPLACED)]
        lowest = min((each.highest_priority for each in lines), default=question.priority)
        if lowest > question.priority:
            return None
        lines = [each for each in lines if each.highest_priority == lowest]
        if lowest < question.priority:
            return lines[-1]
        of_tenants = Counter(each.tenant for each in lines if each.tenant)
        if not question.tenant or not of_tenants:
            return None
        ((tenant, most),) = of_tenants.most_common(1)
        if most <= of_tenants[question.tenant] + 1:
            return None
        return next(each for each in reversed(lines) if each.tenant == tenant)

    def pace_of(self, algorithm: str, candidates: Candidates) -> Pace | None:
        """Return how fast adapters got slots of some pods lately; ``None``: none waited."""
        return self._paces.get((algorithm, candidates.members, False))

    def paces_of(self, bases: BaseModels) -> Iterator[Pace]:
        """Yield how fast adapters of some base models got slots lately, in all lines."""
        for of_pace, pace in self._slot_paces():
            if of_pace == bases:
                yield pace

    def _slot_paces(self) -> Iterator[tuple[BaseModels, Pace]]:
        for (_, members, for_room), pace in self._paces.items():
            if not for_room:
                yield _bases_of(members), pace

    def _hear(self, granted: Mapping[BaseModels, int]) -> None:
        """Take in who waits for slots at peers, and how many adapters got one there."""
        now = self._clock.now()
        for bases, pace in self._slot_paces():
            waits = self._at_peers.somebody_waits(bases)
            pace.hear(now, peers_wait=waits, granted=granted.get(bases, 0))

    def place(self, queue: Queue, candidates: Candidates) -> None:
        """Put a queue into the line of its candidates."""
        algorithm, for_room = queue.question.algorithm, queue.hold.wakes_on is WakesOn.ROOM
        key = algorithm, candidates.members, for_room
        line = self._by_candidates.get(key)
        if line is None:
            pace = self._pace(algorithm, candidates.members, for_room)
            pace.start(self._clock.now())
            line = Line(algorithm, candidates, pace, self._has_room, for_room=for_room)
            self._by_candidates[key] = line
            self._lines[line] = None
            if candidates.is_narrowed:
                self._narrowed[line] = None
        if queue.line is not line:
            if queue.line is not None:
                queue.take_turn(line.rounds.current(queue.turns))
            self.remove(queue)
            if not for_room:
                self._for_slots.setdefault(queue.question.model, {})[queue] = None
        line.put(queue)
        line.found_by(queue, candidates)

    def like(self, queue: Queue) -> list[Queue]:
        """Return the queues that wait for slots, and differ only in priority and tenant."""
        asked = queue.question[:WHO_ASKS]
        of_model = self._for_slots.get(queue.question.model, ())
        return [each for each in of_model if each.question[:WHO_ASKS] == asked]

    def remove(self, queue: Queue) -> None:
        """Take a queue out of its line, and drop the line if it is empty then."""
        line = queue.line
        if line is not None:
            line.remove(queue)
            if not line.for_room:
                of_model = self._for_slots[queue.question.model]
                del of_model[queue]
                if not of_model:
                    del self._for_slots[queue.question.model]
            if not line.queues:
                line.pace.stop(self._clock.now())
                del self._lines[line]
                self._narrowed.pop(line, None)
                self._forget(line)

    def renew(self, line: Line, candidates: Candidates) -> None:
        """Give a line the candidates that its queues have since pods changed.

        If there is another line of these candidates already, queues move there as they are asked.
        """
        self._forget(line)
        line.renew(candidates)
        key = line.algorithm, candidates.members, line.for_room
        self._by_candidates.setdefault(key, line)
        if candidates.is_narrowed:
            self._narrowed.setdefault(line)
        else:
            self._narrowed.pop(line, None)

    def _pace(self, algorithm: str, members: frozenset[PodView], for_room: bool) -> Pace:
        key = algorithm, members, for_room
        pace = self._paces.get(key)
        if pace is None or pace.is_in_use:
            # Another line of the same pods counts with it, while queues move between them.
            pace = self._paces[key] = Pace()
            if not for_room:
                waits = self._at_peers.somebody_waits(_bases_of(members))
                pace.hear(self._clock.now(), peers_wait=waits, granted=0)
            if len(self._paces) > _PACES:
                del self._paces[next(iter(self._paces))]
        return pace

    def _forget(self, line: Line) -> None:
        key = line.algorithm, line.candidates.members, line.for_room
        if self._by_candidates.get(key) is line:
            del self._by_candidates[key]


def _common(pods: Mapping[PodState, None], members: Collection[PodView]) -> Collection[PodState]:
    """Return the pods that are members, at a cost of the smaller number."""
    if len(pods) <= len(members):
        return [pod for pod in pods if pod in members]
    return [pod for pod in members if isinstance(pod, PodState) and pod in pods]


def _bases_of(members: frozenset[PodView]) -> BaseModels:
    """Return the base models of the pods of a line."""
    return next(iter(members)).base_models if members else frozenset()
