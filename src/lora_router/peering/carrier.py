"""What the hub needs of whatever carries messages between routers.

The mesh carries them on streams between each two routers (``mesh``), Redis on a channel to which
all routers listen (``broadcast``). Several carriers can be in use at the same time: a report that
arrives twice is used once.
"""

from collections.abc import Sequence
from typing import Protocol

from lora_router.peering.report_writer import ReportWriter


class Outgoing:
    """A report of this router, in the two forms in which carriers send it."""

    __slots__ = ("_complete", "_more", "_writer", "changes", "is_complete")

    def __init__(
        self,
        writer: ReportWriter,
        changes: Sequence[bytes],
        *,
        is_complete: bool,
        more: bytes = b"",
    ) -> None:
        self._more = more
        """Further fields of the last message."""
        self.changes = self._with_more(changes)
        """The messages for those that have the report before this one."""
        self.is_complete = is_complete
        """Whether ``changes`` is complete, so that those that have nothing can use it too."""
        self._writer = writer
        self._complete = self.changes if is_complete else None

    def complete(self) -> Sequence[bytes]:
        """Return the messages for those that have nothing. Must be called while it is sent."""
        if self._complete is None:
            self._complete = self._with_more(self._writer.complete())
        return self._complete

    def _with_more(self, messages: Sequence[bytes]) -> Sequence[bytes]:
        # The fields of two serialized messages, one after the other, are those of one message.
        return [*messages[:-1], messages[-1] + self._more] if self._more else messages


class Carrier(Protocol):
    """Carries messages to peers. What arrives, it passes to the hub."""

    @property
    def announces(self) -> bool:
        """Whether reports are to be sent even if no peer is known."""

    def send(self, report: Outgoing, now: float) -> None:
        """Send a report to every peer."""

    def send_to_all(self, message: bytes) -> None:
        """Send another message to every peer that has room for it."""

    def send_to(self, peer: str, message: bytes) -> bool:
        """Send a message to one peer, if this carries messages to it and has room.

        Returns:
            Whether it was sent.
        """

    def forget(self, peer: str, why: str) -> None:
        """Forget what is kept for a peer that the hub has forgotten."""

    def leave(self, message: bytes) -> None:
        """Send a last message to every peer."""
