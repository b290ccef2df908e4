"""For which adapters requests are held, as reported to peers."""

from dataclasses import replace

from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.routing.waiting_queue import Queue
from lora_router.routing.waiting_room import WaitingRoom


def held_adapters(room: WaitingRoom, now: float) -> dict[str, HeldShare]:
    """Return the adapters that wait, in a waiting room or on pods with a closed slot.

    Of the requests of an adapter, the one that is served first counts. An adapter is left out if
    its request could be routed now and leaves a free slot to others (``waiting_near``): it lacks no
    slot, and a peer must not leave one to it.
    """
    found: dict[str, HeldShare] = {}
    for queue in room.queues():
        first = queue.first
        if first is None or first.request.adapter is None or _leaves_a_slot(queue):
            continue
        slot = None if queue.closing is None else (queue.closing[0].pod.name, queue.closing[1])
        wanted = None if queue.hold.wanted is None else queue.hold.wanted.pod.name
        share = HeldShare(now - first.since, wanted, slot, first.question.priority)
        other = found.get(first.request.adapter)
        if other is None or other.place < share.place:
            found[first.request.adapter] = share
    for each in room.misplaced_adapters():
        if each.closing is not None:
            slot = each.closing[0].pod.name, each.closing[1]
            held = found.get(each.adapter)
            if held is None:
                found[each.adapter] = HeldShare(now - each.since, closed=slot)
            elif held.closed is None:
                found[each.adapter] = replace(held, closed=slot)
    return found


def _leaves_a_slot(queue: Queue) -> bool:
    return queue.hold.optional and queue.line is not None and queue.line.has_room()
