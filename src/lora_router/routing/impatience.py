"""The queues that have waited for long, and for which no slot could be closed yet."""

from collections.abc import Callable

from lora_router.fleet.base_totals import BaseModels
from lora_router.routing.waiting_queue import Queue


class Impatience:
    """These queues, by the base models of their pods, in the order in which they asked.

    When a slot is open again, another one may be closed instead: on a pod of the same base model.
    """

    def __init__(self, patience_seconds: float, now: Callable[[], float]) -> None:
        """Begin without any.

        Args:
            patience_seconds: How long a queue waits before it is one of them.
            now: Returns the time.
        """
        self._patience = patience_seconds
        self._now = now
        self._queues: dict[BaseModels, dict[Queue, None]] = {}

    def look_at(self, queue: Queue) -> None:
        """Find out whether a queue is one of them."""
        since = queue.since
        if queue.closing is None and since is not None and self._now() - since >= self._patience:
            self._queues.setdefault(queue.bases, {})[queue] = None
        else:
            self.remove(queue)

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
