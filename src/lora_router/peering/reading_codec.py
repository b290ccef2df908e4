"""Readings as messages, and back.

A pod is named by its key (``pod_keys``), a list of models by its digest. So a message can name only
pods and lists that its receiver knows. A receiver that reads no pods itself is sent the lists too.

What exceeds a bound is not written, and is rejected when it is read.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.catalog_digests import DIGEST_BYTES, CatalogDigests
from lora_router.fleet.pod_metrics import (
    MAX_KV_CACHE_USAGE,
    MAX_REQUESTS,
    LoraActivity,
    LoraResidency,
    PodMetrics,
)
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Page, ReadFailure, Reading
from lora_router.fleet.reading_bounds import MAX_NAME_LENGTH, MAX_SLOTS, TOLD_TO_PEERS, NameBounds
from lora_router.peering.model_lists import ListReader, RecentLists, list_parts
from lora_router.peering.pb import readings_pb2 as pb
from lora_router.peering.pod_keys import PodKeys
from lora_router.peering.report_reader import ReportError

MAX_READINGS = 1024
"""Readings in a message."""
PART_READINGS = 256
"""Readings in a message that this router sends: about 2 ms of work."""
PART_BYTES = 64 * 1024
"""Bytes of readings after which a message is sent, and a further one begins."""
MAX_NUMBER = 1e18
_MAX_CAUSE_LENGTH = 32
_NUMBERS = (
    "running",
    "waiting",
    "kv_cache_usage",
    "deferred",
    "adapter_load_seconds",
    "started_at",
    "generated_tokens",
    "cache_tokens",
)
_REQUESTS = ("running", "waiting", "deferred")
"""Those that count requests. Earlier versions send higher ones, so these are unknown and no error.
"""
_DRIFT = 0.001
"""The rate at which the shortest delay is forgotten. Clocks of computers differ by less."""

UNKNOWN_LIST = "unknown-list"
"""The cause of the failure that stands for a list that the receiver does not know."""


class ReadingWriter:
    """Makes the messages of one sender. The same messages may go to many receivers."""

    def __init__(
        self,
        keys: PodKeys,
        digests: CatalogDigests,
        *,
        with_lists: bool = False,
        bounds: NameBounds = TOLD_TO_PEERS,
        on_nameless: Callable[[Reading], None] | None = None,
    ) -> None:
        """Create a writer.

        Args:
            keys: The keys of the pods.
            digests: The digests of the lists of models.
            with_lists: Whether to send each list once, for receivers that read no pods themselves.
                Such a writer is for one receiver.
            bounds: The bounds of the names in a reading, as the receivers have them.
            on_nameless: Called with a reading whose names exceed them, and which is written without
                them. Default: it is left out, for receivers that read the pod themselves.
        """
        self._keys = keys
        self._digests = digests
        self._with_lists = with_lists
        self._bounds = bounds
        self._on_nameless = on_nameless
        self._number = 0
        self._sent: RecentLists[None] = RecentLists()

    def write(
        self, readings: Iterable[Reading], now: float, interval: float = 0.0
    ) -> list[pb.Readings]:
        """Return the messages with some readings.

        Args:
            readings: The readings. Those of pods that have left, and those that exceed a bound, are
                left out.
            now: Seconds on the clock of the readings.
            interval: The interval at which each pod is read; 0: it is not stated.
        """
        messages: list[pb.Readings] = []
        message, size = self._begin(now), 0
        for reading in readings:
            written = self._reading(reading)
            if written is None:
                continue
            if self._with_lists and isinstance(reading.found, Catalog):
                for part in self._list(reading.found, written.models):
                    message.lists.append(part)
                    messages.append(message)
                    message, size = self._begin(now), 0
            message.readings.append(written)
            size += written.ByteSize()
            if size >= PART_BYTES or len(message.readings) >= PART_READINGS:
                messages.append(message)
                message, size = self._begin(now), 0
        if message.readings:
            messages.append(message)
        for message in messages:
            self._finish(message, interval)
        return messages

    def empty(self, now: float, interval: float) -> pb.Readings:
        """Return a message without readings. It says that its sender reads pods."""
        message = self._begin(now)
        self._finish(message, interval)
        return message

    def _finish(self, message: pb.Readings, interval: float) -> None:
        self._number += 1
        message.number = self._number
        message.interval_ms = int(interval * 1000)

    def _begin(self, now: float) -> pb.Readings:
        return pb.Readings(now_us=_us(now))

    def _reading(self, reading: Reading) -> pb.Reading | None:
        key = self._keys.key(reading.state)
        if key is None:
            return None
        found = reading.found
        written = pb.Reading(pod=key, read_at_us=_us(reading.read_at))
        if isinstance(found, PodMetrics):
            if not _write_snapshot(written.metrics, found, self._bounds):
                if self._on_nameless is None:
                    return None
                self._on_nameless(reading)
                written.ClearField("metrics")
                _write_snapshot(written.metrics, _without_names(found), self._bounds)
        elif isinstance(found, Catalog):
            written.models = self._digests.of(found)
        else:
            failure = written.failure
            failure.models = found.page == "models"
            failure.cause = found.cause[:_MAX_CAUSE_LENGTH]
            failure.unreachable = found.unreachable
        return written

    def _list(self, catalog: Catalog, digest: bytes) -> Iterator[pb.ModelList]:
        if digest not in self._sent:
            self._sent.add(digest, catalog.bytes, None)
            yield from list_parts(catalog, digest)


class ReadingReader:
    """Reads the messages of one sender."""

    def __init__(
        self,
        keys: PodKeys,
        digests: CatalogDigests,
        now: Callable[[], float],
        *,
        with_lists: bool = False,
        bounds: NameBounds = TOLD_TO_PEERS,
    ) -> None:
        """Create a reader.

        Args:
            keys: The pods by their keys.
            digests: The lists of models that are known by their digests.
            now: Returns seconds on the clock that readings get.
            with_lists: Whether to accept lists.
            bounds: The bounds of the names in a reading.
        """
        self._keys = keys
        self._digests = digests
        self._now = now
        self._lists = ListReader() if with_lists else None
        self._bounds = bounds
        self._number = 0
        self._offset = math.inf
        """How far this clock is ahead of the sender's, with the shortest delay of a message."""
        self._heard_at = -math.inf
        self.unknown = 0
        """Readings of pods that are not known here."""

    def read(
        self,
        message: pb.Readings,
        wants: Callable[[PodState, Page, float], bool] | None = None,
    ) -> list[Reading]:
        """Return the readings of a message. Those of pods that are not known here are left out.

        Args:
            message: The message.
            wants: Returns whether a reading is of use, given the pod, the page and the time at
                which it was read. Others are not decoded, which takes most of the time. Failures
                are always returned.

        Raises:
            ReportError: The message is malformed, or exceeds a bound.
        """
        if len(message.readings) > MAX_READINGS:
            raise ReportError("too-large", f"a message has more than {MAX_READINGS} readings")
        if not message.number:
            raise ReportError("malformed", "readings have no number")
        if message.number <= self._number:
            return []
        self._number = message.number
        if message.lists:
            if self._lists is None:
                raise ReportError("malformed", "lists of models are not accepted here")
            for part in message.lists:
                self._lists.read(part)
        now = self._now()
        offset = self._clock_offset(message.now_us / 1e6, now)
        readings = []
        for written in message.readings:
            state = self._keys.find(written.pod)
            # A receiver may hear of a pod later than the sender.
            if state is None:
                self.unknown += 1
                continue
            # The clocks differ by a constant, so that this is the time here.
            read_at = min(now, written.read_at_us / 1e6 + offset)
            if wants is not None and not written.HasField("failure"):
                page: Page = "metrics" if written.HasField("metrics") else "models"
                if not wants(state, page, read_at):
                    continue
            readings.append(Reading(state, read_at, self._found(written, read_at)))
        return readings

    def _clock_offset(self, sent_at: float, now: float) -> float:
        """Return how far this clock is ahead of the sender's.

        Messages may be delayed, and the smallest difference has the shortest delay. Clocks may run
        at different rates, so that the smallest difference is forgotten slowly.
        """
        drift = (now - self._heard_at) * _DRIFT if self._heard_at > -math.inf else 0.0
        self._heard_at = now
        self._offset = min(self._offset + drift, now - sent_at)
        return self._offset

    def _found(self, written: pb.Reading, read_at: float) -> PodMetrics | Catalog | ReadFailure:
        kind = written.WhichOneof("found")
        if kind == "metrics":
            return _read_snapshot(written.metrics, read_at, self._bounds)
        if kind == "models":
            digest = written.models
            if len(digest) != DIGEST_BYTES:
                raise ReportError("malformed", "a digest has another length")
            catalog = self._digests.find(digest)
            if catalog is None and self._lists is not None:
                catalog = self._lists.find(digest)
            return ReadFailure("models", UNKNOWN_LIST) if catalog is None else catalog
        if kind == "failure":
            failure = written.failure
            cause = failure.cause
            if len(cause) > _MAX_CAUSE_LENGTH or not cause.isprintable():
                raise ReportError("malformed", "the cause of a failure is unusable")
            return ReadFailure(
                "models" if failure.models else "metrics", cause, failure.unreachable
            )
        raise ReportError("malformed", "a reading has found nothing")


