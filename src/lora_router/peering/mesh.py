"""The carrier of the mesh: a stream, or two, between each two routers.

Rules:

- This router opens a stream to every peer that it knows of, and sends on it. To peers that only
  opened streams themselves, it sends on those.
- A stream begins with a complete report. A peer that does not read fast enough misses reports, and
  then gets a complete one.
- A stream whose reports are not acknowledged is replaced.

No I/O: links carry the messages, and a clock calls.
"""

from collections.abc import Collection

from lora_router.grpc_server.status import OK, RESOURCE_EXHAUSTED, UNAVAILABLE
from lora_router.peering.budget import Budget
from lora_router.peering.carrier import Outgoing
from lora_router.peering.conversation import Conversation
from lora_router.peering.hub import LEAVES, SHARE_SECONDS, Hub
from lora_router.peering.limits import MAX_FOLLOWING, MAX_PEERS, MAX_STREAMS
from lora_router.peering.link import Ending, Link
from lora_router.peering.report_reader import ReportReader, is_too_heavy
from lora_router.peering.worker_place import WorkerPlace

_UNACKNOWLEDGED_SECONDS = 2.0
"""A stream whose reports do not arrive for this long is replaced."""
_STREAMS_BURST, _STREAMS_PER_SECOND = 2 * MAX_STREAMS, 10
"""Streams that others open."""
_GREETING_SECONDS = 2.0
"""Time that a new stream of another router has for its greeting."""


class _Streams:
    """The streams to and from one peer."""

    __slots__ = ("conversations", "needs_complete", "room", "sends_on", "since")

    def __init__(self) -> None:
        self.conversations: list[Conversation] = []
        """The open streams, oldest first."""
        self.sends_on: Conversation | None = None
        """The stream that carries this router's reports."""
        self.since = 0.0
        """When that stream was chosen, on the clock of ``Hub.awake``."""
        self.needs_complete = True
        """Whether the next report on ``sends_on`` must be a complete one."""
        self.room = 0
        """Messages that may be sent on it although others still wait to be written."""

    def best(self) -> Conversation | None:
        """Return the stream to send on: one that this router opened, else the newest."""
        for conversation in self.conversations:
            if conversation.opened_here:
                return conversation
        return self.conversations[-1] if self.conversations else None


