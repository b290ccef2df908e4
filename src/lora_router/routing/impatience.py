"""The queues that have waited for long, and for which no slot could be closed yet."""

from lora_router.fleet.base_totals import BaseModels
from lora_router.routing.waiting_queue import Queue


class Impatience:
    """These queues, by the base models of their pods, in the order in which they asked.

    When a slot is open again, another one may be closed instead: on a pod of the same base model.
    """

    def __init__(self) -> None:
        self._queues: dict[BaseModels, dict[Queue, None]] = {}

    def add(self, queue: Queue) -> None:
        """Add a queue, if it is not among them."""
        self._queues.setdefault(queue.bases, {})[queue] = None

    def remove(self, queue: Queue) -> None:
        """Remove a queue, if it is among them."""
        queues = self._queues.get(queue.bases)
        if queues is not None:
            queues.pop(queue, None)
            if not queues:
                del self._queues[queue.bases]

    def take(self, bases: BaseModels) -> Queue | None:
        """Remove the first queue of some base models and return it, if there is one."""
        queue = next(iter(self._queues.get(bases, ())), None)
        if queue is not None:
            self.remove(queue)
        return queue
