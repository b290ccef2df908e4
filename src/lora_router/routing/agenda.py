"""The pending work of the waiting room, done in small steps.

Work that grows with the number of waiting requests must not run in the event loop in one piece. So
the waiting room puts its work on an agenda. A step is what a decision costs with an index, or over
a small fleet; a costlier one takes several. Up to ``AT_ONCE`` steps are done immediately, in the
order in which they were added, and the rest in the next iterations of the loop. Background work
gets ``AT_ONCE`` steps every ``BACKGROUND_SECONDS``, so that it takes a bounded fraction of the
loop's time.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from lora_router.clock import Clock, Timer

log = logging.getLogger("lora_router.routing")

AT_ONCE = 32
PASSED_OVER = 4
"""How many of those that wait for the same are asked in vain before the others are asked in the
background."""
BACKGROUND_SECONDS = 0.005

Item = TypeVar("Item", bound=Hashable)


class Agenda(Generic[Item]):
    """Items to work on, each at most once."""

    work_on: Callable[[Item, int], int]
    """Takes an item and the number of steps that it may take. Returns how many it took, which are
    more if the last decision took several. It adds the item again if there is more to do. If it
    raises, the item is dropped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._items: OrderedDict[Item, None] = OrderedDict()
        self._background: OrderedDict[Item, None] = OrderedDict()
        self._working = False
        self._next: Timer | None = None
        self._next_in_background: Timer | None = None

    def add(self, item: Item, *, background: bool = False) -> None:
        """Add an item at the end. ``work`` starts on it; background work starts by itself."""
        if background:
            self._background.setdefault(item)
            self._arm()
        else:
            self._items.setdefault(item)

    def drop(self, item: Item) -> None:
        """Drop an item that is due, if it is."""
        self._items.pop(item, None)

    def __contains__(self, item: object) -> bool:
        """Return whether an item is due, other than in the background."""
        return item in self._items

    def work(self) -> None:
        """Do the work that is due. A nested call leaves its items to the outer call."""
        self._do(self._items)
        if self._items and self._next is None and not self._working:
            self._next = self._clock.call_later(0.0, self._go_on)

    def _go_on(self) -> None:
        self._next = None
        self.work()

    def _work_in_background(self) -> None:
        self._next_in_background = None
        self._do(self._background)
        self._arm()
        self.work()

    def _arm(self) -> None:
        if self._background and self._next_in_background is None:
            self._next_in_background = self._clock.call_later(
                BACKGROUND_SECONDS, self._work_in_background
            )

    def _do(self, items: OrderedDict[Item, None]) -> None:
        if self._working:
            return
        self._working = True
        steps = AT_ONCE
        try:
            while items and steps > 0:
                item, _ = items.popitem(last=False)
                try:
                    steps -= max(1, self.work_on(item, steps))
                except Exception:
                    log.exception("waiting room: a work item failed and was dropped")
                    steps -= 1
        finally:
            self._working = False
