"""How long a request that comes now will probably wait.

- For a slot: as many turns of its line as queues are served before it (``pace``), here and at
  peers, because routers share the slots. A request whose adapter waits already leaves with the
  first queue of it that does, whoever asks: when that was expected as it came, or once that time
  has passed, by its place in line. If its adapter waits only at a peer, it is served with that.
- For room on a pod: as many as there are requests before it, in its line, or, if its adapter has a
  slot on a pod without room, in its queue.
- Nobody knows, if nobody waits, if too few were served lately, or if a slot would be closed for the
  request soon (``slot_closing``), however hot the others are. So a rare adapter can always wait.
- If a slot of the adapter itself is being emptied for another, the wait is known also if too few
  were served: others are served before it, each of them for about as long as a slot takes to be
  empty. Otherwise all requests of a hot adapter would wait for that long after a start.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain, islice
from typing import NamedTuple

from lora_router.clock import Clock
from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.waiting_at_peers import WaitingAtPeers
from lora_router.routing.algorithm import Hold, WakesOn
from lora_router.routing.candidates import Candidates
from lora_router.routing.closed_slots import ClosedSlots
from lora_router.routing.overload import NO_ROOM, Overload
from lora_router.routing.overrun import UNKNOWN, ExpectedWait
from lora_router.routing.pace import Pace
from lora_router.routing.priorities import within_bounds
from lora_router.routing.question import WHO_ASKS, Question
from lora_router.routing.roll import Roll
from lora_router.routing.turns_of_tenants import Turns
from lora_router.routing.waiting_lines import Lines
from lora_router.routing.waiting_queue import Held, Line, Queue

_COMPARED = 8
"""How many queues of an adapter are compared, the first ones. Each tenant and priority has one."""


class _Ahead(NamedTuple):
    """How many get a slot before a request."""

    everywhere: int
    """Here and at peers. -1: nothing is known of peers."""
    here: int = 0
    """If nothing is known of peers: how many before it wait here, and itself."""
    waits_at_peer: bool = False
    """Whether its adapter waits at a peer, and gets the same slot."""

    @property
    def number(self) -> int:
        """Their number."""
        return self.everywhere + self.here


class ExpectedWaits:
    """The expected waits in one waiting room."""

    def __init__(
        self,
        roll: Roll,
        lines: Lines,
        overload: Overload,
        clock: Clock,
        turns: Turns,
        slots: ClosedSlots,
        at_peers: WaitingAtPeers,
    ) -> None:
        self._slots = slots
        self._at_peers = at_peers
        self._turns = turns
        self._roll = roll
        self.on_refused: Callable[[str, float, int], None] = _ignore
        """Called with an adapter that is refused a slot early, how long it would wait for one, in
        seconds, and the priority. Not called again while it counts, unless the priority is
        higher."""
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
        if hold.wakes_on is WakesOn.ROOM:
            return self._for_room(question, candidates, now)
        queue = self._roll.queues.get(question)
        if hold.reason == NO_ROOM:
            found = self._for_room_like(question, queue, now)
            return self._by_place(question, queue, candidates, now) if found is None else found
        wait = self._with_its_adapter(question, queue, now)
        if queue is not None and wait is not None:
            return wait
        own = self._by_place(question, queue, candidates, now)
        if wait is None or own.seconds is None:
            return own
        return wait if wait.seconds is None or wait.seconds < own.seconds else _alone(own)

    def _for_room_like(
        self, question: Question, queue: Queue | None, now: float
    ) -> ExpectedWait | None:
        """Return the wait for room on the pods with its adapter; ``None``: nobody waits for it.

        A request waits for at least as long as those of its tenant with its priority or a higher
        one. If only lower ones wait, it is not known how much sooner it leaves than they do.
        """
        found: ExpectedWait | None = None
        for each in self._of_its_adapter(question, queue):
            if each.hold.reason != NO_ROOM or each.question.tenant != question.tenant:
                continue
            if each.question.priority < question.priority:
                found = found or UNKNOWN
                continue
            seconds = each.pace.seconds_for(len(each.requests), now)
            if found is None or (seconds or 0.0) > (found.seconds or 0.0):
                retry = each.pace.retry_seconds(len(each.requests), now)
                overrun = None if each.line is None else each.line.pace.overrun
                found = ExpectedWait(seconds, overrun, priority=question.priority, retry=retry)
        return found

    def _with_its_adapter(
        self, question: Question, queue: Queue | None, now: float
    ) -> ExpectedWait | None:
        """Return the wait of a request whose adapter waits already; ``None``: that is not known.

        When one queue of the adapter gets a slot, the others follow. So a request of a higher
        priority waits for no longer than one of a lower priority that came before.

        Args:
            question: What is asked.
            queue: The queue that asks the same; ``None``: there is none.
            now: The time.
        """
        found: ExpectedWait | None = None
        for each in self._of_its_adapter(question, queue):
            if each.hold.reason == NO_ROOM or (at := self._expected_at(each, now)) is None:
                continue
            wait = self._of_queue(each, at, now)
            if wait.seconds is None:
                return wait
            if found is None or wait.seconds < (found.seconds or 0.0):
                found = wait
        return found

    def _of_its_adapter(self, question: Question, queue: Queue | None) -> Iterator[Queue]:
        """Yield the first queues for the same adapter and pods, whoever asks.

        Those that wait for room like requests of a base model are left out.

        Args:
            question: What is asked.
            queue: The queue that asks the same, which is the first one; ``None``: there is none.
        """
        with closing(self._roll.in_order(question.model).in_turn()) as in_turn:
            own = () if queue is None else (queue,)
            for each in chain(own, islice(in_turn, _COMPARED)):
                is_same = each.question[:WHO_ASKS] == question[:WHO_ASKS]
                if is_same and each.hold.wakes_on is not WakesOn.ROOM:
                    yield each

    def _expected_at(self, queue: Queue, now: float) -> float | None:
        """Return when the first request of a queue is expected to leave; ``None``: nobody knows."""
        line = queue.line
        if queue.expected_at is None and line and line.pace.seconds_for(0, now) is not None:
            return now  # The pace of its line is known by now, so its place in line counts.
        return queue.expected_at

    def _of_queue(self, queue: Queue, expected_at: float, now: float) -> ExpectedWait:
        """Return how long the first request of a queue waits from now on."""
        line = queue.line
        if line is None:
            return UNKNOWN
        if expected_at > now:
            return ExpectedWait(expected_at - now, loading=line.pace.loading)
        # Grants stand still, or others were served before it.
        ahead = self._ahead(queue.question, line.before(queue), queue.bases)
        slots = line.candidates.load().slots
        if ahead is None or ahead.number < self._overload.most_closed(slots):
            return UNKNOWN
        seconds = line.pace.retry_seconds(ahead.everywhere, now, ahead.here)
        return ExpectedWait(seconds, loading=line.pace.loading)

    def _by_place(
        self, question: Question, queue: Queue | None, candidates: Candidates, now: float
    ) -> ExpectedWait:
        """Return the wait for a slot of a request, by how many are served before it."""
        if queue is None:
            line = self._lines.find(question.algorithm, candidates, for_room=False)
        else:
            line = queue.line
        pace = self._lines.pace_of(question.algorithm, candidates) if line is None else line.pace
        own = None
        if line is not None:
            turn = self._turn(question, line, candidates)
            own = line.ahead_of(question, turn) - (queue is not None)
        ahead = self._ahead(question, own, candidates.base_models)
        if pace is None or ahead is None:
            return UNKNOWN
        seconds = None
        if queue is None:
            seconds = pace.seconds_for(ahead.everywhere, now, ahead.here)
        if seconds is None:
            return self._while_emptied(question, pace, ahead.number, candidates)
        if ahead.number < self._overload.most_closed(candidates.load().slots):
            return UNKNOWN
        if ahead.waits_at_peer:
            return ExpectedWait(seconds, loading=pace.loading)
        priority, tenant, refused = question.priority, question.tenant, pace.overrun.refused
        if not tenant or line is None:
            here = ahead.here + refused.count(now, priority)
            unrefused = pace.seconds_for(ahead.everywhere, now, here)
            retry = pace.retry_seconds(ahead.everywhere, now, here)
            return ExpectedWait(
                seconds, pace.overrun, unrefused, pace.loading, priority, retry=retry
            )
        of_tenant, of_one = (
            line.ahead_of(question, turn) + 1 + before
            for turn, before in self._rounds(question, line, candidates, now)
        )
        unrefused = pace.seconds_for(-1, now, of_tenant)
        alone = pace.seconds_for(-1, now, of_one)
        retry = pace.retry_seconds(-1, now, of_tenant)
        return ExpectedWait(
            seconds, pace.overrun, unrefused, pace.loading, priority, tenant, alone, retry
        )

    def _turn(self, question: Question, line: Line, candidates: Candidates) -> int:
        """Return the round of a request that comes to a line now."""
        turns = self._turns.of(candidates.base_models, question.priority)
        return turns.peek(question.tenant, line.rounds.current(turns))

    def _rounds(
        self, question: Question, line: Line, candidates: Candidates, now: float
    ) -> Iterator[tuple[int, int]]:
        """Yield the round of a tenant's request, and how many that were refused are before it.

        First that of the request, and then as if it was the only one of its tenant.
        """
        priority, refused = question.priority, line.pace.overrun.refused
        own = refused.of_tenant(priority, question.tenant)
        yield self._turn(question, line, candidates), refused.count(now, priority, own + 1)
        turns = self._turns.of(candidates.base_models, priority)
        yield line.rounds.current(turns), refused.count(now, priority, 1)

    def _ahead(self, question: Question, own: int | None, bases: BaseModels) -> "_Ahead | None":
        """Return how many get a slot before a request; ``None``: nobody waits for one.

        Args:
            question: What the request asks.
            own: How many are before it in its line; ``None``: there is no line.
            bases: The base models of the pods that may take it.
        """
        at_peers, priority = self._at_peers, question.priority
        before = at_peers.before(question.model, priority)
        if before is not None:
            return _Ahead(before, waits_at_peer=True)
        if question.tenant:  # Whose turn it is at peers is not known.
            return None if own is None else _Ahead(-1, own + 1)
        others = at_peers.count_of(bases, priority)
        if own is None:
            return _Ahead(others) if others else None
        return _Ahead(own + others)

    def _for_room(self, question: Question, candidates: Candidates, now: float) -> ExpectedWait:
        line = self._lines.find(question.algorithm, candidates, for_room=True)
        if line is None:
            return UNKNOWN
        queue = self._roll.queues.get(question)
        own = 0 if queue is None else len(queue.requests)
        ahead = line.ahead_of(question, self._turn(question, line, candidates), own)
        pace, overrun, refused = line.pace, line.pace.overrun, line.pace.overrun.refused
        seconds, priority, tenant = pace.seconds_for(ahead, now), question.priority, question.tenant
        if not tenant:
            before = refused.count(now, priority)
            unrefused = pace.seconds_for(ahead, now, before)
            retry = pace.retry_seconds(ahead, now, before)
            return ExpectedWait(seconds, overrun, unrefused, pace.loading, priority, retry=retry)
        (_, before), (turn, before_one) = self._rounds(question, line, candidates, now)
        unrefused = pace.seconds_for(ahead, now, before)
        retry = pace.retry_seconds(ahead, now, before)
        alone = pace.seconds_for(line.ahead_of(question, turn), now, before_one)
        return ExpectedWait(
            seconds, overrun, unrefused, pace.loading, priority, tenant, alone, retry
        )

    def _while_emptied(
        self, question: Question, pace: Pace, ahead: int, candidates: Candidates
    ) -> ExpectedWait:
        """Return the expected wait for a slot where the pace is not known.

        Args:
            question: What the request asks.
            pace: The pace of the line in which the request would wait.
            ahead: How many would be served before it.
            candidates: The pods that may take the request.
        """
        left = self._slots.seconds_left(question.model)
        slots = candidates.load().slots
        if left is None or ahead < self._overload.most_closed(slots):
            return UNKNOWN
        seconds = (left + ahead * self._slots.seconds) / max(slots, 1)
        return ExpectedWait(seconds, pace.overrun, priority=question.priority)

    def refuse(self, question: Question, hold: Hold, wait: ExpectedWait) -> None:
        """Count a request that is refused because of its expected wait."""
        for_room = hold.wakes_on is WakesOn.ROOM
        # Those of one adapter that wait for a slot leave together, so they count once.
        is_new = wait.refuse(object() if for_room else question.model, self._clock.now())
        if is_new and not for_room:
            priority = within_bounds(question.priority)
            self.on_refused(question.model, wait.if_none_refused, priority)

    def hear_refused(self, adapter: str, bases: BaseModels, seconds: float, priority: int) -> None:
        """Count an adapter that a peer refused a slot early.

        Args:
            adapter: The adapter.
            bases: The base models of the pods that list it.
            seconds: How long it would wait.
            priority: The priority of the request that was refused.
        """
        now = self._clock.now()
        for pace in self._lines.paces_of(bases):
            pace.overrun.refused.add(adapter, priority, now, seconds)

    def begin(self, queue: Queue) -> None:
        """Estimate when a queue that is new in its line will leave."""
        line, now = queue.line, self._clock.now()
        if line is not None and not line.for_room:
            own = line.ahead_of(queue.question, queue.turn) - 1
            ahead = self._ahead(queue.question, own, queue.bases)
            assert ahead is not None  # noqa: S101 -- it has a line
            seconds = line.pace.seconds_for(ahead.everywhere, now, ahead.here)
            queue.expected_at = None if seconds is None else now + seconds

    def granted(self, held: Held, loading: float) -> None:
        """Count a request that waits and is routed now, before it leaves its queue.

        Args:
            held: The request.
            loading: Seconds that loading its adapter takes.
        """
        queue, now = held.queue, self._clock.now()
        if queue is None:
            return
        queue.turn_is_served = True
        if queue.line is None:
            return
        queue.pace.granted(now)
        queue.line.rounds.served(queue.turns, queue.turn)
        if queue.line.for_room or not queue.granted:
            queue.granted = True
            queue.line.pace.granted(now, loading)
        if queue.line.for_room and len(queue.requests) > 1:
            tenant, turns = queue.question.tenant, queue.turns
            turns.leave(tenant)
            queue.turn = turns.next(tenant, queue.line.rounds.current(turns))
            queue.turn_is_served = False


def _alone(wait: ExpectedWait) -> ExpectedWait:
    """Return the wait of a request that takes no turn of its own, so that it is no overload."""
    return ExpectedWait(wait.seconds, loading=wait.loading, retry=wait.retry)


def _ignore(_adapter: str, _seconds: float, _priority: int) -> None:
    """Do nothing."""
