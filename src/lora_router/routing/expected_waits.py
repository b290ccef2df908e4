"""How long a request that comes now will probably wait.

- For a slot: as many turns of its line as queues are served before it (``pace``). A request whose
  queue waits already leaves with that.
- For room on a pod: as many as there are requests before it, in its line, or, if its adapter has a
  slot on a pod without room, in its queue.
- Nobody knows, if nobody waits, if too few were served lately, or if a slot would be closed for the
  request soon (``slot_closing``), however hot the others are. So a rare adapter can always wait.
"""

from collections.abc import Mapping

from lora_router.routing.algorithm import Hold, WakesOn
from lora_router.routing.candidates import Candidates
from lora_router.routing.overload import NO_ROOM, Overload
from lora_router.routing.turns_of_tenants import TurnsOfTenants
from lora_router.routing.waiting_queue import Clock, Held, Lines, Question, Queue


class ExpectedWaits:
    """The expected waits in one waiting room."""

    def __init__(
        self,
        queues: Mapping[Question, Queue],
        lines: Lines,
        overload: Overload,
        clock: Clock,
        turns: TurnsOfTenants,
    ) -> None:
        self._turns = turns
        self._queues = queues
        self._lines = lines
        self._overload = overload
        self._clock = clock

    def of(self, question: Question, hold: Hold, candidates: Candidates) -> float | None:
        """Return the expected wait in seconds of a request that comes now; ``None``: unknown.

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
                return queue.pace.seconds_for(len(queue.requests), now)
            if queue.expected_at is None:
                return None
            return max(0.0, queue.expected_at - now)
        line = self._lines.find(question.algorithm, candidates, for_room=for_room)
        if line is None:
            return None
        own = 0 if queue is None else len(queue.requests)
        ahead = line.ahead_of(question, self._turns.peek(question.tenant), own)
        if not for_room and ahead < self._overload.most_closed(candidates.load().slots):
            return None
        return line.pace.seconds_for(ahead, now)

    def begin(self, queue: Queue) -> None:
        """Estimate when a queue that is new in its line will leave."""
        line, now = queue.line, self._clock.now()
        if line is not None and not line.for_room:
            ahead = line.ahead_of(queue.question, queue.turn) - 1
            seconds = line.pace.seconds_for(ahead, now)
            queue.expected_at = None if seconds is None else now + seconds

    def granted(self, held: Held) -> None:
        """Count a request that waits and is routed now, before it leaves its queue."""
        queue, now = held.queue, self._clock.now()
        if queue is None or queue.line is None:
            return
        queue.pace.granted(now)
        self._turns.served(queue.turn)
        if queue.line.for_room or not queue.granted:
            queue.granted = True
            queue.line.pace.granted(now)
        if queue.line.for_room and len(queue.requests) > 1:
            queue.turn = self._turns.next(queue.question.tenant)
