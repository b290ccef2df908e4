"""In which order the queues of a line are asked.

They stand in order of priority and then of seniority. A slot that became free goes to the queue
whose adapter is cheapest to bring to its pod, of the ``COMPARED`` first queues of the highest
priority, waiting counted (``slot_on_pod``): a load from disk (1.5 s) is outweighed after 4.5 s,
even by a load that costs nothing.
"""

from collections.abc import Generator, Iterator
from contextlib import closing

from lora_router.fleet.pod_state import PodState
from lora_router.routing.in_order import Place
from lora_router.routing.waiting_queue import Line, Queue

COMPARED = 8
"""How many queues are compared for a free slot. A lower value loads adapters more often. A higher
value makes a release take longer, however many requests wait."""

Turn = tuple[Place, Queue]
"""The place at which a queue has its turn, and the queue."""


def in_order_for(line: Line, pod: PodState | None, now: float) -> Generator[Turn, None, None]:
    """Yield each queue of a line in turn, but the cheapest first for a slot of a pod.

    A yielded queue may change, move, or leave. One that got another place is yielded again at that,
    so the iterator ends once none is left that was not asked at its place. Close it, so that the
    queues that stay keep their places.

    Args:
        line: The line.
        pod: The pod; ``None``: the slot may be on any pod.
        now: The time.

    Yields:
        The turns. Their places ascend.
    """
    asked: dict[Queue, Place] = {}
    if pod is not None:
        asked = _of_one_priority(line)
        queues = list(asked)
        if len(queues) > 1:
            queues.sort(key=lambda queue: queue.cost_on(pod, now))
        for place, queue in zip(tuple(asked.values()), queues, strict=True):
            yield from _while_it_leaves(line, place, queue)
    with closing(line.queues.in_turn()) as rest:
        for queue in rest:
            place = queue.place
            if asked.get(queue) != place:
                yield from _while_it_leaves(line, place, queue)


def _while_it_leaves(line: Line, place: Place, queue: Queue) -> Iterator[Turn]:
    """Yield a queue, and again if its first request let another one leave (``first_for``)."""
    first, waiting = queue.first, len(queue.requests)
    yield place, queue
    while queue.line is line and queue.first is first and len(queue.requests) < waiting:
        waiting = len(queue.requests)
        yield queue.place, queue


def _of_one_priority(line: Line) -> dict[Queue, Place]:
    """Return the first queues, of one priority and round, with their places."""
    first: dict[Queue, Place] = {}
    round_of_first: tuple[int, int] | None = None
    with closing(line.queues.in_turn()) as queues:
        for queue in queues:
            place = queue.place
            if round_of_first is not None and place[:2] != round_of_first:
                break
            round_of_first = place[:2]
            first[queue] = place
            if len(first) == COMPARED:
                break
    return first
