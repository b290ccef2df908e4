"""The waiting room: which requests wait, for what, since when, and which one is asked for next.

Rules:

- A request waits in one queue, and a queue in one line (``waiting_queue``). This module is the only
  source of what waits: seniority, and the slot that is being freed for a queue, are read from here.
- A change wakes the queues whose answer it can change:

  ======================================  ==========================================
  a pod has a free slot                   its lines: the highest priority first, and of one
                                          priority the queue that is cheapest to serve there,
                                          waiting counted (``waiting_queue``)
  an adapter came in flight on a pod      the queues of that adapter (``joining``)
  a closed slot is open again             the queues of the adapter in it
  the slot closed for a queue is empty    that queue, before the lines
  pods or their models changed            the lines that have a free slot now
  ``Hold.ask_again`` is over              that queue
  the time of a request is up             that request, for the last time
  ======================================  ==========================================

  Queues whose algorithm answered ``WakesOn.ANY_CHANGE`` are woken by each of these changes.
- So a release, a scrape, or a change of pods that lets no request go costs the same for any number
  of waiting requests.
- Work that grows with the number of those that wait is done in steps (``agenda``, ``asking``).
- Slots are emptied for queues that have waited for long (``emptying``).
- ``Limits`` bounds the number of waiting requests.
- Each request leaves in exactly one way: routed, refused, or cancelled.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from lora_router.clock import Clock
from lora_router.fleet.catalog import BaseModels, Catalog
from lora_router.fleet.pod_allotments import PodAllotments
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.agenda import Agenda
from lora_router.routing.alarms import Alarms
from lora_router.routing.algorithm import Hold, WakesOn
from lora_router.routing.asking import Asking, Item, Receptionist
from lora_router.routing.candidates import Candidates
from lora_router.routing.closed_slots import ClosedSlots
from lora_router.routing.emptying import Emptying
from lora_router.routing.expected_waits import ExpectedWaits
from lora_router.routing.misplaced import Misplaced
from lora_router.routing.overload import DRAIN_SECONDS, Overload, patience
from lora_router.routing.pod_room import Rooms
from lora_router.routing.question import Question
from lora_router.routing.roll import Limits, Roll
from lora_router.routing.selection import Selection
from lora_router.routing.turns_of_tenants import Turns
from lora_router.routing.waiting_lines import Lines
from lora_router.routing.waiting_queue import Held, Queue


class WaitingRoom:
    """All requests that wait in this router."""

    def __init__(
        self,
        receptionist: Receptionist,
        clock: Clock,
        limits: Limits,
        overload: Overload,
        peers: PodAllotments,
        max_hold_seconds: float,
        pods: Rooms,
    ) -> None:
        """Create an empty room.

        Args:
            receptionist: Asks the algorithms.
            clock: The time.
            limits: How many requests may wait.
            overload: How much is done for those that wait.
            peers: Which slots peers have closed, and who waits there.
            max_hold_seconds: How long requests wait at most.
            pods: Knows which pods have room, apart from slots.
        """
        self._pods = pods
        self._clock = clock
        self.patience_seconds = patience(max_hold_seconds)
        self.held = 0
        """The number of requests that wait. Each request that arrives looks at it."""
        self.roll = Roll(limits)
        """Who waits."""
        self._lines = self.lines = Lines(pods.has_room, clock, peers.waiting)
        self._turns = Turns()
        self._closed = ClosedSlots(clock.now)
        self.waits = ExpectedWaits(
            self.roll, self._lines, overload, clock, self._turns, self._closed, peers.waiting
        )
        """How long requests will probably wait."""
        self._agenda: Agenda[Item] = Agenda(clock)
        self._asking = Asking(receptionist, self._agenda, self._lines, clock, self.roll, pods)
        self._joiners = self._asking.joiners
        self.slots = Emptying(
            self._closed, overload, peers, self._joiners, pods, clock, self._agenda.add
        )
        """The slots that are emptied for those that wait."""
        self._agenda.work_on = self._asking.work
        self._alarms = Alarms(clock, self._ask_again)

    # What algorithms see (``who_waits.Waiting``)

    @property
    def closed_slots(self) -> int:
        """How many slots are closed."""
        return len(self._closed)

    def held_of(self, bases: BaseModels) -> int:
        """Return how many requests wait for pods that serve some base models."""
        return self.roll.held_of(bases)

    def closed_to(self, adapter: str) -> Collection[PodView]:
        """Return the pods that must get no further requests for an adapter."""
        return self._closed.closed_to(adapter)

    def is_closed(self, pod: PodView, adapter: str) -> bool:
        """Return whether a pod must get no further requests for an adapter."""
        return pod in self._closed.closed_to(adapter)

    def is_closable(self, pod: PodView, adapter: str) -> bool:
        """Return whether the slot of an adapter may be closed now."""
        return self.slots.is_closable(pod, adapter)

    def waits_on(self, adapter: str) -> Collection[PodView]:
        """Return the pods on which requests for an adapter wait for a slot."""
        return self.slots.waits_on(adapter)

    def serving(self, model: str) -> Sequence[PodView]:
        """Return all ready pods that serve a model."""
        return self._pods.serving(model)

    def drains(self, adapter: str) -> bool:
        """Return whether a slot of an adapter is being emptied, and not for long yet."""
        return self._closed.closed_since(adapter) > self._clock.now() - DRAIN_SECONDS

    def seconds_left(self, adapter: str) -> float | None:
        """Return how long a slot of an adapter will probably be emptied; ``None``: none is."""
        return self._closed.seconds_left(adapter)

    def may_close(self, bases: BaseModels, slots: int, *, has_one: bool = False) -> bool:
        """Return whether a further slot may be closed."""
        return self.slots.may_close(bases, slots, has_one=has_one)

    # Who waits

    def queue_of(self, question: Question) -> Queue | None:
        """Return the queue of a question; ``None``: no request waits with it."""
        return self.roll.queues.get(question)

    def queues(self) -> Iterable[Queue]:
        """Return all queues."""
        return self.roll.queues.values()

    def displaced_by(self, question: Question, candidates: Candidates) -> Collection[Held] | None:
        """Return the requests to refuse so that another one may wait; ``None``: it may not.

        Args:
            question: What it asks.
            candidates: The pods that may take it.
        """
        lines, roll, displaced = self.lines, self.roll, dict[Held, None]()
        if not lines.may_take(question.algorithm, candidates):
            line = lines.to_displace(question)
            if line is None:
                return None
            displaced.update((held, None) for queue in line.queues for held in queue.requests)
        if roll.is_full(question.model):
            last = roll.displaced_by(question)
            if last is None:
                return None
            displaced[last] = None
        return displaced

    def add(self, held: Held, hold: Hold, candidates: Candidates, bases: BaseModels) -> None:
        """Add a request that its algorithm holds.

        ``bases`` are the base models of the pods that may take it now, or once they can.
        """
        question, roll = held.question, self.roll
        queue = roll.queues.get(question)
        is_new = queue is None
        if queue is None:
            queue = roll.open(question, hold, bases)
            queue.pace.start(held.since)
            queue.turns = turns = self._turns.enter(bases, question.priority)
            for_room = hold.wakes_on is WakesOn.ROOM
            line = self._lines.find(question.algorithm, candidates, for_room=for_room)
            current = None if line is None else line.rounds.current(turns)
            queue.turn = turns.next(question.tenant, current)
        roll.enter(held, queue)
        self.held = roll.held
        if queue.line is not None and queue.line.for_room:
            queue.line.count(queue, 1)
        left = max(0.0, held.since + held.seconds - self._clock.now())
        held.timer = self._clock.call_later(left, lambda: self.expire(held))
        self.still_held(held, hold, candidates)
        if is_new:
            self.waits.begin(queue)

    def still_held(self, held: Held, hold: Hold, candidates: Candidates) -> None:
        """Record the new ``Hold`` of a request that continues to wait."""
        queue = held.queue
        if queue is None:
            return
        queue.hold, line = hold, queue.line
        self.roll.homes.move(held, hold.home)
        self.roll.changed[queue.question.model] = None
        self._lines.place(queue, candidates)
        if hold.wakes_on is WakesOn.ROOM and line is not None and not line.for_room:
            self._wait_for_room_like(queue)
        waited = 0.0 if queue.since is None else self._clock.now() - queue.since
        self.slots.held(queue, is_impatient=waited >= self.patience_seconds)
        if hold.ask_again is not None:
            self._alarms.set(queue, hold.ask_again)
        self._agenda.work()

    def _wait_for_room_like(self, queue: Queue) -> None:
        """Let queues wait for room that waited for a slot of the same adapter, like this one.

        It is in flight by now, so that they need no slot, and must not be served before those that
        waited for room for longer.
        """
        others = [each for each in self._lines.like(queue) if each.closing is None]
        for each in others:
            each.hold = replace(each.hold, wakes_on=WakesOn.ROOM)
            self.roll.changed[each.question.model] = None
        self._asking.resettle(others)

    def remove(self, held: Held) -> bool:
        """Remove a request; return whether it was waiting."""
        queue = held.queue
        if queue is None:
            return False
        self.roll.leave(held, queue)
        self.held = self.roll.held
        if queue.line is not None and queue.line.for_room:
            queue.line.count(queue, -1)
        if held.timer is not None:
            held.timer.cancel()
        self._agenda.drop(held)  # If it waits in another queue now, its time is not up.
        if queue.requests:
            if queue.line is not None:
                queue.line.put(queue)
            return True
        self._lines.remove(queue)
        if not queue.turn_is_served:
            queue.turns.give_back(queue.question.tenant, queue.turn)
        queue.turns.leave(queue.question.tenant)
        self._turns.leave(queue.bases, queue.question.priority)
        self.slots.left(queue)
        self._agenda.work()
        return True

    def expire(self, held: Held) -> None:
        """Decide a request, because its time is up."""
        if held.queue is not None:
            self._agenda.add(held)
            self._agenda.work()

    def expire_queues_of(self, model: str, selections: Collection[Selection] | None = None) -> None:
        """Decide all requests for a model, because nothing is gained by waiting.

        Args:
            model: The model.
            selections: Only requests that may go to these pods; ``None``: all.
        """
        for queue in self.roll.of_model(model, selections):
            for held in queue.requests:
                self._agenda.add(held)
        self._agenda.work()

    def expire_all(self) -> None:
        """Decide all requests, because the router is about to stop."""
        for queue in self.roll.queues.values():
            for held in queue.requests:
                self._agenda.add(held)
        self._agenda.work()

    # What changed

    def released(self, states: Collection[PodState]) -> None:
        """Wake queues after requests of this router ended on pods."""
        self.slots.settle(states)
        if self.held:
            self._wake_for_room(states)
            self._agenda.work()

    def reported(self, states: Collection[PodState]) -> None:
        """Wake queues after a scrape or a peer reported something new about pods."""
        self.slots.settle(states)
        if self.held:
            self._wake_for_room(states, foreign_too=True)
            self._agenda.work()

    def pods_changed(
        self, states: Collection[PodState], catalogs: Collection[Catalog] = ()
    ) -> None:
        """Wake queues after pods joined, left, or changed, or their models changed.

        Args:
            states: The records of the pods.
            catalogs: The catalogs that ready pods serve since then, or serve no longer. Only
                queues of models in them can have other candidates than the rest of their line.
        """
        if not self.held:
            return
        for line in self._lines.in_order():
            line.stale = True
            self._agenda.add(line)
        for catalog in catalogs:
            models = self.roll.models
            for model in (*(models & catalog.adapters.keys()), *(models & catalog.base_models)):
                self._asking.resettle(self.roll.of_model(model))
        for state in states:
            self._joiners.wake(state, state.beliefs.foreign_adapters)
            self._joiners.wake(state, state.in_flight_adapters)
            for owner in self._closed.on(state):
                if isinstance(owner, Queue):
                    self._agenda.add(owner)
        self._agenda.work()

    def joined(self, adapter: str, state: PodState) -> None:
        """Wake an adapter's queues after a request was routed to a pod: others may follow it."""
        for line in self._lines:
            line.pace.overrun.refused.served(adapter)
        self._joiners.follow(state, adapter)
        self.slots.joined(adapter)
        self._agenda.work()

    # Waking

    def _wake_for_room(self, states: Collection[PodState], *, foreign_too: bool = False) -> None:
        """Wake those that can use what pods have: a free slot, or room."""
        with_room = self._lines.with_room(states)
        any_change = [line for line in self._lines if line.any_change]
        for state in states:
            # First: otherwise the adapter that was in the slot, which is cheapest there, takes it
            # back.
            for owner in self._closed.empty_on(state):
                if isinstance(owner, Queue):
                    self._agenda.add(owner)
            lines = with_room.get(state, ())
            for_slot = [line for line in lines if not line.for_room]
            for line in self._lines.in_order_on(state, for_slot):
                line.freed[state] = None
                self._agenda.add(line)
            while any_change:
                self._agenda.add(any_change.pop(0))
            # Requests for base models and adapters compete for the same room.
            joining = state.in_flight_adapters if self._pods.may_be_full(state) else ()
            self._joiners.wake(state, joining, [line for line in lines if line.for_room])
            if foreign_too:
                self._joiners.wake(state, state.beliefs.foreign_adapters)

    def misplaced(
        self, state: PodState, adapter: str, slots: int, heir: Misplaced | None = None
    ) -> None:
        """Close a slot of a pod for an adapter that waits there (``Emptying.misplaced``)."""
        self.slots.misplaced(state, adapter, slots, heir)
        self._agenda.work()

    def _ask_again(self, queues: Iterable[Queue]) -> None:
        for queue in queues:
            self._agenda.add(queue)
        self._agenda.work()
