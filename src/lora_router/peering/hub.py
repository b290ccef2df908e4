"""All peers of this router: what is sent to them, what they sent, and when they are forgotten.

Rules:

- The same report goes to all peers, ``INTERVAL_SECONDS`` after the last one. It goes at once, but
  not sooner than ``SHORTEST_SECONDS`` after the last one, when something changed that others wait
  for: a slot became free that a peer waits for, a request is held, a peer holds one, a pod was
  ejected; and while adapters are in flight on a pod whose number of slots is unknown.
  ``_EXTRA_PER_SECOND`` bounds how often.
- Every ``COMPLETE_SECONDS``, a complete report goes to all peers. Carriers also send one to a peer
  that is new, or that missed a report.
- A peer is forgotten with all it reported when it leaves, or has been silent for
  ``SILENCE_SECONDS``. Time in which this router's event loop stalled does not count (``awake``):
  what peers sent meanwhile is still unread.

No I/O: carriers carry the messages, and a clock calls.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from lora_router.clock import Clock, LateTurns, Timer
from lora_router.counted import counted
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare
from lora_router.fleet.peer_shares import MISSED
from lora_router.fleet.pod_state import PodState
from lora_router.log_limit import LogLimit
from lora_router.peering.budget import Budget
from lora_router.peering.carrier import Carrier, Outgoing
from lora_router.peering.counts import PeerCounts, PeerLoad
from lora_router.peering.passing import (
    Part,
    PassesIds,
    PassesPrefixes,
    PassesQuestions,
    PassesReadings,
)
from lora_router.peering.pb.peering_pb2 import (
    EarlyRefusal,
    FailedLoad,
    LoadTimes,
    PeerMessage,
    Withdrawal,
)
from lora_router.peering.peer import Peer
from lora_router.peering.report_writer import ReportWriter
from lora_router.peering.step_turns import StepTurns

log = logging.getLogger("lora_router.peering")

INTERVAL_SECONDS = 0.1
SHORTEST_SECONDS = 0.02
COMPLETE_SECONDS = 10.0
LEAVES = PeerMessage(leaves=True).SerializeToString()
"""The message of a router that is about to stop."""
SILENCE_SECONDS = 1.0
SHARE_SECONDS = 60.0 / MISSED
"""The interval that the fleet is told for the shares of peers. The hub tells the fleet to forget a
peer long before the fleet would do so by itself, which does not know of stalls."""
_EXTRA_BURST, _EXTRA_PER_SECOND = 10, 10
"""Reports that are sent sooner than ``INTERVAL_SECONDS``."""
_LATE_SECONDS = 0.25
_MOST_WITH_REPORT = 32 * 1024
"""Bytes of readings that go in the same message as a report. More go in messages of their own."""


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
        self.may_load = False
        """Whether this router loads adapters if no other one precedes it, as peers are told."""
        self._fleet = fleet
        self._held = held
        self._clock = clock
        self._carriers: list[Carrier] = []
        self._writer = ReportWriter(fleet.idle_adapters)
        self._complete_at = clock.now()
        """When the last complete report went to all peers."""
        self._sent_at = float("-inf")
        self._timer: Timer | None = None
        self._due_at = 0.0
        self._stalled = 0.0
        """The seconds by which reports were late so far, all together."""
        self._late_turns = LateTurns(_LATE_SECONDS)
        self._extra = Budget(_EXTRA_BURST, _EXTRA_PER_SECOND, clock.now)
        self._others_hold = False
        self._ejections = 0
        self._has_left = False
        self._limit = LogLimit()
        self._turns = StepTurns(clock)
        self.readings: PassesReadings | None = None
        """Tells peers what is read from pods, and takes in what they tell."""
        self.ids: PassesIds | None = None
        """Tells peers which pods made which IDs, and takes in what they tell."""
        self.prefixes: PassesPrefixes | None = None
        """Tells peers which prompts went to which pods, and takes in what they tell."""
        self.questions: PassesQuestions | None = None
        """Asks peers what people want to know, and answers them."""
        self.failed_loads: Part[Collection[FailedLoad]] | None = None
        """Tells peers which adapters cannot be loaded, and takes in what they tell."""
        self.withdrawals: Part[Collection[Withdrawal]] | None = None
        """Tells peers which adapters are about to be unloaded, and takes in what they tell."""
        self.load_times: Part[Collection[LoadTimes]] | None = None
        """Tells peers how long loads of adapters took, and takes in what they tell."""
        self.early_refusals: Part[Collection[EarlyRefusal]] | None = None
        """Tells peers which adapters were refused slots early, and takes in what they tell."""
        fleet.peers.on_due = self._renew_later
        fleet.changes.released.subscribe(self._released)
        fleet.changes.pods.subscribe(self._pods_changed)

    def add(self, carrier: Carrier) -> None:
        """Send reports with a further carrier from now on."""
        self._carriers.append(carrier)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, ``seconds`` from now."""
        return self._clock.call_later(seconds, call)

    def use_may_load(self, may_load: bool) -> None:
        """Tell peers soon whether this router may be the one that loads adapters."""
        self.may_load = may_load
        self.report_soon()

    def loaders(self) -> Collection[str]:
        """Return the peers that may be the ones that load adapters."""
        return [name for name, peer in self.peers.items() if peer.may_load]

    def awake(self) -> float:
        """Return seconds, monotonic, without the time in which the event loop stalled.

        What is due by this clock is not due because this router was late. While no report is
        planned, stalls are not noticed.
        """
        now = self.now()
        return (now if self._timer is None else min(now, self._due_at)) - self._stalled

    # Called by carriers

    def met(self, name: str, release: str, most: int) -> Peer | None:
        """Return the peer of a name, which is added if it is new.

        Args:
            name: The peer's name, checked.
            release: Its release.
            most: The number of peers that the carrier allows.

        Returns:
            ``None`` if there are too many peers.
        """
        peer = self.peers.get(name)
        if peer is None:
            if len(self.peers) >= most:
                self.rejected("too-many-peers", f"more than {most} peers", name)
                return None
            peer = self.peers[name] = Peer(name, release, self.now(), self.awake())
            log.info("peer %s joined, %s", name, counted(len(self.peers), "peer"))
            if self.ids is not None:
                self.ids.joined()
            if self.prefixes is not None:
                self.prefixes.joined()
        return peer

    def reported(self, peer: Peer, share: LedgerShare) -> None:
        """Apply a peer's share."""
        if share.number <= peer.number:
            return  # It came another way already.
        self.counts.reports_received += 1
        now = self.now()
        peer.number, peer.heard_at, peer.heard_awake = share.number, now, self.awake()
        acknowledged = share.heard.get(self.name, 0)
        if acknowledged > peer.acknowledged:
            peer.acknowledged, peer.acknowledged_awake = acknowledged, self.awake()
        peer.may_load = share.may_load
        if share.held or peer.held:
            begins = share.held.keys() - peer.held
            peer.held = share.held.keys()
            self._others_hold = any(each.held for each in self.peers.values())
            if begins:
                self.report_soon()  # The peer waits for the acknowledgement.
        self._turns.do(peer.name, self._fleet.take_share(share, now))

    def told(self, name: str, message: PeerMessage) -> None:
        """Take in what a peer tells beside its reports.

        Raises:
            ReportError: The message is malformed, or exceeds a bound.
        """
        if self.readings is not None and message.HasField("readings"):
            self.readings.received(name, message.readings)
        if self.ids is not None and message.made_ids:
            self.ids.received(name, message.made_ids)
        if self.prefixes is not None and message.sent_prompts:
            self.prefixes.received(name, message.sent_prompts)
        if self.failed_loads is not None and message.failed_loads:
            self.failed_loads.received(name, message.failed_loads)
        if self.withdrawals is not None and message.withdrawals:
            self.withdrawals.received(name, message.withdrawals)
        if self.load_times is not None and message.load_times:
            self.load_times.received(name, message.load_times)
        if self.early_refusals is not None and message.early_refusals:
            self.early_refusals.received(name, message.early_refusals)
        if self.questions is not None:
            if message.HasField("question"):
                self.questions.asked(name, message.question)
            if message.HasField("answer"):
                self.questions.answered(name, message.answer)

    def left(self, peer: Peer) -> None:
        """Forget a peer that stops."""
        if self.peers.get(peer.name) is peer:
            self.counts.left += 1
            self._forget(peer, "left")

    def rejected(self, cause: str, message: str, peer: str) -> None:
        """Count and log a stream or a message that was rejected."""
        self.counts.rejected[cause] += 1
        self._limit.log(
            log,
            logging.WARNING,
            cause,
            "what %s sent was rejected: %s",
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

    def send_to_all(self, message: bytes) -> None:
        """Send a message to every peer that has room for it."""
        if not self._has_left:
            for carrier in self._carriers:
                carrier.send_to_all(message)

    def send_to(self, peer: str, message: bytes) -> bool:
        """Send a message to one peer; return whether a carrier has room for it."""
        return not self._has_left and any(
            carrier.send_to(peer, message) for carrier in self._carriers
        )

    def report_now(self) -> None:
        """Send a report at once, because somebody new reads it."""
        self._schedule(self.now())

    def leave(self) -> None:
        """Tell all peers that this router stops, and send no more."""
        self._has_left = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for carrier in self._carriers:
            carrier.leave(LEAVES)

    def load(self) -> PeerLoad:
        """Return what all peers have in flight and hold, according to their last reports."""
        requests = adapters = 0
        for state in self._fleet:
            peers = state.beliefs.peers
            requests += peers.requests
            adapters += len(peers.adapters)
        held = {adapter for peer in self.peers.values() for adapter in peer.held}
        return PeerLoad(requests, adapters, len(held))

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
        self._stalled += max(0.0, now - self._due_at)
        if self._has_left or not (self.peers or any(each.announces for each in self._carriers)):
            return
        if self._late_turns.skips(now - self._due_at):
            self._schedule(now + SHORTEST_SECONDS)
            return
        self._sent_at = now
        self._schedule(now + INTERVAL_SECONDS)
        awake = now - self._stalled
        for peer in tuple(self.peers.values()):
            patience = peer.heard_awake + SILENCE_SECONDS - awake
            if patience <= 0:
                self.counts.silent += 1
                self._forget(peer, f"silent for {now - peer.heard_at:.2f} s")
            elif now + patience < self._due_at:
                # A peer that died is forgotten in time, not with the report after that.
                self._schedule(now + max(patience, SHORTEST_SECONDS))
        share = self._fleet.report_to_peers(self.name, INTERVAL_SECONDS, self._held(), now)
        if not self.may_load:
            share = replace(share, may_load=False)
        self._turns.do(self.name, self._fleet.peers.fade())
        if self._places_blindly(share) and self._extra.spend(1):
            self._schedule(now + SHORTEST_SECONDS)
        is_complete = now - self._complete_at >= COMPLETE_SECONDS or self._writer.is_sparse
        if is_complete:
            self._complete_at = now
            self._writer.begin_again()
        changes = self._writer.update(share, now)
        more = [] if self.readings is None else self.readings.take()
        with_report = more.pop(0) if more and len(more[0]) <= _MOST_WITH_REPORT else b""
        report = Outgoing(self._writer, changes, is_complete=is_complete, more=with_report)
        for carrier in self._carriers:
            carrier.send(report, now)
        for message in more:
            self.send_to_all(message)

    def _places_blindly(self, share: LedgerShare) -> bool:
        """Return whether adapters are in flight on a pod whose number of slots is unknown.

        There nothing is allotted: only reports keep routers from taking the same slots. A pod says
        how many it has with the first scrape after its first adapter.
        """
        for state in self._fleet:
            if state.beliefs.slots is None:
                pod = share.pods.get(state.pod.name)
                if pod is not None and pod.adapters:
                    return True
        return False

    def _forget(self, peer: Peer, why: str) -> None:
        del self.peers[peer.name]
        self._others_hold = any(each.held for each in self.peers.values())
        log.info("peer %s %s, %s", peer.name, why, counted(len(self.peers), "peer"))
        for carrier in self._carriers:
            carrier.forget(peer.name, why)
        parts = (
            self.readings,
            self.ids,
            self.prefixes,
            self.failed_loads,
            self.withdrawals,
            self.load_times,
            self.early_refusals,
            self.questions,
        )
        for part in parts:
            if part is not None:
                part.gone(peer.name)
        self._turns.do(peer.name, self._fleet.drop_peer(peer.name, self.now()))

    # Called by the fleet

    def _renew_later(self, seconds: float) -> None:
        self._clock.call_later(seconds, self._renew)

    def _renew(self) -> None:
        self._fleet.peers.renew(self.now())

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
