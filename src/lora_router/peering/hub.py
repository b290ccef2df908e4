"""All peers of this router: what is sent to them, what they sent, and when they are forgotten.

Rules:

- The same report goes to all peers, ``INTERVAL_SECONDS`` after the last one. It goes at once, but
  not sooner than ``SHORTEST_SECONDS`` after the last one, when something changed that others wait
  for: a slot became free that a peer waits for, a request is held, a peer holds one, a pod was
  ejected. ``_EXTRA_PER_SECOND`` bounds how often.
- Each peer gets a complete report first, and every ``COMPLETE_SECONDS``. A peer that does not read
  fast enough misses reports, and then gets a complete one.
- A peer is forgotten with all it reported when it leaves, or has been silent for
  ``SILENCE_SECONDS``.
- This router opens a stream to every peer that it knows of, and sends on it. To peers that only
  opened streams themselves, it sends on those.

No I/O: links carry the messages, and a clock calls.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare
from lora_router.fleet.pod_state import PodState
from lora_router.grpc_server.status import OK, RESOURCE_EXHAUSTED, UNAVAILABLE
from lora_router.log_limit import LogLimit
from lora_router.peering.budget import Budget
from lora_router.peering.conversation import Conversation
from lora_router.peering.counts import PeerCounts
from lora_router.peering.limits import MAX_PEERS, MAX_STREAMS, MAX_WEIGHT
from lora_router.peering.link import Ending, Link
from lora_router.peering.pb.peering_pb2 import PeerMessage
from lora_router.peering.peer import Peer
from lora_router.peering.report_reader import ReportReader
from lora_router.peering.report_writer import ReportWriter

log = logging.getLogger("lora_router.peering")

INTERVAL_SECONDS = 0.1
SHORTEST_SECONDS = 0.02
COMPLETE_SECONDS = 5.0
SILENCE_SECONDS = 1.0
_EXTRA_BURST, _EXTRA_PER_SECOND = 10, 10
"""Reports that are sent sooner than ``INTERVAL_SECONDS``."""
_LATE_SECONDS = 0.25
_UNACKNOWLEDGED_SECONDS = 2.0
"""A stream whose reports do not arrive for this long is replaced."""
_STREAMS_BURST, _STREAMS_PER_SECOND = 2 * MAX_STREAMS, 10
"""Streams that others open."""
_GREETING_SECONDS = 2.0
"""Time that a new stream of another router has for its greeting."""
_LIGHT = MAX_WEIGHT // (2 * MAX_PEERS)
"""The weight up to which a reader is never too heavy."""


class Timer(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Do not call."""


class Clock(Protocol):
    """Time and timers."""

    def now(self) -> float:
        """Return seconds, monotonic."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, ``seconds`` from now."""


