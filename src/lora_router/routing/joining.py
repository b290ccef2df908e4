"""Asks for the requests that may go to a pod other than into a free slot of it.

They are those of adapters that are in flight there, which need no further slot, those that wait for
room there, and those that have their home there (``homes``), for which the pod may have room
although it has none for others. They compete for the same room, so they are asked in one order,
that of the places of their queues.

Each tenant, priority and filter has a queue of its own, so thousands of queues may wait for one
adapter. Therefore each is asked only after the one before it was, and only while the pod takes
requests: a change that lets few requests go costs as much as these.

If ``PASSED_OVER`` of an adapter are held again, the others are asked in the background. So are all
of them after a whole turn in which none was served: the next turn would ask for the same ones.
Queues whose filter or subset excludes the pod are not asked.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from heapq import merge
from operator import attrgetter, itemgetter
from typing import Protocol

from lora_router.clock import Clock
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.agenda import AT_ONCE, PASSED_OVER
from lora_router.routing.in_order import Place
from lora_router.routing.order_of_asking import in_order_for
from lora_router.routing.pod_room import Rooms
from lora_router.routing.roll import Roll
from lora_router.routing.waiting_queue import Held, Line, Queue

_LOOKED_AT = 32
"""How many queues of an adapter are looked at in one turn and not asked."""


@dataclass(slots=True, eq=False)
class Joining:
    """What may join one pod."""

    pod: PodState | None
    """``None``: some pod, and nobody knows which one."""
    adapters: dict[str, None] = field(default_factory=dict)
    """The adapters in flight there for which requests wait."""
    lines: dict[Line, None] = field(default_factory=dict)
    """The lines that wait for room there."""
    came: dict[str, None] = field(default_factory=dict)
    """Those of the adapters that came there, and whose other requests follow. What waits for one of
    them may wait for something else now, so the first is asked for even if the pod is full."""


@dataclass(slots=True, eq=False)
class Stragglers:
    """The queues that were not asked when those before them were asked in vain."""

    pod: PodState | None
    left: deque[Queue]
    again: dict[str, None] = field(default_factory=dict)
    """The adapters of which all must be asked once more, because something changed meanwhile."""


@dataclass(slots=True, eq=False)
class _Group:
    """The queues of one adapter, or of one line, or (``None``) of those that are at home there."""

    of: str | Line | None
    held: int = 0
    """How many were asked in vain."""
    not_asked: int = 0
    is_served: bool = False
    """Whether one was served."""
    is_over: bool = False
    """Whether the pod has no more of what a line waits for."""

    @property
    def is_passed(self) -> bool:
        """Whether so many were passed over that the others are left to the background."""
        return self.held >= PASSED_OVER or self.not_asked >= _LOOKED_AT


_Turn = tuple[Place, _Group, Queue]


class _Agenda(Protocol):
    def add(self, item: Joining | Stragglers | Line, *, background: bool = False) -> None: ...


class _Asker(Protocol):
    def ask(self, held: Held) -> bool:
        """Ask for a request; return whether it still waits."""

    def is_renewed(self, line: Line) -> bool:
        """Return whether a line must be asked as a whole."""

    def sweep(self, line: Line) -> None:
        """Ask for each queue of a line in the background."""


class Joiners:
    """All that may join pods. Methods that ask return how many steps that took."""

    def __init__(
        self, asker: _Asker, agenda: _Agenda, roll: Roll, rooms: Rooms, clock: Clock
    ) -> None:
        """Begin with nobody.

        Args:
            asker: Asks for requests.
            agenda: Calls ``ask`` and ``ask_stragglers``.
            roll: Who waits.
            rooms: Knows which pods take requests.
            clock: The time.
        """
        self._asker = asker
        self._agenda = agenda
        self._roll = roll
        self._rooms = rooms
        self._clock = clock
        self._due: dict[PodView | None, Joining] = {}
        self._asked_now: Joining | None = None
        self._stragglers: dict[PodState | None, Stragglers] = {}

    def wake(
        self, pod: PodState | None, adapters: Iterable[str], lines: Iterable[Line] = ()
    ) -> None:
        """Ask for those that may join a pod, and for those that have their home there.

        Args:
            pod: The pod; ``None``: it is not known.
            adapters: Adapters that are in flight there.
            lines: Lines that wait for room on it.
        """
        found = dict.fromkeys(each for each in adapters if each in self._roll.models)
        of_room = dict.fromkeys(lines)
        if not found and not of_room and pod not in self._roll.homes:
            return
        joining = self._due.get(pod)
        if joining is None:
            joining = self._due[pod] = Joining(pod)
        joining.adapters.update(found)
        joining.lines.update(of_room)
        self._agenda.add(joining)

    def follow(self, pod: PodState, adapter: str) -> None:
        """Ask for those that may follow a request, of their adapter, that was sent to a pod."""
        now = self._asked_now
        if now is not None and now.pod is pod and adapter in now.adapters:
            now.came[adapter] = None  # The next one is asked for anyway.
            return
        self.wake(pod, (adapter,))
        if pod in self._due:
            self._due[pod].came[adapter] = None

    def follows(self, pod: PodView, adapter: str) -> bool:
        """Return whether requests of an adapter that came to a pod are about to be asked for."""
        joining = self._due.get(pod)
        return joining is not None and adapter in joining.came

    def ask(self, joining: Joining, steps: int) -> int:
        """Ask for the first ones, until the pod takes no more."""
        self._due.pop(joining.pod, None)
        for line in tuple(joining.lines):
            if not line.queues or self._asker.is_renewed(line):
                del joining.lines[line]
                self._agenda.add(line)
        self._asked_now = joining
        try:
            return self._ask(joining, steps)
        finally:
            self._asked_now = None

    def _ask(self, joining: Joining, steps: int) -> int:
        pod, asked = joining.pod, 0
        groups = [_Group(each) for each in joining.lines]
        groups += [_Group(each) for each in joining.adapters]
        if pod in self._roll.homes:
            groups.append(_Group(None))
        left: list[_Group] = []
        with ExitStack() as stack:
            for _, group, queue in merge(
                *(self._turns(group, pod, stack) for group in groups), key=itemgetter(0)
            ):
                if asked >= steps:
                    if steps < AT_ONCE or any(each.is_served for each in groups):
                        self._wake_again(joining, groups)
                        return asked
                    left = groups
                    break
                if not self._takes(pod, queue):
                    break
                first = self._first_of(group, queue, joining)
                if first is not None:
                    joining.came.pop(queue.question.model, None)
                    asked += self._ask_for(first, group, queue, steps - asked)
            else:
                joining.came.clear()
        for adapter in joining.came:
            if (there := self._roll.in_order(adapter).first()) and (first := there[1].first):
                asked += there[1].steps
                self._asker.ask(first)
        left = left or [group for group in groups if group.is_passed]
        for group in left:
            if isinstance(group.of, Line):
                self._asker.sweep(group.of)
        self._leave_the_rest(pod, [group.of for group in left if isinstance(group.of, str)])
        return asked

    def _wake_again(self, joining: Joining, groups: Iterable[_Group]) -> None:
        self.wake(joining.pod, joining.adapters, joining.lines)
        again = self._due.get(joining.pod)
        if again is not None:
            again.came.update(joining.came)
            served = [group.of for group in groups if group.is_served]
            again.came.update(dict.fromkeys(each for each in served if isinstance(each, str)))

    def _first_of(self, group: _Group, queue: Queue, joining: Joining) -> Held | None:
        """Return the request of a queue that is asked for; ``None``: not in this group, or none."""
        pod, line = joining.pod, group.of
        if isinstance(line, Line):
            if pod is not None and line.has_room_on(pod):
                return queue.first_for(pod)
            group.is_over = True
            joining.lines.pop(line, None)
        elif line is None:
            return None if pod is None else queue.first_at_home(pod)
        elif queue.line not in joining.lines and _may_go_to(pod, queue):
            return queue.first
        else:
            group.not_asked += 1
        return None

    def _ask_for(self, first: Held, group: _Group, queue: Queue, steps: int) -> int:
        if not isinstance(group.of, str):
            asked = queue.steps
            is_held = self._asker.ask(first)
        else:
            asked = self._ask_all(queue, steps)
            is_held = queue.first is first
        group.held += is_held
        group.is_served = group.is_served or not is_held
        return asked

    def _turns(self, group: _Group, pod: PodState | None, stack: ExitStack) -> Iterator[_Turn]:
        """Yield the queues of a group with their places, until too many are passed over."""
        of = group.of
        if isinstance(of, Line):
            turns = stack.enter_context(closing(in_order_for(of, pod, self._clock.now())))
        elif of is None:
            turns = stack.enter_context(closing(self._at_home(pod)))
        else:
            queues = stack.enter_context(closing(self._roll.in_order(of).in_turn()))
            turns = ((queue.place, queue) for queue in queues)
        for place, queue in turns:
            if group.is_passed or group.is_over:
                return
            yield queue.among_lines(place), group, queue

    def _at_home(self, pod: PodState | None) -> Generator[tuple[Place, Queue], None, None]:
        """Yield the queues that have requests at home on a pod, with the places of these."""
        if pod is None:
            return
        at_home = self._roll.homes.on(pod)
        with closing(at_home.in_turn()) as those:
            for each in those:
                place = each.place
                if at_home.place_of(each) != place:
                    at_home.put(each)  # It has its turn later.
                else:
                    yield place, each.queue

    def _ask_all(self, queue: Queue, steps: int) -> int:
        """Ask for the requests of a queue until one is held: those of an adapter leave together."""
        asked = 0
        while asked < steps and (first := queue.first) is not None:
            asked += queue.steps
            if self._asker.ask(first) and queue.first is first:
                break
        return asked

    def _takes(self, pod: PodState | None, queue: Queue) -> bool:
        """Return whether a pod takes further requests of the algorithm of a queue."""
        return pod is None or self._rooms.may_join(pod, queue.question.algorithm)

    # The others

    def _leave_the_rest(self, pod: PodState | None, adapters: Iterable[str]) -> None:
        """Ask for all that wait for some adapters in the background."""
        adapters = dict.fromkeys(adapters)
        before = self._stragglers.get(pod)
        if before is not None:
            before.again.update(adapters)
        elif adapters:
            queues = [each for name in adapters for each in self._roll.in_order(name)]
            left = deque(sorted(queues, key=attrgetter("place")))
            stragglers = self._stragglers[pod] = Stragglers(pod, left)
            self._agenda.add(stragglers, background=True)

    def ask_stragglers(self, stragglers: Stragglers, steps: int) -> int:
        """Ask for the next ones, and leave the rest to the background."""
        pod, left = stragglers.pod, stragglers.left
        asked = looked_at = 0
        while left and asked < steps and looked_at < _LOOKED_AT * PASSED_OVER:
            queue = left.popleft()
            if not queue.requests:
                continue
            if not self._takes(pod, queue):
                left.clear()
                stragglers.again.clear()
            elif not _may_go_to(pod, queue):
                looked_at += 1
            else:
                asked += self._ask_all(queue, steps - asked)
        if left:
            self._agenda.add(stragglers, background=True)
            return asked
        del self._stragglers[pod]
        self._leave_the_rest(pod, stragglers.again)
        return asked


def _may_go_to(pod: PodState | None, queue: Queue) -> bool:
    """Return whether a pod may be a candidate of a queue, as far as is known."""
    line = queue.line
    return pod is None or line is None or line.stale or pod in line.candidates.members
