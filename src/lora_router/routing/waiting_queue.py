"""Queues of held requests, and the lines in which queues stand that wait for the same pods.

Requests that ask the same question (``question``) wait in one ``Queue``; only the first is asked.

The queues of a line stand in order of priority and then of seniority: of equal queues, the one
whose first request has waited longest is first. ``order_of_asking`` says who gets a slot.

Of the requests of one queue that wait for room, one whose prompt begins in the cache of the pod
with room goes before those that came up to ``HOME_SECONDS`` earlier.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from msgspec import structs

from lora_router.clock import Timer
from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.algorithm import Hold, InferenceRequest, WakesOn
from lora_router.routing.candidates import Candidates
from lora_router.routing.in_order import InOrder, Place
from lora_router.routing.looks import NO_LOOKS, Looks
from lora_router.routing.pace import Pace
from lora_router.routing.question import Question
from lora_router.routing.slot_on_pod import has_slot, slot_cost
from lora_router.routing.turns_of_tenants import LineRounds, TurnsOfTenants

_KNOWN_AFTER_SECONDS = 2.0
"""How long a queue waits until it is known that its requests leave slowly."""
_COUNTED = 256
"""How many queues are looked at to find out how many are served before a tenant's request."""
HOME_SECONDS = 1.0
"""With a lower value, more prompts are processed again that are in the cache of another pod. With a
higher value, conversations that begin wait for longer."""

HasRoom = Callable[[PodView, str], bool]
"""Returns whether a pod has room for another request of an algorithm."""


@dataclass(slots=True, eq=False)
class Held:
    """A request that waits in the router for a pod."""

    question: Question
    request: InferenceRequest
    number: int
    """Sequence number in order of arrival."""
    since: float
    """When it was held, on the director's clock."""
    seconds: float
    """The longest it may wait, from ``since``."""
    on_cancel: Callable[["Held"], None]
    reason: str = ""
    """Why it was held, as its algorithm said first."""
    home: PodView | None = None
    """The pod that has the beginning of its prompt, if it waits for room and that is worth much."""
    looks: Looks = NO_LOOKS
    """What was seen of the candidates then, if decisions are recorded."""
    timer: Timer | None = None
    """Fires when the time is up."""
    queue: "Queue | None" = None
    """The queue in which it waits; ``None`` once it has left."""
    is_answered: bool = False
    """Whether its client gets an answer otherwise, so that it does not count as cancelled."""

    @property
    def place(self) -> Place:
        """Where it belongs among the requests of its queue."""
        return 0, 0, self.number

    def withdraw(self) -> None:
        """Forget the request, because its client gets another answer, which counts instead."""
        self.is_answered = True
        self.cancel()

    def ask_for(self, adapter: str) -> None:
        """Ask for another adapter. It must be in no queue."""
        self.question = self.question._replace(model=adapter)
        self.request = structs.replace(self.request, model=adapter, adapter=adapter)

    def cancel(self) -> None:
        """Forget the request, because its client has left. Does nothing the second time."""
        self.on_cancel(self)


