"""What a worker does with what the parent hands on, and what it asks the parent for."""

import logging
from collections.abc import Callable, Collection

from google.protobuf.message import DecodeError

from lora_router.fleet.catalog import Catalog, CatalogsFullError
from lora_router.fleet.catalog_digests import CatalogDigests
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Reading
from lora_router.fleet.reading_bounds import SCRAPED
from lora_router.log_limit import LogLimit
from lora_router.peering.pb import readings_pb2 as pb
from lora_router.peering.pod_keys import PodKeys
from lora_router.peering.reading_codec import UNKNOWN_LIST, ReadingReader
from lora_router.peering.report_reader import ReportError
from lora_router.routing.second_look import SecondLook
from lora_router.workers import messages

log = logging.getLogger("lora_router.workers")

_ASK_SECONDS = 0.1
"""The shortest time between the end of a round of reads and the next request for one."""


class Received:
    """Keeps a worker's fleet like the parent's."""

    def __init__(
        self, fleet: Fleet, send: Callable[[bytes], None], now: Callable[[], float]
    ) -> None:
        """Create it.

        Args:
            fleet: The worker's.
            send: Sends a message to the parent.
            now: Returns seconds on the clock of the fleet.
        """
        self._fleet = fleet
        self._send = send
        self._now = now
        digests = CatalogDigests()
        self._reader = ReadingReader(PodKeys(fleet), digests, now, with_lists=True, bounds=SCRAPED)
        self._limit = LogLimit(60.0)
        self._is_looking = False
        self._looked_at = float("-inf")
        self._on_looked: Callable[[], None] = lambda: None
        fleet.changes.doubted.subscribe(self._doubted)

    def connect(self, second_look: SecondLook) -> None:
        """Let requests for unknown models wait until the parent has read all lists again."""
        second_look.look = self.look
        self._on_looked = second_look.ended

    def pods(self, message: messages.Pods) -> None:
        """Apply a change of the list of pods."""
        self._fleet.update(message.pods, message.gone)

    def readings(self, message: messages.Readings) -> None:
        """Apply what was read from pods. The parent has judged it already."""
        try:
            readings = self._reader.read(pb.Readings.FromString(message.readings))
        except (ReportError, DecodeError) as error:  # A fault of this program.
            self._limit.log(
                log,
                logging.ERROR,
                "rejected",
                "what the parent told of pods is unusable: %s",
                error,
            )
            return
        for reading in readings:
            self._apply(reading)

    def look(self) -> bool:
        """Ask the parent for a round of reads; return whether one is under way.

        Whether all lists are recent, the parent knows: then the round ends at once.
        """
        if not self._is_looking:
            if self._now() - self._looked_at < _ASK_SECONDS:
                return False
            self._is_looking = True
            self._send(messages.encode(messages.LookAgain()))
        return True

    def looked(self) -> None:
        """Decide what waited for a round of reads, which has ended."""
        self._is_looking = False
        self._looked_at = self._now()
        self._on_looked()

    def _apply(self, reading: Reading) -> None:
        fleet, state, found = self._fleet, reading.state, reading.found
        if isinstance(found, PodMetrics):
            fleet.put_metrics(state, found)
        elif isinstance(found, Catalog):
            if state.pod.models is None:
                try:
                    fleet.put_models(state, found)
                except CatalogsFullError as error:
                    self._limit.log(log, logging.WARNING, "full", "%s: %s", state.pod.name, error)
        elif found.page == "metrics":
            fleet.put_scrape_failure(state, self._now(), unreachable=found.unreachable)
        elif found.cause == UNKNOWN_LIST:
            self._limit.log(
                log,
                logging.WARNING,
                "unknown",
                "the list of models of pod %s is too long to be handed on",
                state.pod.name,
            )

    def _doubted(self, states: Collection[PodState]) -> None:
        for state in states:
            self._send(messages.encode(messages.ReadSoon(state.pod.name)))