def _us(seconds: float) -> int:
    return max(0, int(seconds * 1e6))


def _without_names(metrics: PodMetrics) -> PodMetrics:
    """Return a snapshot that names no adapters: which of them are loaded is unknown."""
    lora = metrics.lora
    if lora is not None:
        lora = replace(lora, running=frozenset(), waiting=frozenset())
    return replace(metrics, lora=lora, residency=None)


def _write_snapshot(written: pb.Snapshot, metrics: PodMetrics, bounds: NameBounds) -> bool:
    """Write a snapshot; return whether it is within the bounds."""
    # A pod whose page shows no load has an empty one.
    written.SetInParent()
    for name in _NUMBERS:
        number = getattr(metrics, name)
        if number is not None and 0 <= number <= _most(name):
            setattr(written, name, number)
    positions: dict[str, int] = {}
    lora, residency = metrics.lora, metrics.residency
    if lora is not None:
        activity = written.lora
        activity.max_lora = lora.max_lora or 0
        activity.updated_at = lora.updated_at if 0 <= lora.updated_at <= MAX_NUMBER else 0.0
        activity.running.extend(_positions(lora.running, positions))
        activity.waiting.extend(_positions(lora.waiting, positions))
    if residency is not None:
        written.residency.max_gpu = residency.max_gpu or 0
        written.residency.gpu.extend(_positions(residency.gpu, positions))
        written.residency.cpu.extend(_positions(residency.cpu, positions))
    lengths = [len(name) for name in positions]
    if len(lengths) > bounds.adapters or sum(lengths) > bounds.characters:
        return False
    if lengths and max(lengths) > MAX_NAME_LENGTH:
        return False
    try:
        written.adapters.extend(positions)
    except (ValueError, UnicodeEncodeError):
        return False  # A name that is not valid Unicode.
    return True


