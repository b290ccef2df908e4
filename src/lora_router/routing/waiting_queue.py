"""Queues of held requests, and the lines in which queues stand that wait for the same pods.

A *question* is what an algorithm is asked: algorithm, model, filter, subset and priority. Requests
that ask the same question get the same answer, so they wait in one ``Queue``, and only the first is
asked.

The queues of a line stand in order of priority and then of seniority: of equal queues, the one
whose first request has waited longest is first.

A slot that became free goes to the queue whose adapter is cheapest to bring to its pod, of the
``COMPARED`` first queues of the highest priority: the seconds that loading the adapter takes, less
the time that its first request has waited times ``WAITING_WEIGHT``. So a queue is passed over only
for so long: a load from disk (1.5 s) is outweighed after 4.5 s, even by a load that costs nothing.

Of the requests of one queue that wait for room, one whose prompt begins in the cache of the pod
with room goes before those that came up to ``HOME_SECONDS`` earlier.
"""

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from lora_router.clock import Timer
from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.algorithm import Hold, InferenceRequest, WakesOn
from lora_router.routing.candidates import Candidates
from lora_router.routing.in_order import InOrder, Place
from lora_router.routing.looks import NO_LOOKS, Looks
from lora_router.routing.pace import Pace
from lora_router.routing.selection import Selection
from lora_router.routing.turns_of_tenants import LineRounds, TurnsOfTenants

_KNOWN_AFTER_SECONDS = 2.0
"""How long a queue waits until it is known that its requests leave slowly."""
COMPARED = 8
"""How many queues are compared for a free slot. A lower value loads adapters more often. A higher
value makes a release take longer, however many requests wait."""
WAITING_WEIGHT = 1 / 3
"""How many seconds of load a second of waiting outweighs. A lower value loads adapters less often.
A higher value makes those that waited longest wait less."""
HOME_SECONDS = 1.0
"""With a lower value, more prompts are processed again that are in the cache of another pod. With a
higher value, conversations that begin wait for longer."""
_COUNTED = 256
"""How many queues are looked at to find out how many are served before a tenant's request."""

HasRoom = Callable[[PodView, str], bool]
"""Returns whether a pod has room for another request of an algorithm."""


class Question(NamedTuple):
    """What an algorithm is asked."""

    algorithm: str
    model: str
    pod_filter: str | None
    subset: frozenset[str] | None
    priority: int = 0
    tenant: int = 0
    """Who asks, as a hash; 0: nobody in particular."""

    @property
    def selection(self) -> Selection:
        """The pods to which requests that ask it may go."""
        return Selection(self.pod_filter, self.subset)


WHO_ASKS = Question._fields.index("priority")
"""The fields from here on say who asks. The others decide which pods there are to choose from."""


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

    def withdraw(self) -> None:
        """Forget the request, because its client gets another answer, which counts instead."""
        self.is_answered = True
        self.cancel()

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
    by_home: dict[PodView, OrderedDict[Held, None]] = field(default_factory=dict)
    """Those with a ``home``, by it, in order of arrival."""
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
        if first is None or pod is None or pod not in self.by_home:
            return first
        at_home = next(iter(self.by_home[pod]))
        return at_home if at_home.since - first.since <= HOME_SECONDS else first

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

    @property
    def since(self) -> float | None:
        """When that request was held."""
        first = self.first
        return None if first is None else first.since


class Line:
    """Queues of one algorithm that wait for the same pods."""

    __slots__ = (
        "_has_room",
        "algorithm",
        "any_change",
        "candidates",
        "for_room",
        "freed",
        "pace",
        "queues",
        "rounds",
        "stale",
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

    def put(self, queue: Queue) -> None:
        """Add a queue that has a request, or take its new first request and its last ``Hold``."""
        if queue.line is not self:
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

    def before(self, queue: Queue) -> int:
        """Return how many are served before a queue of it."""
        place = queue.place
        return sum(at < place for _, at in islice(self.queues.places(), _COUNTED))

    def first_place(self) -> Place:
        """Return the place of its first queue."""
        first = self.queues.first()
        return (0, 0, 0) if first is None else first[0]

    def cost_on(self, pod: PodState, now: float) -> float:
        """Return what the slot of a pod costs its first queue (``_cost``)."""
        first = self.queues.first()
        return 0.0 if first is None else _cost(first[1], pod, now)

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

    def in_order_for(
        self, pod: PodState | None, now: float
    ) -> Generator[tuple[Place, Queue], None, None]:
        """Yield each queue in turn, but the cheapest first for a slot of a pod.

        A yielded queue may change, move, or leave. Close the iterator, so that the queues that stay
        keep their places.

        Args:
            pod: The pod; ``None``: the slot may be on any pod.
            now: The time.

        Yields:
            The place at which a queue has its turn, and the queue. The places ascend.
        """
        with closing(self.queues.in_turn()) as queues:
            if pod is not None:
                first, other = self._of_one_priority(queues)
                places = [queue.place for queue in first]
                if len(first) > 1:
                    costs = [_cost(queue, pod, now) for queue in first]
                    order = sorted(range(len(first)), key=costs.__getitem__)
                    first = [first[number] for number in order]
                yield from zip(places, first, strict=True)
                if other is not None:
                    yield other.place, other
            for queue in queues:
                yield queue.place, queue

    def _of_one_priority(self, queues: Iterator[Queue]) -> tuple[list[Queue], Queue | None]:
        """Return the first queues, of one priority and round, and the next one with another."""
        first: list[Queue] = []
        priority = turn = None
        for queue in queues:
            place = self.queues.place_of(queue)
            if place is None or place[0] != priority or place[1] != turn:
                if first or place is None:
                    return first, queue
                priority, turn, _ = place
            first.append(queue)
            if len(first) == COMPARED:
                break
        return first, None


def has_slot(pod: PodView) -> bool:
    """Return whether a pod has a free slot, as far as is known."""
    room = pod.beliefs.free_slots
    return room is None or room > 0


def _cost(queue: Queue, pod: PodState, now: float) -> float:
    """Return the seconds that bringing a queue's adapter to a pod takes, less what it waited."""
    request = queue.first
    if request is None:
        return 0.0
    adapter = request.request.adapter
    seconds = 0.0 if adapter is None else pod.beliefs.seconds_to_load(adapter)
    return seconds - WAITING_WEIGHT * (now - request.since)
