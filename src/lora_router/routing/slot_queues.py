"""Those for which no slot could be closed yet, in order, for each base model.

When a slot is open again, another one may be closed instead: on a pod of the same base model.
"""

from collections.abc import Collection, Iterator
from typing import Generic, Protocol, TypeVar

from lora_router.fleet.catalog import BaseModels


class WaitsForSlot(Protocol):
    """What waits until a slot is closed for it."""

    @property
    def bases(self) -> BaseModels:
        """The base models of the pods whose slots it could get. They stay the same."""


_Item = TypeVar("_Item", bound=WaitsForSlot)


class SlotQueues(Generic[_Item]):
    """The queues, by base models."""

    def __init__(self) -> None:
        self._queues: dict[BaseModels, dict[_Item, None]] = {}

    def add(self, item: _Item) -> None:
        """Add what waits at the end of its queue, unless it is in it."""
        self._queues.setdefault(item.bases, {})[item] = None

    def remove(self, item: _Item) -> None:
        """Remove what waits, if it is in its queue."""
        queue = self._queues.get(item.bases)
        if queue is not None:
            queue.pop(item, None)
            if not queue:
                del self._queues[item.bases]

    def first(self, bases: BaseModels) -> _Item | None:
        """Return the first of a queue; ``None``: nobody waits in it."""
        return next(iter(self._queues.get(bases, ())), None)

    def each(self) -> Iterator[Collection[_Item]]:
        """Yield the queues. They may change meanwhile."""
        yield from tuple(self._queues.values())
