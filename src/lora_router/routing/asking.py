"""Asks algorithms for waiting requests, in order of priority and seniority.

In a queue the first request is asked for, and in a line the first request of the first queue, or of
the one to which a freed slot should go (``waiting_queue``).
If none of the ``PASSED_OVER`` first queues of a line takes a free slot, the others are asked
in the background, in a *sweep*. The same happens if its pods are so many that not even these can be
asked in one turn. Queues whose algorithm answered ``WakesOn.ANY_CHANGE`` are always asked in
sweeps, because nothing indicates which of their requests could be routed.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Protocol

from lora_router.clock import Clock
from lora_router.fleet.pod_state import PodState
from lora_router.routing.agenda import PASSED_OVER, Agenda
from lora_router.routing.candidates import Candidates
from lora_router.routing.joining import Joiners, Joining, Stragglers
from lora_router.routing.order_of_asking import in_order_for
from lora_router.routing.pod_room import Rooms
from lora_router.routing.question import Question
from lora_router.routing.roll import Roll
from lora_router.routing.waiting_lines import Lines
from lora_router.routing.waiting_queue import Held, Line, Queue


class Receptionist(Protocol):
    """Asks the algorithms: the ``Reception``."""

    def ask(self, held: Held) -> bool:
        """Ask for a request that waits; return whether it still waits."""

    def decide(self, held: Held) -> None:
        """Ask for the last time: the request is routed or refused now."""

    def candidates_for(self, question: Question) -> Candidates:
        """Return the pods that may take such a request now, maybe none."""


@dataclass(slots=True, eq=False)
class Sweep:
    """A line of which every queue is being asked."""

    line: Line
    left: deque[Queue]
    again: bool = False
    """Whether something changed during the sweep, so that it must be repeated."""


@dataclass(slots=True, eq=False)
class Resettling:
    """Queues that are being put into their new lines, because the models of pods changed."""

    left: OrderedDict[Queue, None] = field(default_factory=OrderedDict)
    lines: dict[Line, None] = field(default_factory=dict)
    """The lines that got queues."""


Item = Line | Queue | Held | Sweep | Resettling | Joining | Stragglers
"""An item of the agenda."""


class Asking:
    """Works on the items of the agenda. Each method returns how many steps that took.

    To ask for a request is one step for each ``FULL_LOOK`` pods that its algorithm inspects
    (``Candidates.looks``).
    """

    def __init__(
        self,
        receptionist: Receptionist,
        agenda: Agenda[Item],
        lines: Lines,
        clock: Clock,
        roll: Roll,
        pods: Rooms,
    ) -> None:
        self._receptionist = receptionist
        self._clock = clock
        self._agenda = agenda
        self._lines = lines
        self._sweeps: dict[Line, Sweep] = {}
        self._resettling = Resettling()
        self.joiners = Joiners(self, agenda, roll, pods, clock)
        """Those that may join a pod on which their adapter is in flight."""

    def resettle(self, queues: Iterable[Queue]) -> None:
        """Put queues into other lines, a few at a time: their candidates changed."""
        self._resettling.left.update(dict.fromkeys(queues))
        if self._resettling.left:
            self._agenda.add(self._resettling)

    def work(self, item: Item, steps: int) -> int:
        """Work on an item, until ``steps`` steps are taken."""
        match item:
            case Queue():
                return self._ask_queue(item, steps)
            case Line():
                return self._ask_line(item, steps)
            case Sweep():
                return self._sweep(item, steps)
            case Resettling():
                return self._resettle(item, steps)
            case Joining():
                return self.joiners.ask(item, steps)
            case Stragglers():
                return self.joiners.ask_stragglers(item, steps)
            case Held():
                steps = 1 if item.queue is None else item.queue.steps
                self._receptionist.decide(item)
                return steps

    def ask(self, held: Held) -> bool:
        """Ask for a request; return whether it still waits."""
        return self._receptionist.ask(held)

    def is_renewed(self, line: Line) -> bool:
        """Return whether a line must be asked as a whole, because not only one pod changed."""
        return line.stale or bool(line.any_change or self._resettling.left)

    def sweep(self, line: Line) -> None:
        """Ask for each queue of a line in the background."""
        self._begin_sweep(line, 0)

    def _ask_queue(self, queue: Queue, steps: int) -> int:
        """Ask for the requests of a queue, until one is held again."""
        taken = 0
        while taken < steps:
            first = queue.first
            if first is None:
                return taken
            taken += queue.steps
            if self._receptionist.ask(first) and queue.first is first:
                return taken  # Otherwise it waits in another queue, and the next one is first.
        self._agenda.add(queue)
        return taken

    def _ask_line(self, line: Line, steps: int) -> int:
        """Ask for the first requests of a line while its pods have a free slot."""
        if not line.queues:
            return 0
        if self._resettling.left:
            # Seniority is known once each queue is in its line.
            self._resettling.lines[line] = None
            return 0
        taken = 0
        if line.stale:
            question = next(iter(line.queues)).question
            taken = line.candidates.looks_to_find
            others = line.queues if line.is_mixed else ()
            self._lines.renew(line, self._receptionist.candidates_for(question))
            if others:
                # What leaves them the same pods may leave them different ones now.
                self.resettle(others)
                self._resettling.lines[line] = None
                return taken
        if line.any_change:
            return taken + self._begin_sweep(line, steps - taken)
        return taken + self._ask_first(line, steps - taken)

    def _ask_first(self, line: Line, steps: int) -> int:
        """Ask for the first requests of a line, of which no queue wants to know every change."""
        taken = asked = passed_over = 0
        while passed_over < PASSED_OVER and ((pod := line.freed_pod()) or line.has_room()):
            before = asked - passed_over
            with closing(in_order_for(line, pod, self._clock.now())) as queues:
                for _, queue in queues:
                    if taken >= steps:
                        self._go_on(line, passed_over)
                        return taken
                    first = queue.first_for(pod) if line.for_room else queue.first
                    if first is not None:
                        asked += 1
                        taken += line.candidates.looks
                        passed_over += self._receptionist.ask(first)
                    if passed_over >= PASSED_OVER or not _has_room(line, pod):
                        break
                else:
                    if not line.for_room or asked - passed_over == before:
                        return taken
        if passed_over >= PASSED_OVER:
            self._begin_sweep(line, 0)
        return taken

    def _go_on(self, line: Line, passed_over: int) -> None:
        """Ask for further requests of a line in the next turn."""
        # It would put the same questions again, and never others if a turn has time for few.
        if passed_over and line.candidates.looks > 1:
            self._begin_sweep(line, 0)
        else:
            self._agenda.add(line)

    def _begin_sweep(self, line: Line, steps: int) -> int:
        sweep = self._sweeps.get(line)
        if sweep is not None:
            sweep.again = True
            return 0
        in_order = sorted(line.queues, key=attrgetter("place"))
        sweep = self._sweeps[line] = Sweep(line, deque(in_order))
        return self._sweep(sweep, steps)

    def _sweep(self, sweep: Sweep, steps: int) -> int:
        """Ask the next queues of a sweep, and leave the rest to the background."""
        line = sweep.line
        taken = 0
        while sweep.left and taken < steps:
            if not line.any_change and not line.has_room():
                sweep.left.clear()
                break
            queue = sweep.left.popleft()
            if queue.requests:
                taken += self._ask_queue(queue, steps - taken)
        if sweep.left:
            self._agenda.add(sweep, background=True)
            return taken
        del self._sweeps[line]
        if sweep.again and line.queues:
            self._begin_sweep(line, 0)
        return taken

    def _resettle(self, resettling: Resettling, steps: int) -> int:
        """Put queues into the lines of their new candidates."""
        left = resettling.left
        taken = 0
        while left and taken < steps:
            taken += 1
            queue, _ = left.popitem(last=False)
            if queue.requests:
                candidates = self._receptionist.candidates_for(queue.question)
                self._lines.place(queue, candidates)
                if not candidates:
                    self._agenda.add(queue)  # Its requests may wait for another version now.
                assert queue.line is not None  # noqa: S101 -- it was just put there
                if queue.line not in resettling.lines:
                    taken += queue.line.candidates.looks_to_find
                    resettling.lines[queue.line] = None
        if left:
            self._agenda.add(resettling)
            return taken
        for line in sorted(resettling.lines, key=Line.first_place):
            self._agenda.add(line)
        resettling.lines.clear()
        return taken


def _has_room(line: Line, pod: PodState | None) -> bool:
    """Return whether a pod, or (``None``) any pod of a line, has what the line waits for."""
    return line.has_room() if pod is None else line.has_room_on(pod)
