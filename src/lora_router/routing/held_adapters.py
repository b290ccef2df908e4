"""For which adapters requests are held, as reported to peers."""

from contextlib import closing
from dataclasses import replace

from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.routing.misplaced import Misplaced
from lora_router.routing.waiting_queue import Queue
from lora_router.routing.waiting_room import WaitingRoom


def held_adapters(room: WaitingRoom, now: float) -> dict[str, HeldShare]:
    """Return the adapters that wait, in a waiting room or on pods with a closed slot.

    Of the requests of an adapter, the one that is served first counts, and a slot that is closed
    for any of them. An adapter is left out if its request could be routed now and leaves a free
    slot to others (``waiting_near``): it lacks no slot, and a peer must not leave one to it.
    """
    found: dict[str, HeldShare] = {}
    for model in room.roll.models:
        queue = _first_that_lacks_a_slot(room, model)
        first = None if queue is None else queue.first
        if queue is None or first is None or first.request.adapter is None:
            continue
        wanted = None if queue.hold.wanted is None else queue.hold.wanted.pod.name
        waited, priority = now - first.since, first.question.priority
        found[first.request.adapter] = HeldShare(waited, wanted, _closed_for(queue), priority)
    for owner in room.slots.owners():
        slot = _closed_for(owner)
        adapter = owner.question.model if isinstance(owner, Queue) else owner.adapter
        held = found.get(adapter)
        if held is not None and held.closed is None:
            found[adapter] = replace(held, closed=slot)
        elif held is None and isinstance(owner, Misplaced):
            found[adapter] = HeldShare(now - owner.since, closed=slot)
    return found


def _closed_for(owner: Queue | Misplaced) -> tuple[str, str] | None:
    return None if owner.closing is None else (owner.closing[0].pod.name, owner.closing[1])


def _first_that_lacks_a_slot(room: WaitingRoom, model: str) -> Queue | None:
    """Return the queue of a model that is served first, of those that leave no slot to others."""
    with closing(room.roll.in_order(model).in_turn()) as in_turn:
        return next((queue for queue in in_turn if not _leaves_a_slot(queue)), None)


def _leaves_a_slot(queue: Queue) -> bool:
    return queue.hold.optional and queue.line is not None and queue.line.has_room()
