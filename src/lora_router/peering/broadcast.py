"""The carrier for a place where all routers listen, such as a channel of Redis.

Rules:

- Every report is published once. Routers meet by what they publish.
- Whoever connects uses the stored states of the others, and publishes a complete report. It asks
  for a complete report only a router whose next report does not continue what it has. So does a
  router that missed a report.
- A complete report that one router asked for is for that router only, so that the others need not
  read it. If several asked, it is for all. A router publishes at most one such report in
  ``_COMPLETE_SECONDS``.
- A router that exceeds a limit is not listened to for ``_DEAF_SECONDS``. If all together exceed
  those of the channel, this router leaves the channel for a while.

No I/O: a channel carries the messages.
"""

from collections.abc import Callable, Collection
from typing import Protocol

from google.protobuf.message import DecodeError

from lora_router.peering.budget import Allowance, Budget
from lora_router.peering.carrier import Outgoing
from lora_router.peering.hub import SHARE_SECONDS, Hub
from lora_router.peering.limits import (
    BYTES_BURST,
    BYTES_PER_SECOND,
    CHANNEL_BYTES_BURST,
    CHANNEL_BYTES_PER_SECOND,
    CHANNEL_MESSAGES_BURST,
    CHANNEL_MESSAGES_PER_SECOND,
    MAX_BROADCAST_PEERS,
    MAX_FOLLOWING,
    MAX_PARTS,
    MAX_STATE_BYTES,
    MESSAGES_BURST,
    MESSAGES_PER_SECOND,
)
from lora_router.peering.pb.broadcast_pb2 import Publication, StoredState
from lora_router.peering.pb.peering_pb2 import PeerMessage, Report
from lora_router.peering.peer import Peer
from lora_router.peering.publications import Publications, RefusedError
from lora_router.peering.report_reader import GapError, ReportError, ReportReader, is_too_heavy
from lora_router.peering.secret import Secret
from lora_router.steps import Steps

_COMPLETE_SECONDS = 0.25
_ASK_SECONDS = 0.3
"""Time between two requests for a complete report of the same router."""
_DEAF_SECONDS = 5.0
_EVERYBODY = ""
"""Asked for a complete report for all routers. Earlier releases do so when they connect."""
_ECHO_SECONDS = 2.0
"""A channel on which this router does not hear itself for this long is replaced."""


class Channel(Protocol):
    """A connection to where all routers listen."""

    @property
    def is_ready(self) -> bool:
        """Whether nothing that was published still waits to be sent."""

    def publish(self, data: bytes) -> None:
        """Publish as soon as the connection takes it."""

    def store(self, state: bytes) -> None:
        """Keep a state for routers that join, for ``STATE_SECONDS``."""

    def give_up(self, why: str) -> None:
        """End the connection, and connect again after a while."""


class _Sender:
    """Another router, as heard on the channel."""

    __slots__ = ("allowance", "asked_at", "deaf_until", "is_live", "reader")

    def __init__(self, name: str, hub: Hub) -> None:
        self.reader = ReportReader(name, SHARE_SECONDS)
        self.allowance = Allowance(
            Budget(MESSAGES_BURST, MESSAGES_PER_SECOND, hub.now),
            Budget(BYTES_BURST, BYTES_PER_SECOND, hub.now),
        )
        self.asked_at = float("-inf")
        """When it was asked for a complete report."""
        self.deaf_until = float("-inf")
        """Until when it is not listened to."""
        self.is_live = False
        """Whether a report arrived on the channel, and not only as a stored state."""


