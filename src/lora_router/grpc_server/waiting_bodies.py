"""The streams that wait for room, and those that do not use the room that they have. No I/O.

Streams wait in order of arrival, in two queues: short and long ones. So a few peers that announce
long bodies do not keep the others waiting. ``budget`` decides who is let in.
"""

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

LOOK_SECONDS = 0.5
"""How often streams with a reservation are looked at while others wait."""
_LOOKS = 3
"""Looks in a row at which nothing more had arrived, after which a stream has stalled. More than
one, because every stream seems to stall when the event loop does."""


class Receiving(Protocol):
    """A stream with a reservation."""

    @property
    def received(self) -> int:
        """Bytes that have arrived and that it holds."""

    @property
    def lacks(self) -> int:
        """Bytes that are expected and have not arrived."""


W = TypeVar("W")
R = TypeVar("R", bound=Receiving)


class WaitingBodies(Generic[W]):
    """The streams that wait, each with the time at which it is refused."""

    __slots__ = ("long", "short")

    def __init__(self) -> None:
        self.short: dict[W, float] = {}
        self.long: dict[W, float] = {}

    def __len__(self) -> int:
        return len(self.short) + len(self.long)

    def __contains__(self, waiting: W) -> bool:
        return waiting in self.short or waiting in self.long

    def remove(self, waiting: W) -> bool:
        """Remove a stream; return whether it waited."""
        in_short = self.short.pop(waiting, None)
        return (self.long.pop(waiting, None) if in_short is None else in_short) is not None

    def first(self) -> list[W]:
        """Return the first stream of each queue, that of the short ones first."""
        return [next(iter(queue)) for queue in self._queues()]

    def last(self) -> W | None:
        """Return the stream that came last."""
        ends = [next(reversed(queue.items())) for queue in self._queues()]
        return max(ends, key=lambda end: end[1])[0] if ends else None

    def overdue(self, now: float) -> list[W]:
        """Return the streams that have waited too long, in order of arrival in each queue."""
        found = []
        for queue in self._queues():
            for waiting, until in queue.items():
                if until > now:
                    break
                found.append(waiting)
        return found

    def next_due(self) -> float:
        """Return when the next stream will have waited too long. At least one waits."""
        return min(next(iter(queue.values())) for queue in self._queues())

    def _queues(self) -> list[dict[W, float]]:
        return [queue for queue in (self.short, self.long) if queue]


class Stalls(Generic[R]):
    """Finds streams that receive nothing, by looks at a steady rate while others wait."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[R, tuple[int, int]] = {}
        """What had arrived at the last look, and at how many looks in a row it was the same."""

    def look(self, streams: Iterable[R]) -> list[R]:
        """Look at all streams with a reservation; return those that have stalled."""
        before, self._seen = self._seen, {}
        stalled = []
        for stream in streams:
            if not stream.lacks:
                continue
            received, looks = stream.received, 0
            earlier = before.get(stream)
            if earlier is not None and earlier[0] == received:
                looks = earlier[1] + 1
            self._seen[stream] = received, looks
            if looks >= _LOOKS:
                stalled.append(stream)
        return stalled

    def forget(self) -> None:
        """Forget all looks, because nobody waits."""
        self._seen.clear()
