"""How long a request that comes now will probably wait.

- For a slot: as many turns of its line as queues are served before it (``pace``). A request whose
  queue waits already leaves with that.
- For room on a pod: as many as there are requests before it, in its line, or, if its adapter has a
  slot on a pod without room, in its queue.
- Nobody knows, if nobody waits, if too few were served lately, or if a slot would be closed for the
  request soon (``slot_closing``), however hot the others are. So a rare adapter can always wait.
- If a slot of the adapter itself is being emptied for another, the wait is known also if too few
  were served: others are served before it, each of them for about as long as a slot takes to be
  empty. Otherwise all requests of a hot adapter would wait for that long after a start.
"""

from collections.abc import Mapping

from lora_router.clock import Clock
from lora_router.routing.algorithm import Hold, WakesOn
from lora_router.routing.candidates import Candidates
from lora_router.routing.closed_slots import ClosedSlots
from lora_router.routing.overload import NO_ROOM, Overload
from lora_router.routing.overrun import UNKNOWN, ExpectedWait
from lora_router.routing.turns_of_tenants import TurnsOfTenants
from lora_router.routing.waiting_lines import Lines
from lora_router.routing.waiting_queue import Held, Line, Question, Queue


class ExpectedWaits:
    """The expected waits in one waiting room."""

    def __init__(
        self,
        queues: Mapping[Question, Queue],
        lines: Lines,
        overload: Overload,
        clock: Clock,
        turns: TurnsOfTenants,
        slots: ClosedSlots,
    ) -> None:
        self._slots = slots
        self._turns = turns
        self._queues = queues
        self._lines = lines
        self._overload = overload
        self._clock = clock

    def of(self, question: Question, hold: Hold, candidates: Candidates) -> ExpectedWait:
        """Return the expected wait of a request that comes now.

        Args:
            question: What is asked.
            hold: The algorithm's answer.
            candidates: The pods that may take the request.
        """
        now = self._clock.now()
        for_room = hold.wakes_on is WakesOn.ROOM
        queue = self._queues.get(question)
        if queue is not None and not for_room:
            if hold.reason == NO_ROOM:
                seconds = queue.pace.seconds_for(len(queue.requests), now)
                overrun = None if queue.line is None else queue.line.pace.overrun
                return ExpectedWait(seconds, overrun)
            if queue.expected_at is None:
                if queue.line is None:
                    return UNKNOWN
                ahead = queue.line.ahead_of(question, self._turns.peek(question.tenant)) - 1
                return self._while_emptied(question.model, queue.line, ahead, candidates)
            return ExpectedWait(max(0.0, queue.expected_at - now))
        line = self._lines.find(question.algorithm, candidates, for_room=for_room)
        if line is None:
            return UNKNOWN
        own = 0 if queue is None else len(queue.requests)
        ahead = line.ahead_of(question, self._turns.peek(question.tenant), own)
        if not for_room and ahead < self._overload.most_closed(candidates.load().slots):
            return UNKNOWN
        overrun = line.pace.overrun
        seconds = line.pace.seconds_for(ahead, now)
        if seconds is None and not for_room:
            return self._while_emptied(question.model, line, ahead, candidates)
        return ExpectedWait(
            seconds,
            overrun,
            line.pace.seconds_for(ahead + overrun.refused(now), now),
            line.pace.loading,
        )

    def _while_emptied(
        self, adapter: str, line: Line, ahead: int, candidates: Candidates
    ) -> ExpectedWait:
        """Return the expected wait for a slot where the pace is not known.

        Args:
            adapter: The adapter of the request.
            line: The line in which the request would wait.
            ahead: How many would be served before it.
            candidates: The pods that may take the request.
        """
        left = self._slots.seconds_left(adapter)
        slots = candidates.load().slots
        if left is None or ahead < self._overload.most_closed(slots):
            return UNKNOWN
        seconds = (left + ahead * self._slots.seconds) / max(slots, 1)
        return ExpectedWait(seconds, line.pace.overrun)

    def begin(self, queue: Queue) -> None:
        """Estimate when a queue that is new in its line will leave."""
        line, now = queue.line, self._clock.now()
        if line is not None and not line.for_room:
            ahead = line.ahead_of(queue.question, queue.turn) - 1
            seconds = line.pace.seconds_for(ahead, now)
            queue.expected_at = None if seconds is None else now + seconds

    def granted(self, held: Held, loading: float) -> None:
        """Count a request that waits and is routed now, before it leaves its queue.

        Args:
            held: The request.
            loading: Seconds that loading its adapter takes.
        """
        queue, now = held.queue, self._clock.now()
        if queue is None or queue.line is None:
            return
        queue.pace.granted(now)
        self._turns.served(queue.turn)
        if queue.line.for_room or not queue.granted:
            queue.granted = True
            queue.line.pace.granted(now, loading)
        if queue.line.for_room and len(queue.requests) > 1:
            queue.turn = self._turns.next(queue.question.tenant)