class Broadcasts:
    """What this router publishes, and what it hears."""

    def __init__(self, hub: Hub, secret: Secret | None) -> None:
        """Create it without a channel.

        Args:
            hub: All peers. It sends reports on the channel from now on.
            secret: Signs what is published. ``None``: whoever can publish is believed.
        """
        self._hub = hub
        self._publications = Publications(hub.name, secret, hub.now)
        self.set_time, self.time = self._publications.set_time, self._publications.time
        self.is_heard_elsewhere: Callable[[str], bool] = lambda _router: False
        """Returns whether what a router publishes needs not be used, because it arrives another
        way: that of a worker of the same router."""
        self._channel: Channel | None = None
        self._senders: dict[str, _Sender] = {}
        self._members: frozenset[str] = frozenset()
        """The routers that were there when the channel was connected."""
        self._wanted_by: set[str] = set()
        """The routers that asked for a complete report."""
        self._missed = False
        """Whether a report was not published, because the channel was not ready."""
        self._room = 0
        """Messages that may be published although others still wait to be sent."""
        self._complete_at = float("-inf")
        self._echo_at = 0.0
        """When this router last heard itself, on the clock of ``Hub.awake``."""
        self._allowance = Allowance(
            Budget(CHANNEL_MESSAGES_BURST, CHANNEL_MESSAGES_PER_SECOND, hub.now),
            Budget(CHANNEL_BYTES_BURST, CHANNEL_BYTES_PER_SECOND, hub.now),
        )
        hub.add(self)

    # The channel

    @property
    def is_connected(self) -> bool:
        """Whether there is a channel."""
        return self._channel is not None

    @property
    def announces(self) -> bool:
        """Whether reports are to be published even if no peer is known."""
        return self._channel is not None

    def use_state(self, state: bytes) -> Steps[None]:
        """Use what is stored of a router, in steps of one message each.

        Called before the channel is connected, and after ``set_time``: what the router has
        published since then must not arrive before. The rest of a state with a message that is
        refused is not used, because no router stores such a one.
        """
        if not state:
            return
        self._hub.counts.bytes_received += len(state)
        try:
            broadcasts = StoredState.FromString(state).broadcast
        except DecodeError:
            self._hub.rejected("malformed", "not a StoredState message", "")
            return
        for each in broadcasts[:MAX_PARTS]:
            if not self._use(each, is_stored=True):
                return
            yield

    def connected(self, channel: Channel, members: Collection[str]) -> None:
        """Use a channel from now on. ``set_time`` must have been called.

        Args:
            channel: It has just been connected.
            members: The names of the routers that were there lately.
        """
        self._channel = channel
        self._echo_at = self._hub.awake()
        self._missed = True  # Whoever listens has nothing of this router, or has missed something.
        for sender in self._senders.values():
            sender.is_live = False
        self._members = frozenset(members) - {self._hub.name}
        self._hub.report_now()

    def disconnected(self) -> None:
        """Publish nothing until there is a channel again."""
        self._channel = None

    def has_joined(self) -> bool:
        """Return whether every router that was there at the start has reported on the channel."""
        return self._channel is not None and all(
            (name in self._senders and self._senders[name].is_live) or self.is_heard_elsewhere(name)
            for name in self._members
        )

    # Called by the hub

    def send(self, report: Outgoing, now: float) -> None:
        """Publish a report."""
        channel = self._channel
        if channel is None:
            return
        if self._hub.awake() - self._echo_at > _ECHO_SECONDS:
            channel.give_up("what this router publishes does not come back")
            return
        if not channel.is_ready:
            self._missed, self._room = True, 0
            return
        self._room = MAX_FOLLOWING
        is_due = now - self._complete_at >= _COMPLETE_SECONDS
        wanted_by = self._wanted_by if is_due else set[str]()
        is_complete = (
            report.is_complete or self._missed or len(wanted_by) > 1 or _EVERYBODY in wanted_by
        )
        parts = report.complete() if is_complete else report.changes
        published = [self._publish(part) for part in parts]
        self._hub.counts.reports_sent += 1
        if is_complete:
            self._missed = False
            state = StoredState(broadcast=published).SerializeToString()
            if len(state) <= MAX_STATE_BYTES:
                channel.store(state)
        else:
            for name in wanted_by:
                for part in report.complete():
                    self._publish(part, to=name)
        if is_complete or wanted_by:
            self._complete_at, self._wanted_by = now, set()

    def send_to_all(self, message: bytes) -> None:
        """Publish another message, if the channel is fast enough."""
        if self._channel is None:
            return
        if self._channel.is_ready:
            self._room = MAX_FOLLOWING
        if self._room:
            self._room -= 1
            self._publish(message)

    def send_to(self, peer: str, message: bytes) -> bool:
        """Publish a message that only one router uses, if the channel is fast enough."""
        channel = self._channel
        if channel is None or not channel.is_ready or peer not in self._senders:
            return False
        if self.is_heard_elsewhere(peer):
            return False
        self._publish(message, to=peer)
        return True

    def forget(self, peer: str, why: str) -> None:
        """Forget what a router has reported, unless it is not listened to for now."""
        self._wanted_by.discard(peer)
        sender = self._senders.get(peer)
        if sender is not None and self._hub.now() >= sender.deaf_until:
            del self._senders[peer]

    def leave(self, message: bytes) -> None:
        """Publish a last message."""
        if self._channel is not None:
            self._publish(message)

    def _publish(self, message: bytes, to: str = "") -> bytes:
        assert self._channel is not None  # noqa: S101 -- the callers have looked
        data = self._publications.make(message, to)
        self._hub.counts.bytes_sent += len(data)
        self._channel.publish(data)
        return data

    # What arrives

    def arrived(self, data: bytes) -> None:
        """Use what arrived on the channel, whoever published it."""
        channel, hub = self._channel, self._hub
        if channel is None:
            return
        if not self._allowance.admits(len(data)):
            hub.rejected("flood", "too many messages or bytes on the channel", "")
            channel.give_up("too many messages or bytes")
            return
        hub.counts.bytes_received += len(data)
        self._use(data, is_stored=False)

    def _use(self, data: bytes, *, is_stored: bool) -> bool:
        """Use what was published. Return whether it is what a router publishes."""
        hub = self._hub
        try:
            publication = self._publications.read(data, is_stored=is_stored)
        except RefusedError as error:
            hub.rejected(error.cause, str(error), error.router)
            return False
        if publication is None:
            return True
        if publication.router == hub.name:
            self._echo_at = hub.awake()
        elif not self.is_heard_elsewhere(publication.router):
            self._hear(publication, is_stored=is_stored)
        return True

    def _hear(self, publication: Publication, *, is_stored: bool) -> None:
        hub, name, data = self._hub, publication.router, publication.message
        sender = self._senders.get(name)
        if sender is not None and hub.now() < sender.deaf_until:
            return
        try:
            message = PeerMessage.FromString(data)
        except DecodeError:
            hub.rejected("malformed", "not a PeerMessage message", name)
            return
        if message.leaves:
            if name in hub.peers:
                hub.left(hub.peers[name])
            return
        peer = hub.met(name, publication.release[:64], MAX_BROADCAST_PEERS)
        if peer is None:
            return
        if sender is None:
            self._forget_strangers()
            sender = self._senders[name] = _Sender(name, hub)
        if not sender.allowance.admits(len(data)):
            self._stop_listening(name, sender, "flood", "too many messages or bytes")
            return
        if message.wants_complete:
            self._wanted_by.add(name if publication.to else _EVERYBODY)
            hub.report_soon()
        if message.HasField("report"):
            is_known = self._read(peer, sender, message.report)
            sender.is_live = sender.is_live or (is_known and not is_stored)
        if not is_stored:  # What is stored was read long ago.
            self._take(name, sender, message)

    def _take(self, name: str, sender: _Sender, message: PeerMessage) -> None:
        try:
            self._hub.told(name, message)
        except ReportError as error:
            self._stop_listening(name, sender, error.cause, str(error))

    def _read(self, peer: Peer, sender: _Sender, report: Report) -> bool:
        """Use a report. Return whether nothing more is to be waited for of this router."""
        hub, name = self._hub, peer.name
        try:
            share = sender.reader.read(report)
        except GapError:
            if self._channel is not None and hub.now() - sender.asked_at >= _ASK_SECONDS:
                sender.asked_at = hub.now()
                self._publish(PeerMessage(wants_complete=True).SerializeToString(), to=name)
            return False
        except ReportError as error:
            self._stop_listening(name, sender, error.cause, str(error))
            return True
        if share is None:  # Further parts follow.
            return False
        readers = (each.reader for each in self._senders.values())
        if is_too_heavy(sender.reader, readers, MAX_BROADCAST_PEERS):
            self._stop_listening(name, sender, "too-large", "all reports are too large")
            return True
        hub.reported(peer, share)
        return True

    def _stop_listening(self, name: str, sender: _Sender, cause: str, message: str) -> None:
        self._hub.rejected(cause, message, name)
        sender.deaf_until = self._hub.now() + _DEAF_SECONDS
        sender.reader = ReportReader(name, SHARE_SECONDS)

    def _forget_strangers(self) -> None:
        """Forget routers that are no peers any more, and are listened to again."""
        for name in self._senders.keys() - self._hub.peers.keys():
            self.forget(name, "")
