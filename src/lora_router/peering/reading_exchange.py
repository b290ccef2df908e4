"""Tells peers what this router has read from pods, and takes in what they tell. No I/O.

Readings go out with the next report, or ``WAIT_SECONDS`` after the first of them if that is sooner.
A message without readings says that this router takes part, although it has none to tell.
A peer that misses a message reads the pods itself. So nothing is kept or sent again.
"""

from collections.abc import Callable, Collection
from typing import Protocol

from lora_router.clock import Timer
from lora_router.fleet.catalog_digests import CatalogDigests
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Page, Reading
from lora_router.peering.budget import Budget
from lora_router.peering.passing import PassesReadings
from lora_router.peering.pb.peering_pb2 import PeerMessage
from lora_router.peering.pb.readings_pb2 import Readings
from lora_router.peering.pod_keys import PodKeys
from lora_router.peering.reading_codec import ReadingReader, ReadingWriter
from lora_router.peering.report_reader import ReportError

WAIT_SECONDS = 0.05
"""How long a reading waits for others, which then go in the same message."""
_READINGS_BURST, _READINGS_PER_SECOND = 100_000, 10_000
"""Readings of one peer. A router reads at most some hundred pods in a second."""


class TrustCounts(Protocol):
    """How often peers were found not to tell what is so."""

    contradictions: int
    distrusted: int


class Receiver(Protocol):
    """Decides what is done with the readings of peers."""

    @property
    def counts(self) -> TrustCounts:
        """Totals since the start."""

    def heard(self, name: str, interval: float) -> bool:
        """Note that a peer tells readings; return whether it is believed."""

    def wants(self, name: str, state: PodState, page: Page, read_at: float) -> bool:
        """Return whether a reading is of use."""

    def receive(self, name: str, reading: Reading) -> None:
        """Use a reading."""

    def gone(self, name: str) -> None:
        """Forget a peer that stopped."""


class ReadingHub(Protocol):
    """The peers, as far as readings are concerned."""

    readings: PassesReadings | None

    @property
    def name(self) -> str:
        """The name of this router among them."""

    @property
    def peers(self) -> Collection[str]:
        """The names of the peers."""

    @property
    def now(self) -> Callable[[], float]:
        """Returns seconds, monotonic."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, ``seconds`` from now."""

    def send_to_all(self, message: bytes) -> None:
        """Send a message to every peer that has room for it."""


class _Sender:
    """What is kept for one peer."""

    __slots__ = ("budget", "reader")

    def __init__(self, reader: ReadingReader, now: Callable[[], float]) -> None:
        self.reader = reader
        self.budget = Budget(_READINGS_BURST, _READINGS_PER_SECOND, now)


class ReadingExchange:
    """The readings of this router and of its peers."""

    def __init__(self, hub: ReadingHub, fleet: Fleet, digests: CatalogDigests) -> None:
        """Create it. Readings of peers are ignored until ``receiver`` is set.

        Args:
            hub: All peers. It calls this from now on.
            fleet: The pods.
            digests: The digests of their lists of models.
        """
        self.receiver: Receiver | None = None
        """What takes the readings of peers."""
        self.interval: Callable[[], float] = float
        """Returns the interval at which this router reads each of its pods."""
        self.told = 0
        """Readings that were told to peers."""
        self.used = 0
        """Readings of peers that were of use."""
        self._hub = hub
        self._digests = digests
        self._keys = PodKeys(fleet)
        self._writer = ReadingWriter(self._keys, digests)
        self._waiting: dict[tuple[PodState, Page], Reading] = {}
        """The readings that have not been sent: the last one of each page."""
        self._is_present = False
        """Whether the next message goes out even without a reading."""
        self._timer: Timer | None = None
        self._senders: dict[str, _Sender] = {}
        """By the names of the peers."""
        hub.readings = self

    # To peers

    def tell(self, reading: Reading) -> None:
        """Tell all peers a reading soon."""
        if not self._hub.peers:
            return
        self._waiting[reading.state, reading.page] = reading
        self._send_soon()

    def tell_presence(self) -> None:
        """Tell all peers soon that this router reads pods, also if there is no reading to tell."""
        if self._hub.peers:
            self._is_present = True
            self._send_soon()

    def take(self) -> list[bytes]:
        """Return the messages with the readings that wait. The caller must send them at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not (self._waiting or self._is_present):
            return []
        readings, self._waiting = self._waiting, {}
        now, interval = self._hub.now(), self.interval()
        messages = self._writer.write(readings.values(), now, interval)
        if self._is_present and not messages:
            messages = [self._writer.empty(now, interval)]
        self._is_present = False
        self.told += sum(len(message.readings) for message in messages)
        return [PeerMessage(readings=message).SerializeToString() for message in messages]

    def _send_soon(self) -> None:
        if self._timer is None:
            self._timer = self._hub.call_later(WAIT_SECONDS, self._send)

    def _send(self) -> None:
        self._timer = None
        for message in self.take():
            self._hub.send_to_all(message)

    # From peers

    def received(self, name: str, message: Readings) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message is malformed, or exceeds a bound.
        """
        receiver = self.receiver
        if receiver is None or name not in self._hub.peers:
            return
        sender = self._senders.get(name)
        if sender is None:
            reader = ReadingReader(self._keys, self._digests, self._hub.now)
            sender = self._senders[name] = _Sender(reader, self._hub.now)
        if not sender.budget.spend(1 + len(message.readings)):
            raise ReportError("flood", "too many readings")
        if not receiver.heard(name, message.interval_ms / 1000):
            return
        readings = sender.reader.read(
            message, lambda state, page, read_at: receiver.wants(name, state, page, read_at)
        )
        self.used += len(readings)
        for reading in readings:
            receiver.receive(name, reading)

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""
        self._senders.pop(name, None)
        if self.receiver is not None:
            self.receiver.gone(name)
