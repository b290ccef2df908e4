"""Queues of held requests.

A *question* is what an algorithm is asked: algorithm, model, filter, subset and priority. Requests
that ask the same question get the same answer, so they wait in one ``Queue``, and only the first is
asked.

Of the requests of one queue that wait for room, one whose prompt begins in the cache of the pod
with room goes before those that came up to ``HOME_SECONDS`` earlier.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from lora_router.clock import Timer
from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.algorithm import Hold, InferenceRequest
from lora_router.routing.in_order import InOrder, Place
from lora_router.routing.looks import NO_LOOKS, Looks
from lora_router.routing.pace import Pace
from lora_router.routing.selection import Selection

if TYPE_CHECKING:
    from lora_router.routing.waiting_line import Line

_KNOWN_AFTER_SECONDS = 2.0
"""How long a queue waits until it is known that its requests leave slowly."""
HOME_SECONDS = 1.0
"""With a lower value, more prompts are processed again that are in the cache of another pod. With a
higher value, conversations that begin wait for longer."""


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

    @property
    def place(self) -> Place:
        """Where it belongs among the requests of its queue."""
        return 0, 0, self.number

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
    by_home: dict[PodView, InOrder[Held]] = field(default_factory=dict)
    """Those with a ``home``, by it, in order of arrival (``homes``)."""
    line: "Line | None" = None
    closing: tuple[PodState, str] | None = None
    """The slot that is closed for the queue: a pod, and the adapter in it."""
    alarm: float | None = None
    """The latest time at which to ask again."""
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

    @property
    def since(self) -> float | None:
        """When that request was held."""
        first = self.first
        return None if first is None else first.since