def _positions(names: Iterable[str], positions: dict[str, int]) -> list[int]:
    """Return the positions of names in a table, to which new ones are added."""
    return [positions.setdefault(name, len(positions)) for name in names]


def _read_snapshot(written: pb.Snapshot, read_at: float, bounds: NameBounds) -> PodMetrics:
    numbers = [
        number
        if written.HasField(name) and (number := _number(getattr(written, name))) <= _most(name)
        else None
        for name in _NUMBERS
    ]
    adapters = written.adapters
    if len(adapters) > bounds.adapters or sum(map(len, adapters)) > bounds.characters:
        raise ReportError("too-large", "a reading has too many adapters")
    names = tuple(adapters)
    if names and not 0 < min(map(len, names)) <= max(map(len, names)) <= MAX_NAME_LENGTH:
        raise ReportError("malformed", "the name of an adapter is empty or too long")
    running, waiting, kv_cache_usage, deferred, load_seconds, started_at, tokens, cache = numbers
    lora = residency = None
    if written.HasField("lora"):
        activity = written.lora
        lora = LoraActivity(
            max_lora=_slots(activity.max_lora),
            running=_names(activity.running, names, bounds),
            waiting=_names(activity.waiting, names, bounds),
            updated_at=_number(activity.updated_at),
        )
    if written.HasField("residency"):
        gpu = _names(written.residency.gpu, names, bounds)
        residency = LoraResidency(
            gpu=gpu,
            cpu=_names(written.residency.cpu, names, bounds) - gpu,
            max_gpu=_slots(written.residency.max_gpu),
        )
    return PodMetrics(
        scraped_at=read_at,
        running=running,
        waiting=waiting,
        kv_cache_usage=kv_cache_usage,
        deferred=deferred,
        lora=lora,
        residency=residency,
        adapter_load_seconds=load_seconds,
        started_at=started_at,
        generated_tokens=tokens,
        cache_tokens=cache,
    )


def _number(value: float) -> float:
    # NaN fails the test.
    if not 0 <= value <= MAX_NUMBER:
        raise ReportError("malformed", "a number is out of bounds")
    return value


def _most(name: str) -> float:
    """Return the highest number in a field that can be true."""
    if name == "kv_cache_usage":
        return MAX_KV_CACHE_USAGE
    return MAX_REQUESTS if name in _REQUESTS else MAX_NUMBER


def _slots(slots: int) -> int | None:
    if slots > MAX_SLOTS:
        raise ReportError("malformed", "a number of slots is out of bounds")
    return slots or None


def _names(positions: Iterable[int], names: tuple[str, ...], bounds: NameBounds) -> frozenset[str]:
    try:
        return frozenset(names[position] for position in islice(positions, bounds.adapters))
    except IndexError:
        raise ReportError("malformed", "a position is outside its table") from None
