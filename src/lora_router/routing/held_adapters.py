"""For which adapters requests are held, as reported to peers.

A report is due ten times a second, and thousands of adapters may wait. So what is told of each is
kept, and found anew only where the roll names a change. What depends on free slots is looked up for
each report: only requests that leave one to others ask for that, and few of these may wait.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.routing.misplaced import Misplaced
from lora_router.routing.waiting_queue import Queue
from lora_router.routing.waiting_room import WaitingRoom


class _Told(NamedTuple):
    """What is told of the requests for one adapter."""

    since: float
    """When the first of them was held."""
    wanted: str | None
    """As in ``HeldShare``."""
    priority: int
    queue: Queue
    """The queue of the first of them."""


class HeldAdapters:
    """The adapters that wait, in a waiting room or on pods with a closed slot.

    Of the requests of an adapter, the one that is served first counts, and a slot that is closed
    for any of them. An adapter is left out if its request could be routed now and leaves a free
    slot to others (``waiting_near``): it lacks no slot, and a peer must not leave one to it.
    """

    def __init__(self, room: WaitingRoom) -> None:
        """Begin with none.

        Args:
            room: The waiting room.
        """
        self._room = room
        self._told: dict[str, _Told] = {}
        self._optional: dict[str, None] = {}
        """The adapters of which some request leaves a slot to others if there is one."""

    def shares(self, now: float) -> dict[str, HeldShare]:
        """Return all of them."""
        roll, told = self._room.roll, self._told
        for gone in told.keys() - roll.models:
            del told[gone]
        for adapter in (*roll.changed, *self._optional):
            self._find(adapter)
        found = {
            adapter: HeldShare(now - since, wanted, None, priority)
            for adapter, (since, wanted, priority, _) in told.items()
        }
        for owner in self._room.slots.owners():
            adapter = _adapter_of(owner)
            share = found.get(adapter)
            if share is None:
                if isinstance(owner, Misplaced):
                    found[adapter] = HeldShare(now - owner.since, closed=_closed_for(owner))
            elif share.closed is None or told[adapter].queue is owner:
                closed = _closed_for(owner)
                found[adapter] = HeldShare(share.seconds, share.wanted, closed, share.priority)
        return found

    def each(self, now: Callable[[], float]) -> Iterator[tuple[str, HeldShare]]:
        """Yield the same one after the other: those that wait, and those with a closed slot.

        Some may come and go meanwhile. An adapter may be yielded twice.
        """
        roll = self._room.roll
        for adapter in tuple(roll.models):
            if adapter in roll.changed or adapter in self._optional:
                self._find(adapter)
            told = self._told.get(adapter)
            if told is not None:
                yield adapter, HeldShare(now() - told.since, told.wanted, None, told.priority)
        for owner in tuple(self._room.slots.owners()):
            adapter = _adapter_of(owner)
            if owner.closing is not None and (adapter in self._told or type(owner) is Misplaced):
                yield adapter, HeldShare(0.0, closed=_closed_for(owner))

    def _find(self, model: str) -> None:
        """Find out what is told of the requests for a model."""
        roll = self._room.roll
        roll.changed.pop(model, None)
        self._optional.pop(model, None)
        self._told.pop(model, None)
        with closing(roll.in_order(model).in_turn()) as in_turn:
            for queue in in_turn:
                if queue.hold.optional:
                    self._optional[model] = None
                    if queue.line is not None and queue.line.has_room():
                        continue
                first = queue.first
                if first is not None and first.request.adapter is not None:
                    wanted = None if queue.hold.wanted is None else queue.hold.wanted.pod.name
                    self._told[model] = _Told(first.since, wanted, queue.question.priority, queue)
                return


def _adapter_of(owner: Queue | Misplaced) -> str:
    return owner.question.model if isinstance(owner, Queue) else owner.adapter


def _closed_for(owner: Queue | Misplaced) -> tuple[str, str] | None:
    return None if owner.closing is None else (owner.closing[0].pod.name, owner.closing[1])
