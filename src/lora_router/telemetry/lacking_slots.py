"""How many adapter slots the fleet has, uses, wants and lacks: signals for an autoscaler.

For each base model there are three signals:

- *Slots*, used and free: what the ready pods have.
- *Wanted*: the slots that the adapters with work need. An autoscaler divides it by the slots of a
  pod, and gets the number of pods. It falls when the load falls, so the fleet shrinks by it, too.
- *Lacking*: the slots that are missing now. It is 0 in a fleet that is large enough, and is made
  for alerts and dashboards.

*Wanted* must not depend on the size of the fleet. Otherwise a fleet that grows would want more, and
grow again. So it does not count the slots in use, because algorithms use free slots for further
copies of adapters. It counts one slot for each adapter that has requests in flight, and one for
each adapter that has none and lacks a slot. A further copy counts if it exists and the adapter has
so many requests that one pod should not have them all: more than ``REQUESTS_OF_A_COPY``, and more
than a pod has on average.

An adapter lacks a slot if

- the oldest of its held requests has waited longer than loading an adapter takes
  (``HELD_SECONDS``); a shorter wait ends by itself;
- a slot is closed for it;
- one of its requests was refused as overloaded within the last minute (``REFUSED_SECONDS``).

Algorithms that hold no requests let adapters wait on pods. They show as more slots wanted than
there are.

Held requests of peers count as those of this router, so each of several routers that are peers
reports the fleet as a whole. Their values must not be added up: use the largest.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from time import monotonic

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.fleet.pod_state import PodState
from lora_router.routing.director import Director
from lora_router.routing.refusal import Refusal, Refused

HELD_SECONDS = 2.0
"""Requests that are held for longer lack a slot. vLLM loads an adapter from disk in 1.5 s."""
REFUSED_SECONDS = 60.0
"""For how long an adapter lacks a slot after one of its requests was refused."""
REQUESTS_OF_A_COPY = 8
"""Requests in flight that one copy of an adapter serves in any case."""
SAMPLE_SECONDS = 2.0
"""How often the slots are counted."""
MAX_REFUSED = 4096
"""Adapters whose refusals are remembered. Beyond, the oldest is forgotten."""
MAX_BASE_MODELS = 100
"""Base models that have a series of their own. The others share ``OTHER``."""
OTHER = "other"
_SLICE = 64
"""Pods or adapters that are counted in one go."""
_OVERLOADED = (Refusal.OVERLOADED, Refusal.TOO_MANY_HELD)


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of the pods of one base model."""

    used: int = 0
    """Slots with an adapter in flight, of the pods whose number of slots is known."""
    free: int = 0
    wanted: int = 0
    """The slots that the adapters with work need."""
    lacking: int = 0
    """The slots that are missing now."""

    @property
    def total(self) -> int:
        """All slots of the pods whose number of slots is known."""
        return self.used + self.free


class _Count:
    """The count of one base model, while it is made."""

    def __init__(self) -> None:
        self.pods = self.requests = self.used = self.free = 0
        self.unknown = 0
        """Pods whose number of slots is unknown."""
        self.copies: dict[str, int] = {}
        self.in_flight: dict[str, int] = {}
        self.lacking: set[str] = set()

    def add(self, pod: PodState) -> None:
        """Count a ready pod."""
        beliefs = pod.beliefs
        self.pods += 1
        self.requests += pod.in_flight + beliefs.foreign_requests
        own, peers = pod.in_flight_adapters, beliefs.peers
        adapters = own.keys() | beliefs.foreign_adapters
        for adapter in adapters:
            self.copies[adapter] = self.copies.get(adapter, 0) + 1
            # Nobody knows how many requests of a stranger are for which adapter.
            requests = own.get(adapter, 0) + peers.in_flight(adapter) or 1
            self.in_flight[adapter] = self.in_flight.get(adapter, 0) + requests
        slots = beliefs.slots
        if slots is None:
            self.unknown += 1
            return
        used = min(len(adapters), slots)
        self.used += used
        self.free += slots - used

    def results(self) -> Iterator[Slots | None]:
        """Yield ``None`` between slices, and the slots at last."""
        of_a_copy = max(REQUESTS_OF_A_COPY, self.requests / (self.pods or 1))
        wanted = len(self.lacking - self.copies.keys())
        for number, (adapter, copies) in enumerate(self.copies.items(), start=1):
            # Rounded up. One copy is the usual case.
            wanted += 1 if copies == 1 else min(copies, ceil(self.in_flight[adapter] / of_a_copy))
            if not number % _SLICE:
                yield None
        missing = 0 if self.unknown else wanted - self.used - self.free
        yield Slots(self.used, self.free, wanted, max(len(self.lacking), missing))


