"""The requests that wait in one process, as rows."""

from heapq import nsmallest
from itertools import islice
from operator import attrgetter

from lora_router.debug.rows import ClosingSlot, HeldRow
from lora_router.debug.slices import in_slices
from lora_router.routing.waiting_queue import Held
from lora_router.routing.waiting_room import WaitingRoom

_QUEUES_AT_ONCE = 32
_ROWS_AT_ONCE = 64


async def held_rows(room: WaitingRoom, limit: int, now: float) -> list[list[HeldRow]]:
    """Return the requests that have waited longest, in slices, the oldest first."""
    oldest: list[Held] = []
    async for queues in in_slices(tuple(room.queues()), _QUEUES_AT_ONCE):
        for queue in queues:
            oldest += islice(queue.requests, limit)
        if len(oldest) > 2 * limit:
            oldest = nsmallest(limit, oldest, key=attrgetter("since"))
    oldest = nsmallest(limit, oldest, key=attrgetter("since"))
    return [
        [row for row in (_row(held, now) for held in some) if row is not None]
        async for some in in_slices(oldest, _ROWS_AT_ONCE)
    ]


async def find_held(room: WaitingRoom, request_id: str) -> Held | None:
    """Return the request with an ID that waits, if there is one."""
    async for queues in in_slices(tuple(room.queues()), _QUEUES_AT_ONCE):
        for queue in queues:
            for held in queue.requests:
                if held.request.request_id == request_id:
                    return held
    return None


def _row(held: Held, now: float) -> HeldRow | None:
    """Return the row of a request; ``None``: it has been decided in the meantime."""
    queue = held.queue
    if queue is None:
        return None
    question, closing, wanted = held.question, queue.closing, queue.hold.wanted
    slot = None
    if closing is not None:
        slot = ClosingSlot(pod=closing[0].pod.name, adapter=closing[1])
    return HeldRow(
        request_id=held.request.request_id,
        model=question.model,
        adapter=held.request.adapter or "",
        algorithm=question.algorithm,
        reason=queue.hold.reason,
        seconds=max(0.0, now - held.since),
        wanted=None if wanted is None else wanted.pod.name,
        closing=slot,
    )
