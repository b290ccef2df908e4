"""What the parent knows of one worker that runs."""

import json
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from lora_router.workers.descriptors import ACCEPTS, OPENS, RELAY
from lora_router.workers.messages import Family, Status
from lora_router.workers.placement import Share

_RESPONSIVE_SECONDS = 1.0
"""A worker that has not reported for so long gets no connections."""
_LINK_SECONDS = 3.0
"""Time after which a link that neither end has is made again."""


class Process(Protocol):
    """The process of a worker (``process.WorkerProcess``)."""

    @property
    def pid(self) -> int:
        """The id of the process."""

    @property
    def reads(self) -> bool:
        """Whether it reads what is sent to it."""

    def on_message(self, receive: Callable[[bytes], None]) -> None:
        """Call ``receive`` with each message of the worker."""

    def send(self, message: bytes, *, skippable: bool = False) -> None:
        """Send a message. One that is ``skippable`` may be left out if the worker is slow."""

    def hand(self, tag: bytes, sent: socket.socket) -> bool:
        """Pass a descriptor on; return whether that succeeded."""

    def kill(self) -> None:
        """End it at once."""

    async def ended(self) -> int:
        """Wait until it has ended; return its exit status, or minus the signal that ended it."""

    def close(self) -> None:
        """Close everything that leads to it."""


class Member:
    """One worker."""

    def __init__(self, number: int, process: Process) -> None:
        self.number = number
        self.process = process
        self.share = Share(number)
        self.status: Status | None = None
        """Its last report."""
        self.silence = 0.0
        """Seconds since its last report, or since its start. Time in which the parent itself was
        stopped does not count."""
        self.families: Sequence[Family] = ()
        """Its metrics, when they were last asked for."""
        self._arriving: dict[int, list[Family]] = {}
        """Parts of answers that are not complete, by the number of the question."""
        self.looks = False
        """Whether it waits for the lists of models of all pods."""
        self._linked: dict[int, tuple[int, float]] = {}
        """By worker: the process to which a link was made last, and when."""

    @property
    def reason(self) -> str:
        """Why it is not ready, or that it is."""
        if self.status is None:
            return "starting"
        if not self.share.responsive:
            return f"no report for {self.silence:.0f} s"
        return self.status.reason

    def report(self, status: Status) -> None:
        """Store a report."""
        self.status = status
        self.silence = 0.0
        share = self.share
        share.ready, share.responsive = status.ready, True
        share.connections, share.received = status.connections, status.received
        share.streams = status.streams
        share.short = status.short

    def take_in(self, number: int, families: Sequence[Family], *, is_last: bool) -> None:
        """Take in a part of the answer to a question for its metrics."""
        parts = self._arriving.setdefault(number, [])
        parts.extend(families)
        if is_last:
            self.families = parts
            del self._arriving[number]

    def wait(self, seconds: float) -> None:
        """Count time without a report."""
        self.silence += seconds
        if self.silence > _RESPONSIVE_SECONDS:
            self.share.responsive = False

    def link_to(self, other: "Member", now: float, *, relays: bool = False) -> None:
        """Give both workers an end of a link, if they have none.

        With ``relays``, also an end of a way for streams of other hosts that are passed on.
        """
        if self.status is None or other.status is None:
            return
        if other.number in self.status.links and self.number in other.status.links:
            return
        pid, at = self._linked.get(other.number, (0, now))
        if pid == other.process.pid and now - at < _LINK_SECONDS:
            return
        self._linked[other.number] = other.process.pid, now
        self._hand_pair(other, OPENS, ACCEPTS)
        if relays:
            self._hand_pair(other, RELAY, RELAY)

    def _hand_pair(self, other: "Member", tag: bytes, other_tag: bytes) -> None:
        one, another = socket.socketpair()
        with one, another:
            one.setblocking(False)
            another.setblocking(False)
            self.process.hand(tag + str(other.number).encode(), one)
            other.process.hand(other_tag + str(self.number).encode(), another)

    def details(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows of it."""
        status = self.status
        details: dict[str, object] = {
            "ready": self.share.ready and self.share.responsive,
            "reason": self.reason,
            "pid": self.process.pid,
        }
        if status is not None:
            details |= {"connections": self.share.total, "streams": status.streams}
            if status.short:
                details["out_of_descriptors"] = True
            details |= json.loads(status.details)
        return details