class LackingSlots(Collector):
    """Counts the slots of a fleet now and then, and reports the last count."""

    def __init__(
        self, fleet: Fleet, director: Director, clock: Callable[[], float] = monotonic
    ) -> None:
        """Create it. Nothing is counted yet.

        Args:
            fleet: The pods.
            director: Holds and refuses requests.
            clock: Returns seconds, monotonic, as the director's clock does.
        """
        self.slots: Mapping[str, Slots] = {}
        """The last count, by base model."""
        self._fleet = fleet
        self._director = director
        self._clock = clock
        self._refused: dict[str, float] = {}
        """Models whose requests were refused lately, the last one at the end, with the time."""
        director.follow_refusals(self._take_in)

    async def keep_counting(self) -> None:
        """Count for ever, in slices between which the event loop serves requests."""
        while True:
            for _ in self._steps():
                await asyncio.sleep(0)
            await asyncio.sleep(SAMPLE_SECONDS)

    def count(self) -> Mapping[str, Slots]:
        """Count in one go, and return the result."""
        for _ in self._steps():
            pass
        return self.slots

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the metrics of the last count."""
        slots = GaugeMetricFamily(
            "lora_router_slots",
            "Adapter slots of the ready pods, by whether an adapter with requests in flight uses "
            "them.",
            labels=["base_model", "state"],
        )
        wanted = GaugeMetricFamily(
            "lora_router_slots_wanted",
            "Adapter slots that the adapters with work need, whatever the size of the fleet. "
            "Divided by the slots of a pod: how many pods are needed.",
            labels=["base_model"],
        )
        lacking = GaugeMetricFamily(
            "lora_router_slots_lacking",
            "Adapter slots that the fleet lacks now: for adapters that are held, or were refused "
            "within the last minute, or wait on pods.",
            labels=["base_model"],
        )
        for base_model, found in self.slots.items():
            slots.add_metric([base_model, "used"], found.used)
            slots.add_metric([base_model, "free"], found.free)
            wanted.add_metric([base_model], found.wanted)
            lacking.add_metric([base_model], found.lacking)
        return slots, wanted, lacking

    def _steps(self) -> Iterator[None]:
        """Count; yield between slices."""
        names = _Names()
        counts: dict[str, _Count] = defaultdict(_Count)
        for number, pod in enumerate(self._fleet, start=1):
            if pod.pod.ready:
                counts[names.of(pod.catalog)].add(pod)
            if not number % _SLICE:
                yield
        lacking = yield from self._without_slot()
        for number, adapter in enumerate(lacking, start=1):
            serving = self._fleet.serving(adapter)
            if serving.is_adapter and serving.pods:
                counts[names.of(serving.pods[0].catalog)].lacking.add(adapter)
            if not number % _SLICE:
                yield
        found = {}
        for base_model, count in counts.items():
            for result in count.results():
                if result is not None:
                    found[base_model] = result
                yield
        self.slots = found

    def _without_slot(self) -> Generator[None, None, Iterable[str]]:
        """Find the models that lack a slot; yield between slices.

        Some may be base models, which need none.
        """
        found: dict[str, None] = {}
        for number, (adapter, share) in enumerate(self._held(), start=1):
            if share.closed is not None or share.seconds > HELD_SECONDS:
                found[adapter] = None
            if not number % _SLICE:
                yield
        found.update(dict.fromkeys(self._refused_lately()))
        return found

    def _held(self) -> Iterator[tuple[str, HeldShare]]:
        """Yield the adapters that are held, here and at peers. They may change meanwhile."""
        yield from self._director.reception.held_adapters.each(self._clock)
        for held in self._fleet.peers.held():
            yield from tuple(held.items())

    def _refused_lately(self) -> Iterable[str]:
        """Return the models of which a request was refused within the last minute."""
        oldest = self._clock() - REFUSED_SECONDS
        while self._refused:
            model, at = next(iter(self._refused.items()))
            if at > oldest:
                break
            del self._refused[model]
        return self._refused

    def _take_in(self, refused: Refused) -> None:
        if refused.refusal not in _OVERLOADED:
            return
        self._refused.pop(refused.model, None)
        self._refused[refused.model] = self._clock()
        if len(self._refused) > MAX_REFUSED:
            del self._refused[next(iter(self._refused))]


class _Names:
    """The names under which base models are counted: a bounded number."""

    def __init__(self) -> None:
        self._known: dict[Catalog, str] = {}
        self._used: set[str] = set()

    def of(self, catalog: Catalog) -> str:
        """Return the name for the pods with a catalog: the base model of their adapters."""
        known = self._known.get(catalog)
        if known is not None:
            return known
        parent = next(iter(catalog.adapters.values()), None)
        name = parent or min(catalog.base_models, default="")
        if name not in self._used:
            if len(self._used) >= MAX_BASE_MODELS:
                name = OTHER
            self._used.add(name)
        self._known[catalog] = name
        return name
