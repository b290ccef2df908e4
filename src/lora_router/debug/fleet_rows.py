"""What one process knows of pods and adapters, as rows.

A fleet may have a thousand pods and a hundred thousand adapters. Pods are looked at in slices, and
what is collected is bounded.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from lora_router.debug.parts import AdapterPart, OnPod, PodPart
from lora_router.debug.slices import in_slices
from lora_router.fleet.adapter_beliefs import AWAY, IN_HOST_MEMORY, AdapterBeliefs
from lora_router.fleet.catalog import Catalog
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HEALTHY, NAMES
from lora_router.fleet.idle_adapters import idle_on
from lora_router.fleet.pod_state import PodState
from lora_router.routing.looks import PLACES, RUNNING
from lora_router.routing.who_waits import Waiting
from lora_router.telemetry.traffic_rows import AdapterTraffic

PODS_AT_ONCE = 8
"""Pods that are looked at in one turn of the loop."""
MAX_ADAPTERS_ON_POD = 32
"""Adapters of one pod that its row names: running ones first, then those used last, then those that
are probably in host memory although nothing is known of a use."""
MAX_BASE_MODELS = 8
MAX_COLLECTED = 2048
"""Adapters that are collected before the busiest are chosen."""
MAX_PODS_OF_ADAPTER = 32
"""Pods that the row of an adapter names: those on which it runs, others that have it in memory, and
those that list it, so many of each."""
_LOOKUPS_AT_ONCE = 1000
_COUNTED = 100_000
"""Names in different lists that are compared to count the adapters."""
_NAMES_AT_ONCE = 256


def pod_part(state: PodState, waiting: Waiting, now: float) -> PodPart:
    """Return what is known of a pod.

    Args:
        state: The pod's record.
        waiting: Which slots are closed.
        now: Seconds on the clock of ``PodMetrics.scraped_at``.
    """
    pod, beliefs, metrics, health = state.pod, state.beliefs, state.metrics, state.health
    peers = beliefs.peers
    on: list[OnPod] = []
    more = 0
    for name, place in adapters_on(state, now):
        if len(on) == MAX_ADAPTERS_ON_POD:
            more += 1
        elif place == RUNNING:
            own, theirs = state.in_flight_adapters.get(name, 0), peers.in_flight(name)
            closed = name in peers.closed or waiting.is_closed(state, name)
            on.append(OnPod(name, PLACES[place], own, theirs, closed))
        else:
            on.append(OnPod(name, PLACES[place], 0, 0, False))
    if metrics is None or metrics.residency is None:
        names = islice(_never_used_on(beliefs), MAX_ADAPTERS_ON_POD - len(on))
        on += [OnPod(name, PLACES[IN_HOST_MEMORY], 0, 0, False) for name in names]
        more = max(more, _in_memory(beliefs) - len(on))
    return PodPart(
        name=pod.name,
        address=pod.address,
        state="ready" if pod.ready else "not-ready",
        health=NAMES[health.state],
        why=health.cause if health.state is not HEALTHY else "",
        base_models=sorted(state.base_models)[:MAX_BASE_MODELS],
        engine=pod.engine,
        slots=beliefs.slots,
        free_slots=beliefs.free_slots,
        host_memory=beliefs.memory.limit,
        host_memory_source=beliefs.memory.source,
        host_load_seconds=round(beliefs.load_seconds[IN_HOST_MEMORY], 2),
        disk_load_seconds=round(beliefs.load_seconds[AWAY], 2),
        on=on,
        adapters_more=more,
        in_flight=state.in_flight,
        others_requests=beliefs.foreign_requests - peers.requests,
        waiting=None if metrics is None else metrics.waiting,
        cache_use=None if metrics is None else metrics.kv_cache_usage,
        age_seconds=None if metrics is None else max(0.0, now - metrics.scraped_at),
        peers_requests=peers.requests,
    )


def adapters_on(state: PodState, now: float) -> Iterator[tuple[str, int]]:
    """Yield the adapters on a pod, each with its place: running ones, in slots, in host memory.

    Of idle ones, those that were used last, or that the server reports.
    """
    beliefs, metrics = state.beliefs, state.metrics
    running = {*state.in_flight_adapters, *beliefs.foreign_adapters}
    for name in sorted(running):
        yield name, RUNNING
    residency = None if metrics is None else metrics.residency
    idle: Iterable[str]
    if residency is None:
        idle = reversed(idle_on(beliefs, now, MAX_ADAPTERS_ON_POD))
    else:
        idle = chain(sorted(residency.gpu), islice(sorted(residency.cpu), MAX_ADAPTERS_ON_POD))
    places = [
        (place, name)
        for name in idle
        if name not in running and (place := beliefs.where(name)) != AWAY
    ]
    # Of one place, those that were used last are first.
    places.sort(key=_place)
    for place, name in places:
        yield name, place


def _place(each: tuple[int, str]) -> int:
    return each[0]


def _never_used_on(beliefs: AdapterBeliefs) -> Iterator[str]:
    """Yield adapters that are in host memory although nothing is known of a use.

    They were loaded and not asked for, or the router has started since.
    """
    memory = beliefs.memory
    for name in memory.fits or memory.held:
        if name not in beliefs.last_uses and name not in beliefs.foreign_adapters:
            yield name


def _in_memory(beliefs: AdapterBeliefs) -> int:
    """Return how many adapters are in slots and in host memory, as far as is known."""
    fits = beliefs.memory.fits
    return len(fits) + sum(name not in fits for name in beliefs.memory.held)


async def pod_parts(fleet: Fleet, waiting: Waiting, now: float) -> list[list[PodPart]]:
    """Return all pods, in slices, ordered by name."""
    states = sorted(fleet, key=_name)
    return [
        [pod_part(state, waiting, now) for state in some]
        async for some in in_slices(states, PODS_AT_ONCE)
    ]


def _name(state: PodState) -> str:
    return state.pod.name


class AdapterSurvey:
    """Collects what one process knows of adapters."""

    def __init__(self, fleet: Fleet, now: float) -> None:
        self._fleet = fleet
        self._now = now
        self._found: dict[str, AdapterPart] = {}
        self.more = 0
        """Adapters, at least, that were left out."""

    def of(self, name: str) -> AdapterPart | None:
        """Return the row of an adapter; ``None``: there are too many."""
        row = self._found.get(name)
        if row is None:
            if len(self._found) >= MAX_COLLECTED:
                return None
            row = self._found[name] = AdapterPart(name=name)
        return row

    async def look(self, listed: int) -> Collection[AdapterPart]:
        """Look at all pods, and return the rows. Rows that exist already are completed.

        Args:
            listed: Add adapters that pods only list, up to this many rows in total.
        """
        pods: dict[int, list[PodState]] = {}
        lists: dict[int, Catalog] = {}
        async for some in in_slices(tuple(self._fleet), PODS_AT_ONCE):
            for state in some:
                pods.setdefault(id(state.catalog), []).append(state)
                lists[id(state.catalog)] = state.catalog
                self._look_at(state)
        for catalog in lists.values():
            room = max(0, min(listed, MAX_COLLECTED) - len(self._found))
            async for names in in_slices(tuple(islice(catalog.adapters, room)), _NAMES_AT_ONCE):
                for name in names:
                    self.of(name)
        rows = tuple(self._found.values())
        told: Counter[int] = Counter()
        lookups = len(lists) + min(len(self._fleet), MAX_PODS_OF_ADAPTER)
        async for few in in_slices(rows, max(1, _LOOKUPS_AT_ONCE // max(1, lookups))):
            for row in few:
                _listed(row, pods, lists)
                told.update(key for key, catalog in lists.items() if row.name in catalog.adapters)
        self.more += await self._untold(lists, told)
        return rows

    async def _untold(self, lists: Mapping[int, Catalog], told: Mapping[int, int]) -> int:
        """Return how many adapters are listed that have no row; if there are many, at least."""
        if len(lists) > 1 and sum(len(each.adapters) for each in lists.values()) <= _COUNTED:
            names: set[str] = set()
            for catalog in lists.values():
                async for some in in_slices(tuple(catalog.adapters), _LOOKUPS_AT_ONCE):
                    names.update(name for name in some if name not in self._found)
            return len(names)
        unlisted = (len(catalog.adapters) - told[key] for key, catalog in lists.items())
        return max(unlisted, default=0)

    def _look_at(self, state: PodState) -> None:
        peers = state.beliefs.peers
        for name, place in adapters_on(state, self._now):
            row = self.of(name)
            if row is None:
                continue
            pods = row.running if place == RUNNING else row.loaded
            if len(pods) < MAX_PODS_OF_ADAPTER:
                pods.append(state.pod.name)
            row.in_flight += state.in_flight_adapters.get(name, 0)
            row.peers_in_flight += peers.in_flight(name)


def _listed(
    row: AdapterPart, pods: Mapping[int, Sequence[PodState]], lists: Mapping[int, Catalog]
) -> None:
    name, known = row.name, {*row.running, *row.loaded}
    for key, catalog in lists.items():
        if name not in catalog.adapters:
            continue
        row.listed += len(pods[key])
        row.base_model = row.base_model or catalog.adapters[name] or ""
        for state in pods[key][: MAX_PODS_OF_ADAPTER - len(row.listed_on)]:
            row.listed_on.append(state.pod.name)
            # In memory since before this router began, or used too long ago to be remembered.
            if (
                state.pod.name not in known
                and len(row.loaded) < MAX_PODS_OF_ADAPTER
                and state.beliefs.in_host_memory(name)
            ):
                row.loaded.append(state.pod.name)


def add_traffic(row: AdapterPart, traffic: AdapterTraffic) -> None:
    """Add what became of an adapter's requests."""
    row.requests, row.failed = traffic.requests, traffic.failed.total
    row.misses = traffic.found[PLACES[AWAY]]
    row.hits = sum(traffic.found.values()) - row.misses
    row.first_byte, row.hold = list(traffic.first_byte.counts), list(traffic.hold.counts)
