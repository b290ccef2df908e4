"""The queues that have waited for long, and for which no slot could be closed yet."""

from lora_router.fleet.base_totals import BaseModels
from lora_router.routing.waiting_queue import Queue


class Impatience:
    """These queues, by the base models of their pods, in the order in which they asked.

    When a slot is open again, another one may be closed instead: on a pod of the same base model.
    """

    def __init__(self) -> None:
        self._queues: dict[BaseModels, dict[Queue, None]] = {}
        self._bases: dict[Queue, BaseModels] = {}

    def add(self, queue: Queue, bases: BaseModels) -> None:
        """Add a queue, if it is not among them."""
        if self._bases.get(queue) != bases:
            self.remove(queue)
            self._bases[queue] = bases
            self._queues.setdefault(bases, {})[queue] = None

    def remove(self, queue: Queue) -> None:
        """Remove a queue, if it is among them."""
        bases = self._bases.pop(queue, None)
        if bases is not None:
            queues = self._queues[bases]
            del queues[queue]
            if not queues:
                del self._queues[bases]

    def take(self, bases: BaseModels) -> Queue | None:
        """Remove the first queue of some base models and return it, if there is one."""
        queue = next(iter(self._queues.get(bases, ())), None)
        if queue is not None:
            self.remove(queue)
        return queue