class Mesh:
    """All streams of this router."""

    announces = False
    """A router that nobody has a stream to has nobody to send to."""

    def __init__(
        self, hub: Hub, place: WorkerPlace | None = None, *, most: int = MAX_PEERS
    ) -> None:
        """Create it without streams.

        Args:
            hub: All peers. It sends reports on the streams from now on.
            place: Where this router is, if it is a worker and others may not know that.
            most: The number of peers, from which no further ones are accepted.
        """
        self.hub = hub
        self.place = place
        self._most = most
        self._streams: dict[str, _Streams] = {}
        """By the names of the peers."""
        self._incoming: dict[Conversation, None] = {}
        self._budget = Budget(_STREAMS_BURST, _STREAMS_PER_SECOND, hub.now)
        self._closing = False
        hub.add(self)

    # Streams

    def refusal(self) -> Ending | None:
        """Return why no further stream of another router is accepted, or ``None``."""
        if self._closing:
            return Ending(UNAVAILABLE, "lora-router: shutting down")
        if len(self._incoming) < MAX_STREAMS and self._budget.spend(1):
            return None
        self.hub.rejected("too-many-streams", "too many streams", "")
        return Ending(RESOURCE_EXHAUSTED, "lora-router: too many streams of peers")

    def accept(self, link: Link) -> Conversation:
        """Return the conversation of a stream that another router opened."""
        conversation = Conversation(self, link, opened_here=False)
        self._incoming[conversation] = None
        self.hub.call_later(_GREETING_SECONDS, conversation.expect_greeting)
        return conversation

    def open(self, link: Link) -> Conversation:
        """Return the conversation of a stream that this router opened."""
        return Conversation(self, link, opened_here=True)

    def streams_of(self, peer: str) -> Collection[Conversation]:
        """Return the open streams to and from a peer."""
        streams = self._streams.get(peer)
        return () if streams is None else tuple(streams.conversations)

    def stream_to(self, peer: str) -> Conversation | None:
        """Return the stream that carries this router's reports to a peer."""
        streams = self._streams.get(peer)
        return None if streams is None else streams.sends_on

    # Called by conversations

    def joined(self, conversation: Conversation, name: str, release: str) -> Ending | None:
        """Add a stream to a peer that greeted on it, or refuse it."""
        peer = self.hub.met(name, release, self._most)
        if peer is None:
            return Ending(RESOURCE_EXHAUSTED, "lora-router: too many peers")
        streams = self._streams.setdefault(name, _Streams())
        for each in tuple(streams.conversations):
            if each.opened_here is not conversation.opened_here:
                continue
            if each.opened_here:
                # It has two addresses, and one of them is enough.
                conversation.is_redundant = True
                return Ending(OK, "")
            each.close(Ending(UNAVAILABLE, "lora-router: replaced by a newer stream"))
        conversation.peer = peer
        conversation.reader = ReportReader(name, SHARE_SECONDS)
        streams.conversations.append(conversation)
        self.hub.report_now()
        return None

    def complete_wanted(self, peer: str) -> None:
        """Send the next report to a peer as a complete one, and soon."""
        streams = self._streams.get(peer)
        if streams is not None:
            streams.needs_complete = True
            self.hub.report_soon()

    def ended(self, conversation: Conversation) -> None:
        """Remove a stream that ended."""
        self._incoming.pop(conversation, None)
        peer = conversation.peer
        streams = None if peer is None else self._streams.get(peer.name)
        if streams is not None and conversation in streams.conversations:
            streams.conversations.remove(conversation)
            if streams.sends_on is conversation:
                streams.sends_on = None

    def is_too_heavy(self, reader: ReportReader) -> bool:
        """Return whether the reports of all peers take too much memory, and this one's much."""
        readers = (
            each.reader
            for streams in self._streams.values()
            for each in streams.conversations
            if each.reader is not None
        )
        return is_too_heavy(reader, readers, MAX_PEERS)

    # Called by the hub

    def send(self, report: Outgoing, now: float) -> None:
        """Send a report to every peer that reads."""
        counts = self.hub.counts
        for name, streams in self._streams.items():
            conversation = self._stream_to(name, streams)
            if conversation is None:
                continue
            if not conversation.link.is_ready:
                streams.needs_complete = True
                streams.room = 0
                continue
            streams.room = MAX_FOLLOWING
            parts = report.changes
            if streams.needs_complete:
                streams.needs_complete = False
                parts = report.complete()
            counts.reports_sent += 1
            for part in parts:
                counts.bytes_sent += len(part)
                conversation.link.send(part)

    def send_to_all(self, message: bytes) -> None:
        """Send a message to every peer that reads fast enough."""
        counts = self.hub.counts
        for streams in self._streams.values():
            conversation = streams.sends_on
            if conversation is None:
                continue
            if conversation.link.is_ready:
                streams.room = MAX_FOLLOWING
            if streams.room:
                streams.room -= 1
                counts.bytes_sent += len(message)
                conversation.link.send(message)

    def send_to(self, peer: str, message: bytes) -> bool:
        """Send a message to one peer, if it reads fast enough."""
        conversation = self.stream_to(peer)
        if conversation is None or not conversation.link.is_ready:
            return False
        self.hub.counts.bytes_sent += len(message)
        conversation.link.send(message)
        return True

    def forget(self, peer: str, why: str) -> None:
        """End the streams of a peer."""
        streams = self._streams.pop(peer, None)
        if streams is not None:
            for conversation in tuple(streams.conversations):
                conversation.close(Ending(UNAVAILABLE, f"lora-router: {why}"))

    def drain(self) -> None:
        """Accept no more streams and end those of others. Reports continue on this router's own.

        Where it has none, the peer would wait for reports. So it is told that this router leaves.
        """
        self._closing = True
        for conversation in tuple(self._incoming):
            peer = conversation.peer
            if peer is not None and not any(
                each.opened_here for each in self.streams_of(peer.name)
            ):
                conversation.link.send(LEAVES)
            conversation.close(Ending(UNAVAILABLE, "lora-router: shutting down"))

    def leave(self, message: bytes) -> None:
        """Send a last message on all streams."""
        self._closing = True
        for streams in self._streams.values():
            for conversation in streams.conversations:
                conversation.link.send(message)

    def _stream_to(self, name: str, streams: _Streams) -> Conversation | None:
        conversation, awake = streams.best(), self.hub.awake()
        if conversation is not streams.sends_on:
            streams.sends_on = conversation
            streams.needs_complete = True
            streams.since = awake
        elif conversation is not None:
            since = max(streams.since, self.hub.peers[name].acknowledged_awake)
            if awake - since > _UNACKNOWLEDGED_SECONDS:
                conversation.close(Ending(UNAVAILABLE, "lora-router: reports do not arrive"))
                return None
        return conversation
