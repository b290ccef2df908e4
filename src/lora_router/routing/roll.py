"""The roll of those who wait: all queues, by question, model and priority, and their requests."""

from collections.abc import Collection, Iterable, KeysView
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter

from lora_router.fleet.catalog import BaseModels
from lora_router.routing.algorithm import Hold
from lora_router.routing.counts import change
from lora_router.routing.homes import Homes
from lora_router.routing.in_order import InOrder
from lora_router.routing.question import Question
from lora_router.routing.selection import Selection
from lora_router.routing.waiting_queue import Held, Queue
from lora_router.routing.waiting_tenants import WaitingTenants

_NONE: InOrder[Queue] = InOrder()
_ByPriority = dict[int, WaitingTenants]
"""What waits of each priority that has some."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many requests may wait."""

    requests: int = 4096
    requests_per_model: int = 1024


class Roll:
    """Who waits in one waiting room, which writes to it."""

    __slots__ = (
        "_by_model",
        "_by_priority",
        "_by_priority_of_model",
        "_held_by_bases",
        "_held_by_model",
        "_limits",
        "changed",
        "held",
        "homes",
        "queues",
    )

    def __init__(self, limits: Limits) -> None:
        """Create an empty roll.

        Args:
            limits: How many requests may wait.
        """
        self._limits = limits
        self.held = 0
        """The number of requests that wait."""
        self.queues: dict[Question, Queue] = {}
        """All queues. Each has requests."""
        self.homes = Homes()
        """The pods that have the beginnings of prompts."""
        self.changed: dict[str, None] = {}
        """The models of which another request may be served first, or another answer was given,
        since ``held_adapters`` read them. All have queues."""
        self._held_by_model: dict[str, int] = {}
        self._held_by_bases: dict[BaseModels, int] = {}
        self._by_model: dict[str, InOrder[Queue]] = {}
        self._by_priority: _ByPriority = {}
        self._by_priority_of_model: dict[str, _ByPriority] = {}

    @property
    def models(self) -> KeysView[str]:
        """The models for which requests wait."""
        return self._by_model.keys()

    def in_order(self, model: str) -> InOrder[Queue]:
        """Return the queues of a model. What grows with their number must not be done at once."""
        return self._by_model.get(model, _NONE)

    def of_model(
        self, model: str, selections: Collection[Selection] | None = None
    ) -> Collection[Queue]:
        """Return the queues of a model, the highest priority first.

        Args:
            model: The model.
            selections: Only those whose requests may go to these pods; ``None``: all.
        """
        queues: Iterable[Queue] = self.in_order(model)
        if selections is not None:
            queues = (each for each in queues if each.question.selection in selections)
        return sorted(queues, key=attrgetter("place"))

    def selections_of(self, model: str, most: int) -> Collection[Selection]:
        """Return to which pods requests may go that wait for a model.

        Args:
            model: The model.
            most: How many queues are looked at, the first that came.
        """
        return dict.fromkeys(each.question.selection for each in islice(self.in_order(model), most))

    def is_full(self, model: str) -> bool:
        """Return whether no further request for a model may wait."""
        return (
            self.held >= self._limits.requests
            or self._held_by_model.get(model, 0) >= self._limits.requests_per_model
        )

    def displaced_by(self, question: Question) -> Held | None:
        """Return the request to refuse for one that would exceed the limits; ``None``: itself.

        It is of the lowest priority, of the same model if that has too many. Of that priority, it
        is the last one of the tenant with the most. If the priority is not lower than the other's,
        that tenant must have more than the other's tenant has, also after that.
        """
        model, limits = question.model, self._limits
        by_priority = self._by_priority
        if self._held_by_model.get(model, 0) >= limits.requests_per_model:
            by_priority = self._by_priority_of_model.get(model, {})
        priority = min(by_priority, default=question.priority)
        lowest = by_priority.get(priority)
        if lowest is None or priority > question.priority:
            return None
        if priority == question.priority and lowest.most <= lowest.count(question.tenant) + 1:
            return None
        return lowest.last()

    def held_of(self, bases: BaseModels) -> int:
        """Return how many requests wait for pods that serve some base models."""
        return self._held_by_bases.get(bases, 0)

    def open(self, question: Question, hold: Hold, bases: BaseModels) -> Queue:
        """Return a new queue of a question that has none. Its first request must enter it.

        Args:
            question: The question.
            hold: The answer.
            bases: The base models of the pods that may take the requests.
        """
        queue = self.queues[question] = Queue(question, hold, bases)
        of_model = self._by_priority_of_model.setdefault(question.model, {})
        for each in (self._by_priority, of_model):
            each.setdefault(question.priority, WaitingTenants()).open(queue)
        return queue

    def enter(self, held: Held, queue: Queue) -> None:
        """Add a request to a queue."""
        held.queue = queue
        first = queue.first
        queue.requests[held] = None
        if first is not None and held.number < first.number:
            # It waited in another queue before, so it keeps its seniority.
            queue.requests.move_to_end(held, last=False)
        if queue.first is held:
            self._by_model.setdefault(queue.question.model, InOrder()).put(queue)
            self.changed[queue.question.model] = None
        self.homes.enter(held, queue)
        self.held += 1
        question = queue.question
        for each in (self._by_priority, self._by_priority_of_model[question.model]):
            each[question.priority].add(question.tenant)
        change(self._held_by_model, question.model, 1)
        change(self._held_by_bases, queue.bases, 1)

    def leave(self, held: Held, queue: Queue) -> None:
        """Remove a request from its queue, and the queue if it is empty then."""
        held.queue = None
        del queue.requests[held]
        self.homes.leave(held, queue)
        self.held -= 1
        question = queue.question
        change(self._held_by_model, question.model, -1)
        change(self._held_by_bases, queue.bases, -1)
        of_model = self._by_model[question.model]
        by_priority = self._by_priority_of_model[question.model]
        for each in (self._by_priority, by_priority):
            each[question.priority].remove(question.tenant)
        self.changed[question.model] = None
        if queue.requests:
            of_model.put(queue)
            return
        del self.queues[question]
        of_model.remove(queue)
        if not of_model:
            del self._by_model[question.model], self._by_priority_of_model[question.model]
            del self.changed[question.model]
        for each in (self._by_priority, by_priority):
            each[question.priority].close(queue)
            if not each[question.priority]:
                del each[question.priority]
