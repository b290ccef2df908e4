"""One peer: another router, and the streams to and from it."""

from collections.abc import Collection

from lora_router.peering.conversation import Conversation


class Peer:
    """A router that has greeted. The hub forgets it when it is silent or leaves."""

    __slots__ = (
        "acknowledged",
        "acknowledged_at",
        "conversations",
        "heard_at",
        "held",
        "name",
        "needs_complete",
        "number",
        "release",
        "sends_on",
    )

    def __init__(self, name: str, release: str, now: float) -> None:
        self.name = name
        self.release = release
        self.conversations: list[Conversation] = []
        """The open streams, oldest first."""
        self.sends_on: Conversation | None = None
        """The stream that carries this router's reports."""
        self.needs_complete = True
        """Whether the next report on ``sends_on`` must be a complete one."""
        self.number = 0
        """The number of the peer's last report."""
        self.heard_at = now
        """When it arrived. Before the first report: when the peer was met."""
        self.acknowledged = 0
        """The number of this router's last report that arrived at the peer."""
        self.acknowledged_at = now
        """When that number grew, or when ``sends_on`` changed."""
        self.held: Collection[str] = ()
        """The adapters that it holds requests for."""

    def stream(self) -> Conversation | None:
        """Return the stream to send on: one that this router opened, else the newest."""
        for conversation in self.conversations:
            if conversation.opened_here:
                return conversation
        return self.conversations[-1] if self.conversations else None
