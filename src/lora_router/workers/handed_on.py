"""What the parent hands on to the workers: the list of pods, and what was read from them."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.catalog_digests import CatalogDigests
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Reading, last_readings
from lora_router.fleet.reading_bounds import SCRAPED
from lora_router.log_limit import LogLimit
from lora_router.peering.pb import readings_pb2 as pb
from lora_router.peering.pod_keys import PodKeys
from lora_router.peering.reading_codec import ReadingWriter
from lora_router.routing.priorities import Priorities
from lora_router.scrape.scraper import Scraper
from lora_router.workers import messages
from lora_router.workers.crew import Crew
from lora_router.workers.member import Member

log = logging.getLogger("lora_router.workers")

GATHER_SECONDS = 0.05
"""How long a pod's metrics wait for those of other pods, to be sent together. Each message wakes
all workers, which costs more than to read it. Peers that scrape for each other wait as long."""
NEWS_SECONDS = 0.01
"""The same for what workers do not know at all: first metrics, lists of models, failures."""
_PODS_AT_ONCE = 200
"""Pods in a message: a few milliseconds of work."""


class HandedOn:
    """Keeps the fleets of all workers like the parent's."""

    def __init__(
        self,
        fleet: Fleet,
        crew: Crew,
        scraper: Scraper,
        priorities: Priorities,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Follow a fleet and what is read for it, and answer the workers' questions.

        Args:
            fleet: The parent's.
            crew: The workers.
            scraper: Reads the pods.
            priorities: Those of requests, by objective.
            clock: The clock of readings.
        """
        self._fleet = fleet
        self._crew = crew
        self._scraper = scraper
        self._priorities = priorities
        self._clock = clock
        self._digests = CatalogDigests()
        self._keys = PodKeys(fleet)
        self._writer = self._make_writer()
        """Writes once what is the same for all workers: everything but lists of models."""
        self._writers: dict[int, tuple[Member, ReadingWriter]] = {}
        """By worker. Each has a writer of its own, which knows the lists that the worker has."""
        self._number = 0
        """The number of the last message with readings, to whichever worker."""
        self._pods: dict[str, Pod] = {}
        """What workers know."""
        self._catalogs: dict[PodState, Catalog] = {}
        self._gathered: list[Reading] = []
        self._timer: asyncio.TimerHandle | None = None
        self._measured: set[PodState] = set()
        """The pods of which workers have metrics, or will with the next message."""
        self._is_synced = False
        self.nameless = 0
        """Readings that were handed on without the names of adapters, in total."""
        self._limit = LogLimit(60.0)
        fleet.changes.pods.subscribe(self._pods_changed)
        scraper.followers.subscribe_readings(self._gather)
        scraper.followers.subscribe_looked(self._looked)
        priorities.on_change = lambda: crew.broadcast(self._objectives())
        crew.on_started.append(self._tell_all)
        crew.on_doubt = self._read_soon
        crew.on_look = scraper.look_again

    def synced(self) -> None:
        """Tell the workers that the list of pods is complete."""
        self._is_synced = True
        self._crew.broadcast(messages.encode(messages.Synced()))

    def hand_on(self, reading: Reading) -> None:
        """Hand on what a router on another host read, which is in the parent's fleet already."""
        self._gather(reading)

    def _make_writer(self, *, with_lists: bool = False) -> ReadingWriter:
        return ReadingWriter(
            self._keys,
            self._digests,
            with_lists=with_lists,
            bounds=SCRAPED,
            on_nameless=self._count_nameless,
        )

    def _count_nameless(self, reading: Reading) -> None:
        self.nameless += 1
        name = reading.state.pod.name
        self._limit.log(
            log,
            logging.WARNING,
            name,
            "pod %s: workers are not told the names of adapters on its page: they are too many, or "
            "not valid Unicode",
            name,
        )

    # To one worker

    def _tell_all(self, member: Member) -> None:
        """Tell a worker that was started all that the others know."""
        writer = self._make_writer(with_lists=True)
        self._writers[member.number] = member, writer
        for message in _pods_messages(self._pods.values(), ()):
            member.process.send(message)
        if self._priorities.by_objective:
            member.process.send(self._objectives())
        self._send(member, writer, last_readings(tuple(self._fleet), self._clock()))
        if self._is_synced:
            member.process.send(messages.encode(messages.Synced()))

    def _send(self, member: Member, writer: ReadingWriter, readings: Iterable[Reading]) -> None:
        for each in writer.write(readings, self._clock()):
            # A list is sent once, and so it must not be left out.
            member.process.send(self._encoded(each), skippable=not each.lists)

    def _encoded(self, readings: pb.Readings) -> bytes:
        # A worker gets messages of two writers, and expects that numbers increase.
        self._number += 1
        readings.number = self._number
        return messages.encode(messages.Readings(readings.SerializeToString()))

    # To all workers

    def _objectives(self) -> bytes:
        return messages.encode(messages.Objectives(dict(self._priorities.by_objective)))

    def _pods_changed(self, changed: Collection[PodState]) -> None:
        pods, gone = [], []
        for state in changed:
            name = state.pod.name
            current = self._fleet.get(name)
            if current is not state:
                self._catalogs.pop(state, None)
                self._measured.discard(state)
                if current is None and self._pods.pop(name, None) is not None:
                    gone.append(name)
                continue
            if self._pods.get(name) != state.pod:
                self._pods[name] = state.pod
                pods.append(state.pod)
            # Also what a list adds that is otherwise doubted, which is no reading.
            has_list = state.models_known and state.pod.models is None
            if has_list and self._catalogs.get(state) is not state.catalog:
                self._gather(Reading(state, self._clock(), state.catalog))
        for message in _pods_messages(pods, gone):
            self._crew.broadcast(message)

    def _gather(self, reading: Reading) -> None:
        state, found = reading.state, reading.found
        if isinstance(found, Catalog):
            # The fleet shares equal lists, and keeps them as long as a pod has them.
            catalog = self._catalogs[state] = state.catalog
            reading = Reading(state, reading.read_at, catalog)
        is_news = True
        if isinstance(found, PodMetrics) and self._fleet.get(state.pod.name) is state:
            is_news = state not in self._measured
            self._measured.add(state)
        self._gathered.append(reading)
        self._flush_within(NEWS_SECONDS if is_news else GATHER_SECONDS)

    def _flush_within(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        readings, self._gathered = self._gathered, []
        lists = [each for each in readings if isinstance(each.found, Catalog)]
        others = readings
        if lists:
            others = [each for each in readings if not isinstance(each.found, Catalog)]
        same = [self._encoded(each) for each in self._writer.write(others, self._clock())]
        running = self._crew.members
        for number, (member, writer) in tuple(self._writers.items()):
            if running.get(number) is not member:
                del self._writers[number]
                continue
            for data in same:
                member.process.send(data, skippable=True)
            if lists:
                self._send(member, writer, lists)

    # From workers

    def _read_soon(self, pod: str) -> None:
        state = self._fleet.get(pod)
        if state is not None:
            self._scraper.read_models_soon(state)

    def _looked(self) -> None:
        if self._gathered:
            # What was found goes first.
            self._flush()
        self._crew.looked()


def _pods_messages(pods: Iterable[Pod], gone: Sequence[str]) -> Iterator[bytes]:
    """Yield the messages about some pods: new ones first, so that no fleet is empty in between."""
    left_pods, left_names = iter(pods), iter(gone)
    while some := tuple(islice(left_pods, _PODS_AT_ONCE)):
        yield messages.encode(messages.Pods(some, ()))
    while names := tuple(islice(left_names, _PODS_AT_ONCE)):
        yield messages.encode(messages.Pods((), names))