@dataclass(slots=True, eq=False)
class Queue:
    """Requests that ask the same question, in order of arrival."""

    question: Question
    hold: Hold
    """The algorithm's last answer."""
    bases: BaseModels = frozenset()
    """The base models of the pods that may take the requests."""
    requests: OrderedDict[Held, None] = field(default_factory=OrderedDict)
    by_home: dict[PodView, InOrder[Held]] = field(default_factory=dict)
    """Those with a ``home``, by it, in order of arrival (``homes``)."""
    line: "Line | None" = None
    closing: tuple[PodState, str] | None = None
    """The slot that is closed for the queue: a pod, and the adapter in it."""
    alarm: float | None = None
    """The latest time at which to ask again."""
    turns: TurnsOfTenants = field(default_factory=TurnsOfTenants)
    """The rounds of its base models and priority."""
    turn: int = 0
    """The round of its tenant in which it is served."""
    turn_is_served: bool = False
    """Whether a request of it was routed in that round."""
    expected_at: float | None = None
    """When its first request will probably leave, as estimated when the queue was made."""
    granted: bool = False
    """Whether a request of it was routed."""
    pace: Pace = field(default_factory=lambda: Pace(_KNOWN_AFTER_SECONDS))
    """How fast its requests leave, if they cannot leave together."""

    @property
    def first(self) -> Held | None:
        """The request that has waited longest; ``None`` once the queue is empty."""
        return next(iter(self.requests), None)

    def first_for(self, pod: PodView | None) -> Held | None:
        """Return the request that gets the room on a pod; ``None`` once the queue is empty.

        It is the first one, or one that came up to ``HOME_SECONDS`` later and has its home there.
        """
        first = self.first
        if first is None or pod is None or (at_home := self.first_at_home(pod)) is None:
            return first
        return at_home if at_home.since - first.since <= HOME_SECONDS else first

    def first_at_home(self, pod: PodView) -> Held | None:
        """Return the first request that has its home on a pod; ``None``: none has."""
        at_home = self.by_home.get(pod)
        found = None if at_home is None else at_home.first()
        return None if found is None else found[1]

    @property
    def steps(self) -> int:
        """How many steps of the agenda it takes to ask for one of its requests.

        It is one for each ``FULL_LOOK`` pods that its algorithm inspects.
        """
        line = self.line
        if line is None:
            return 1
        candidates = line.candidates
        return candidates.looks + candidates.looks_to_find if line.stale else candidates.looks

    @property
    def place(self) -> Place:
        """Where it belongs in a line."""
        first = self.first
        number = 0 if first is None else first.number
        return -self.question.priority, self.turn, number

    def among_lines(self, place: Place) -> Place:
        """Return a place in its line so that places in other lines compare with it.

        Lines are served at different paces, so rounds count from the one that is served there.
        """
        if self.line is None:
            return place
        priority, turn, number = place
        return priority, turn - self.line.rounds.current(self.turns), number

    def take_turn(self, current: int) -> None:
        """Wait for a round of another line from now on.

        Args:
            current: The round that is being served there.
        """
        tenant, turns = self.question.tenant, self.turns
        if not self.turn_is_served:
            turns.give_back(tenant, self.turn)
        turns.leave(tenant)
        self.turn, self.turn_is_served = turns.next(tenant, current), False

    @property
    def since(self) -> float | None:
        """When that request was held."""
        first = self.first
        return None if first is None else first.since

    def cost_on(self, pod: PodState, now: float) -> float:
        """Return what the slot of a pod costs its first request (``slot_on_pod``)."""
        first = self.first
        return 0.0 if first is None else slot_cost(first.request.adapter, pod, now - first.since)


