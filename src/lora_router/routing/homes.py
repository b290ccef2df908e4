"""Which waiting requests have their home on a pod: the beginning of their prompts is in its cache.

Such a request may go to its pod although that has no room for others (``room_asking``). So those
that wait are asked for whenever the pod may take them. Otherwise requests that come later would
take what the pod has for them.
"""

from typing import NamedTuple

from lora_router.fleet.pod_state import PodView
from lora_router.routing.in_order import InOrder, Place
from lora_router.routing.waiting_queue import Held, Queue


class AtHome(NamedTuple):
    """The requests of a queue that have their home on a pod."""

    queue: Queue
    pod: PodView

    @property
    def place(self) -> Place:
        """Where they belong among those of other queues: the place that the first one has."""
        priority, turn, number = self.queue.place
        first = self.queue.first_at_home(self.pod)
        return priority, turn, number if first is None else first.number


_NONE: InOrder[AtHome] = InOrder()


class Homes:
    """The homes of all requests that wait. The roll writes to it."""

    __slots__ = ("_by_pod",)

    def __init__(self) -> None:
        """Create it without any."""
        self._by_pod: dict[PodView, InOrder[AtHome]] = {}

    def __len__(self) -> int:
        """Return the number of pods that are homes."""
        return len(self._by_pod)

    def __contains__(self, pod: object) -> bool:
        return pod in self._by_pod

    def on(self, pod: PodView) -> InOrder[AtHome]:
        """Return who has its home on a pod.

        The places are too low once a queue has a later turn. Who reads them puts it there again.
        """
        return self._by_pod.get(pod, _NONE)

    def enter(self, held: Held, queue: Queue) -> None:
        """Record the home of a request that is in a queue now."""
        home = held.home
        if home is None:
            return
        queue.by_home.setdefault(home, InOrder()).put(held)
        self._by_pod.setdefault(home, InOrder()).put(AtHome(queue, home))

    def leave(self, held: Held, queue: Queue) -> None:
        """Forget the home of a request that leaves a queue."""
        home = held.home
        if home is None:
            return
        of_home, of_pod, at_home = queue.by_home[home], self._by_pod[home], AtHome(queue, home)
        of_home.remove(held)
        if of_home:
            of_pod.put(at_home)
            return
        del queue.by_home[home]
        of_pod.remove(at_home)
        if not of_pod:
            del self._by_pod[home]

    def move(self, held: Held, home: PodView | None) -> None:
        """Record that a request that waits has another home since it was asked for, or none."""
        queue = held.queue
        if queue is not None and held.home is not home:
            self.leave(held, queue)
            held.home = home
            self.enter(held, queue)
