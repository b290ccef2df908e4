"""Merges rows that several processes have about the same pod or adapter.

A process counts its own requests exactly, and knows those of its peers from their reports. If all
of them answer, the sum of their own counts is right. If one of them does not, what the others know
of it is better.
"""

from collections.abc import Iterable

from lora_router.debug.answering import busyness
from lora_router.debug.fleet_rows import MAX_PODS_OF_ADAPTER
from lora_router.debug.parts import AdapterPart, PodPart
from lora_router.debug.rows import AdapterOnPod, AdapterRow, PodRow
from lora_router.debug.slices import in_slices
from lora_router.telemetry.times import Times

_AT_ONCE = 4
_LEAST_FOR_P99 = 10
"""Requests below which a 99th percentile says no more than the slowest one of them."""
_WORST = ("healthy", "trying", "suspect", "ejected")
_NEAREST = ("running", "slot", "host-memory")


class MergedPods:
    """Pods, by name."""

    def __init__(self) -> None:
        self._parts: dict[str, list[PodPart]] = {}

    def add(self, parts: Iterable[PodPart]) -> None:
        """Add what a process knows of some pods."""
        for part in parts:
            self._parts.setdefault(part.name, []).append(part)

    async def rows(self) -> list[PodRow]:
        """Return a row of each pod, by name."""
        rows: list[PodRow] = []
        async for names in in_slices(sorted(self._parts), _AT_ONCE):
            # What is merged is freed here, and not all at once in the end.
            rows += [_pod(self._parts.pop(name)) for name in names]
        return rows


def _pod(parts: list[PodPart]) -> PodRow:
    youngest = min(parts, key=_age)
    worst = max(parts, key=_illness)
    adapters = _adapters_of(parts)
    free = [part.free_slots for part in parts if part.free_slots is not None]
    slots = [part.slots for part in parts if part.slots is not None]
    own = sum(part.in_flight for part in parts)
    return PodRow(
        name=youngest.name,
        address=youngest.address,
        state=youngest.state,
        health=worst.health,
        why=worst.why,
        base_models=youngest.base_models,
        engine=youngest.engine,
        slots=slots[0] if slots else None,
        free_slots=min(free, default=None),
        host_memory=youngest.host_memory,
        host_memory_source=youngest.host_memory_source,
        host_load_seconds=youngest.host_load_seconds,
        disk_load_seconds=youngest.disk_load_seconds,
        adapters=adapters,
        adapters_more=max(part.adapters_more for part in parts),
        in_flight=max(own, *(part.in_flight + part.peers_requests for part in parts)),
        others_requests=min(part.others_requests for part in parts),
        waiting=youngest.waiting,
        cache_use=youngest.cache_use,
        age_seconds=youngest.age_seconds,
    )


def _age(part: PodPart) -> float:
    return float("inf") if part.age_seconds is None else part.age_seconds


def _illness(part: PodPart) -> int:
    return _WORST.index(part.health) if part.health in _WORST else 0


def _adapters_of(parts: list[PodPart]) -> list[AdapterOnPod]:
    if len(parts) == 1:  # As in most routers, which have no peers.
        return [
            AdapterOnPod(
                name=each.name,
                place=each.place,
                in_flight=each.in_flight + each.peers,
                closed=each.closed,
            )
            for each in parts[0].on
        ]
    found: dict[str, AdapterOnPod] = {}
    own: dict[str, int] = {}
    for part in parts:
        for each in part.on:
            name = each.name
            own[name] = own.get(name, 0) + each.in_flight
            known = each.in_flight + each.peers
            row = found.get(name)
            if row is None:
                row = found[name] = AdapterOnPod(name=name, place=each.place)
            row.place = min(row.place, each.place, key=_distance)
            row.closed = row.closed or each.closed
            row.in_flight = max(row.in_flight, known, own[name])
    return sorted(found.values(), key=lambda row: _distance(row.place))


def _distance(place: str) -> int:
    return _NEAREST.index(place) if place in _NEAREST else len(_NEAREST)


class MergedAdapters:
    """Adapters, by name."""

    def __init__(self) -> None:
        self._rows: dict[str, AdapterPart] = {}
        self._known: dict[str, int] = {}
        """Requests in flight of each, as the process that knows of the most says."""

    def add(self, parts: Iterable[AdapterPart]) -> None:
        """Add what a process knows of some adapters."""
        for part in parts:
            name = part.name
            known = part.in_flight + part.peers_in_flight
            self._known[name] = max(self._known.get(name, 0), known)
            row = self._rows.setdefault(name, part)
            if row is not part:
                _add(row, part)

    async def rows(self, limit: int) -> tuple[list[AdapterRow], int]:
        """Return the busiest, and how many others there are."""
        found = list(self._rows.values())
        for row in found:
            row.in_flight = max(row.in_flight, self._known[row.name])
        found.sort(key=busyness)
        rows: list[AdapterRow] = []
        async for some in in_slices(found[:limit], _AT_ONCE):
            rows += [_adapter(part) for part in some]
        return rows, max(0, len(found) - limit)


def _add(row: AdapterPart, part: AdapterPart) -> None:
    row.base_model = row.base_model or part.base_model
    row.running = _union(row.running, part.running)
    row.loaded = [pod for pod in _union(row.loaded, part.loaded) if pod not in row.running]
    row.listed = max(row.listed, part.listed)
    row.listed_on = _union(row.listed_on, part.listed_on)
    row.held += part.held
    row.in_flight += part.in_flight
    row.requests += part.requests
    row.hits += part.hits
    row.misses += part.misses
    row.failed += part.failed
    if part.declared_by:  # Only the process that loads says so.
        row.declared_by, row.state, row.source = part.declared_by, part.state, part.source
        row.unplaced_because = part.unplaced_because
        row.wanted, row.loading, row.failing = part.wanted, part.loading, part.failing
    row.first_byte = _plus(row.first_byte, part.first_byte)
    row.hold = _plus(row.hold, part.hold)


def _union(one: list[str], other: list[str]) -> list[str]:
    return one if one == other else list(dict.fromkeys((*one, *other)))[:MAX_PODS_OF_ADAPTER]


def _adapter(part: AdapterPart) -> AdapterRow:
    return AdapterRow(
        name=part.name,
        base_model=part.base_model,
        declared_by=part.declared_by,
        state=part.state,
        unplaced_because=part.unplaced_because,
        source=part.source,
        wanted=part.wanted,
        loading=part.loading,
        failing=part.failing,
        running=part.running,
        loaded=part.loaded,
        listed=part.listed,
        listed_on=part.listed_on,
        held=part.held,
        in_flight=part.in_flight,
        requests=part.requests,
        hits=part.hits,
        misses=part.misses,
        failed=part.failed,
        p50_seconds=_quantile(part.first_byte, 0.5),
        p99_seconds=_quantile(part.first_byte, 0.99, least=_LEAST_FOR_P99),
        hold_p99_seconds=_quantile(part.hold, 0.99),
    )


def _plus(one: list[int], other: list[int]) -> list[int]:
    """Return the sum of two histograms. One of another release, with other buckets, is left out."""
    if len(one) != len(other):
        return max(one, other, key=len)
    return [here + there for here, there in zip(one, other, strict=True)]


def _quantile(counts: list[int], share: float, least: int = 1) -> float | None:
    times = Times()
    if len(counts) != len(times.counts) or sum(counts) < least:
        return None
    times.counts = counts
    return times.quantile(share)