class Line:
    """Queues of one algorithm that wait for the same pods."""

    __slots__ = (
        "_has_room",
        "algorithm",
        "any_change",
        "candidates",
        "for_room",
        "freed",
        "is_mixed",
        "pace",
        "question",
        "queues",
        "rounds",
        "stale",
        "tenant",
        "waiting",
    )

    def __init__(
        self,
        algorithm: str,
        candidates: Candidates,
        pace: Pace,
        has_room: HasRoom,
        *,
        for_room: bool,
    ) -> None:
        self.algorithm = algorithm
        self.for_room = for_room
        """Whether its queues wait for room on a pod, and not for a slot."""
        self.pace = pace
        """How fast its queues get slots, or its requests get room."""
        self.waiting: dict[int, int] = {}
        """By priority, the queues that wait for a slot, or the requests that wait for room."""
        self.rounds = LineRounds()
        """Which tenants' turn it is."""
        self._has_room = has_room
        self.tenant = 0
        """Whose queues these all are; 0: of nobody in particular, or of several."""
        self.queues: InOrder[Queue] = InOrder()
        self.any_change: dict[Queue, None] = {}
        """The queues that must be asked after every change."""
        self.freed: dict[PodState, None] = {}
        """Pods on which a slot became free, and is not taken yet."""
        self.renew(candidates)

    def renew(self, candidates: Candidates) -> None:
        """Replace the candidates after pods changed."""
        self.candidates = candidates
        self.freed = {}
        self.stale = False
        """Whether pods changed since then."""
        self.question: Question | None = None
        """What the first queue that found these candidates asks."""
        self.is_mixed = False
        """Whether other queues came to these pods otherwise, so that they may find others next."""

    def found_by(self, queue: Queue, candidates: Candidates) -> None:
        """Record that a queue found these pods."""
        first, question = self.question, queue.question
        if first is None:
            self.question = question
        elif (
            candidates is not self.candidates
            or first.pod_filter != question.pod_filter
            or first.subset != question.subset
        ):
            self.is_mixed = True

    def put(self, queue: Queue) -> None:
        """Add a queue that has a request, or take its new first request and its last ``Hold``."""
        if queue.line is not self:
            tenant = queue.question.tenant
            self.tenant = tenant if tenant == self.tenant or not self.queues else 0
            queue.line = self
            self.rounds.enter(queue.turns)
            self.count(queue, len(queue.requests) if self.for_room else 1)
        if queue.hold.wakes_on is WakesOn.ANY_CHANGE:
            self.any_change[queue] = None
        else:
            self.any_change.pop(queue, None)
        self.queues.put(queue)

    def count(self, queue: Queue, more: int) -> None:
        """Count what waits in a queue."""
        priority = queue.question.priority
        left = self.waiting.get(priority, 0) + more
        if left:
            self.waiting[priority] = left
        else:
            self.waiting.pop(priority, None)

    def ahead_of(self, question: Question, turn: int, own: int = 0) -> int:
        """Return how many are served before one that comes now.

        Args:
            question: What it asks.
            turn: The round of its tenant.
            own: The requests of its own queue that wait already.
        """
        if not question.tenant:
            return sum(n for each, n in self.waiting.items() if each >= question.priority)
        ahead = 0
        place = -question.priority, turn
        for queue, at in islice(self.queues.places(), _COUNTED):
            if queue.question.priority < question.priority:
                continue
            if self.for_room:  # Each tenant is served once in a round.
                ahead += min(len(queue.requests), own + 1)
            else:
                ahead += at[:2] <= place
        return ahead

    @property
    def highest_priority(self) -> int:
        """The highest priority that waits."""
        return max(self.waiting)

    def has_more_requests(self, than: int) -> bool:
        """Return whether more requests wait. That costs as much as ``than`` is."""
        if self.for_room:
            return sum(self.waiting.values()) > than
        return len(self.queues) > than or sum(len(each.requests) for each in self.queues) > than

    def before(self, queue: Queue) -> int:
        """Return how many are served before a queue of it."""
        place = queue.place
        return sum(at < place for _, at in islice(self.queues.places(), _COUNTED))

    def first_place(self) -> Place:
        """Return the place of its first queue among those of other lines."""
        first = self.queues.first()
        return (0, 0, 0) if first is None else first[1].among_lines(first[0])

    def cost_on(self, pod: PodState, now: float) -> float:
        """Return what the slot of a pod costs its first queue."""
        first = self.queues.first()
        return 0.0 if first is None else first[1].cost_on(pod, now)

    def has_room_on(self, pod: PodView) -> bool:
        """Return whether a pod has what the queues wait for."""
        if self.for_room:
            return self._has_room(pod, self.algorithm)
        return has_slot(pod)

    def has_room(self) -> bool:
        """Return whether some pod has what the queues wait for."""
        if not self.for_room:
            return self.candidates.has_free_slot()
        return any(self._has_room(pod, self.algorithm) for pod in self.candidates)

    def remove(self, queue: Queue) -> None:
        """Drop a queue."""
        queue.line = None
        self.rounds.leave(queue.turns)
        self.queues.remove(queue)
        self.count(queue, -len(queue.requests) if self.for_room else -1)
        self.any_change.pop(queue, None)

    def freed_pod(self) -> PodState | None:
        """Return a pod on which a slot became free, and still is; ``None``: none is known."""
        while self.freed:
            pod = next(iter(self.freed))
            if self.has_room_on(pod):
                return pod
            del self.freed[pod]
        return None