class Hub:
    """The peers."""

    def __init__(
        self,
        name: str,
        fleet: Fleet,
        held: Callable[[], Mapping[str, HeldShare]],
        clock: Clock,
    ) -> None:
        """Create it without peers.

        Args:
            name: Identifies this run of this router among all routers.
            fleet: What is reported, and what reports are applied to.
            held: Returns the adapters that this router holds requests for.
            clock: Time and timers.
        """
        self.name = name
        self.now = clock.now
        self.counts = PeerCounts()
        self.peers: dict[str, Peer] = {}
        self._fleet = fleet
        self._held = held
        self._clock = clock
        self._writer = ReportWriter()
        self._complete_at = clock.now()
        """When the last complete report went to all peers."""
        self._sent_at = float("-inf")
        self._timer: Timer | None = None
        self._due_at = 0.0
        self._is_late = False
        """Whether the next report was put off, because the event loop had stalled."""
        self._extra = Budget(_EXTRA_BURST, _EXTRA_PER_SECOND, clock.now)
        self._streams = Budget(_STREAMS_BURST, _STREAMS_PER_SECOND, clock.now)
        self._incoming: dict[Conversation, None] = {}
        self._others_hold = False
        self._ejections = 0
        self._closing = False
        self._has_left = False
        self._limit = LogLimit()
        fleet.changes.released.subscribe(self._released)
        fleet.changes.pods.subscribe(self._pods_changed)

    # Streams

    def refusal(self) -> Ending | None:
        """Return why no further stream of another router is accepted, or ``None``."""
        if self._closing:
            return Ending(UNAVAILABLE, "lora-router: shutting down")
        if len(self._incoming) < MAX_STREAMS and self._streams.spend(1):
            return None
        self.rejected("too-many-streams", "too many streams", "")
        return Ending(RESOURCE_EXHAUSTED, "lora-router: too many streams of peers")

    def accept(self, link: Link) -> Conversation:
        """Return the conversation of a stream that another router opened."""
        conversation = Conversation(self, link, opened_here=False)
        self._incoming[conversation] = None
        self._clock.call_later(_GREETING_SECONDS, conversation.expect_greeting)
        return conversation

    def open(self, link: Link) -> Conversation:
        """Return the conversation of a stream that this router opened."""
        return Conversation(self, link, opened_here=True)

    # Called by conversations

    def joined(self, conversation: Conversation, name: str, release: str) -> Ending | None:
        """Add a stream to a peer that greeted on it, or refuse it."""
        now = self.now()
        peer = self.peers.get(name)
        if peer is None:
            if len(self.peers) >= MAX_PEERS:
                self.rejected("too-many-peers", f"more than {MAX_PEERS} peers", name)
                return Ending(RESOURCE_EXHAUSTED, "lora-router: too many peers")
            peer = self.peers[name] = Peer(name, release, now)
            log.info("peer %s joined, %d peers", name, len(self.peers))
        for each in tuple(peer.conversations):
            if each.opened_here is not conversation.opened_here:
                continue
            if each.opened_here:
                # It has two addresses, and one of them is enough.
                conversation.is_redundant = True
                return Ending(OK, "")
            each.close(Ending(UNAVAILABLE, "lora-router: replaced by a newer stream"))
        conversation.peer = peer
        conversation.reader = ReportReader(name, SILENCE_SECONDS / 3)
        peer.conversations.append(conversation)
        self._schedule(now)
        return None

    def reported(self, conversation: Conversation, share: LedgerShare) -> None:
        """Apply a peer's share."""
        peer = conversation.peer
        if peer is None or share.number <= peer.number:
            return  # The other stream of the peer was faster.
        self.counts.reports_received += 1
        now = self.now()
        peer.number, peer.heard_at = share.number, now
        acknowledged = share.heard.get(self.name, 0)
        if acknowledged > peer.acknowledged:
            peer.acknowledged, peer.acknowledged_at = acknowledged, now
        if share.held or peer.held:
            begins = share.held.keys() - peer.held
            peer.held = share.held.keys()
            self._others_hold = any(each.held for each in self.peers.values())
            if begins:
                self.report_soon()  # The peer waits for the acknowledgement.
        self._fleet.put_peer(share, now)

    def left(self, conversation: Conversation) -> None:
        """Forget a peer that stops."""
        if conversation.peer is not None and conversation.peer.name in self.peers:
            self.counts.left += 1
            self._forget(conversation.peer, "left")

    def ended(self, conversation: Conversation) -> None:
        """Remove a stream that ended."""
        self._incoming.pop(conversation, None)
        peer = conversation.peer
        if peer is not None and conversation in peer.conversations:
            peer.conversations.remove(conversation)
            if peer.sends_on is conversation:
                peer.sends_on = None

    def is_too_heavy(self, reader: ReportReader) -> bool:
        """Return whether the reports of all peers take too much memory, and this one's much."""
        if reader.weight <= _LIGHT:
            return False
        total = 0
        for peer in self.peers.values():
            for each in peer.conversations:
                total += each.reader.weight if each.reader is not None else 0
        return total > MAX_WEIGHT

    def rejected(self, cause: str, message: str, peer: str) -> None:
        """Count and log a stream that was rejected."""
        self.counts.rejected[cause] += 1
        self._limit.log(
            log,
            logging.WARNING,
            cause,
            "a stream of %s was rejected: %s",
            f"peer {peer}" if peer else "an unknown peer",
            message,
        )

    # Reports

    def report_soon(self) -> None:
        """Send a report earlier than planned, because something changed that others wait for."""
        if self._timer is None:
            return
        now = self.now()
        due = max(now, self._sent_at + SHORTEST_SECONDS)
        if due < self._due_at - SHORTEST_SECONDS and self._extra.spend(1):
            self._schedule(due)

    def drain(self) -> None:
        """Accept no more streams and end those of others. Reports continue on this router's own."""
        self._closing = True
        for conversation in tuple(self._incoming):
            conversation.close(Ending(UNAVAILABLE, "lora-router: shutting down"))

    def leave(self) -> None:
        """Tell all peers that this router stops, and send no more."""
        self._closing = self._has_left = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        message = PeerMessage(leaves=True).SerializeToString()
        for peer in self.peers.values():
            for conversation in peer.conversations:
                conversation.link.send(message)

    def _schedule(self, due: float) -> None:
        if self._timer is not None:
            if self._due_at <= due:
                return
            self._timer.cancel()
        self._due_at = due
        self._timer = self._clock.call_later(max(0.0, due - self.now()), self._report)

    def _report(self) -> None:
        self._timer = None
        now = self.now()
        if not self.peers or self._has_left:
            return
        self._is_late = not self._is_late and now - self._due_at > _LATE_SECONDS
        if self._is_late:
            # The event loop stalled. What peers sent meanwhile has to be read first.
            self._schedule(now + SHORTEST_SECONDS)
            return
        self._sent_at = now
        self._schedule(now + INTERVAL_SECONDS)
        for peer in tuple(self.peers.values()):
            if now - peer.heard_at > SILENCE_SECONDS:
                self.counts.silent += 1
                self._forget(peer, f"silent for {SILENCE_SECONDS:g} s")
        share = self._fleet.report_to_peers(self.name, INTERVAL_SECONDS, self._held(), now)
        is_complete = now - self._complete_at >= COMPLETE_SECONDS or self._writer.is_sparse
        if is_complete:
            self._complete_at = now
            self._writer.begin_again()
        changes = self._writer.update(share, now)
        complete: list[bytes] | None = changes if is_complete else None
        for peer in self.peers.values():
            conversation = self._stream_to(peer, now)
            if conversation is None:
                continue
            if not conversation.link.is_ready:
                peer.needs_complete = True
                continue
            parts = changes
            if peer.needs_complete or is_complete:
                peer.needs_complete = False
                if complete is None:
                    complete = self._writer.complete()
                parts = complete
            self.counts.reports_sent += 1
            for part in parts:
                self.counts.bytes_sent += len(part)
                conversation.link.send(part)

    def _stream_to(self, peer: Peer, now: float) -> Conversation | None:
        conversation = peer.stream()
        if conversation is not peer.sends_on:
            peer.sends_on = conversation
            peer.needs_complete = True
            peer.acknowledged_at = now
        elif conversation is not None and now - peer.acknowledged_at > _UNACKNOWLEDGED_SECONDS:
            conversation.close(Ending(UNAVAILABLE, "lora-router: reports do not arrive"))
            return None
        return conversation

    def _forget(self, peer: Peer, why: str) -> None:
        del self.peers[peer.name]
        self._others_hold = any(each.held for each in self.peers.values())
        log.info("peer %s %s, %d peers", peer.name, why, len(self.peers))
        for conversation in tuple(peer.conversations):
            conversation.close(Ending(UNAVAILABLE, f"lora-router: {why}"))
        self._fleet.forget_peer(peer.name, self.now())

    # Called by the fleet

    def _released(self, states: Collection[PodState]) -> None:
        if self._others_hold:
            for state in states:
                # An adapter that peers believe in flight is not any more: its slot is free.
                if len(state.in_flight_adapters) < len(state.beliefs.peers.reported):
                    self.report_soon()

    def _pods_changed(self, _states: Collection[PodState]) -> None:
        outliers = self._fleet.outliers
        if outliers is None:
            return
        ejections = sum(outliers.unwell.ejections.values())
        if ejections != self._ejections:
            self._ejections = ejections
            self.report_soon()
