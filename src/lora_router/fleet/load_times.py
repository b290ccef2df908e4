"""How long it takes to bring an adapter into a slot, by where the adapter is.

Rules:

- A load delays the first byte of the request that needs it. So what a load takes is learned from
  first bytes: those of streamed answers to requests that needed a load, minus the median of those
  on the same pod that needed none. While one of several routers has seen few of these, those count
  that peers tell, on any pod with the same base model. Only requests count that found a free slot,
  or whose adapter was active, because others may wait for a slot. Prompt tokens that the pod had to
  process are subtracted from both.
- Loads from host memory and loads from disk are apart. What the router took for one can have been
  the other. Then the times of both become more alike, as they should, unless the size of host
  memory is only assumed: then these loads show it (``learned_size``).
- What is learned is the median of the last loads. It replaces what was known before as far as it is
  the more certain of both (the weights of two normal distributions). If first bytes vary by more
  than a load takes, they say little, and little changes.
- What was known before is, of a pod: what was learned of the pods with the same base model, whose
  adapters are about as large. Of those: what the pod reports (its mean over all loads), the option
  ``adapter_load_seconds`` (from host memory), or what is assumed.
- A pod has times of its own only if they are ``_DIFFERS`` times those of the others.
"""

from collections import deque
from collections.abc import Callable, Iterable
from math import sqrt
from typing import TypeAlias

from lora_router.fleet.adapter_beliefs import AWAY, IN_HOST_MEMORY, IN_SLOT
from lora_router.fleet.learned_size import LearnedSize, needed_for
from lora_router.fleet.load_seconds import (
    ASSUMED,
    DISK_SECONDS,
    HIGHEST_SECONDS,
    Loads,
    reported_or,
)
from lora_router.fleet.pod_state import PodState

_FEWEST = 4
"""Loads after which their median means anything."""
_FEWEST_FIRST_BYTES = 8
"""First bytes of a pod without a load after which their median means anything."""
_FEWEST_TOLD = 32
"""The same of those that peers tell, on all pods with the same base model. With a lower value, what
one fast or slow pod answered is taken for all of them. With a higher value, routers take longer to
learn."""
_EVERY = 4
"""The times are derived again after this many loads."""
_LEAST_ERROR = 0.002
"""In seconds. First bytes are not measured better than this. A few loads that took equally long
are not more certain than what was known before, divided by their number."""
_ALIKE = 0.25
"""By how much, as a share, pods with the same base model are taken to differ."""
_DIFFERS = 2.0
"""How many times longer or shorter the loads of a pod must be to count as its own. Its times vary
by chance, since other loads stall its batch. If they counted, every adapter that is nowhere would
go to the pod that was lucky."""
_NORMAL = 1.4826
"""Standard deviations in the median of absolute deviations, of a normal distribution."""
_MEDIAN = 1.2533
"""Error of a median in errors of a mean, of a normal distribution."""
_NEEDED = 16
"""Where an adapter was whose load shows the size of host memory: this, plus how many adapters must
fit for it not to be evicted."""
_MODELS = 64
"""Base models whose loads are kept."""

_Known: TypeAlias = tuple[float, float]
"""Seconds, and by how much they may be wrong (a standard deviation)."""


class LoadTimes:
    """What a fleet has learned of loads. It keeps ``AdapterBeliefs.load_seconds`` up to date."""

    def __init__(self) -> None:
        self._assumed = ASSUMED
        self._of_base_model: dict[str, Loads] = {}
        self._sizes: dict[tuple[str, int], LearnedSize] = {}
        """The sizes of host memory that nothing names, by base model and what is assumed."""
        self.on_seen: Callable[[str, int, float], None] = _ignore
        """Called with the base model, place and seconds of each load that this router saw. For
        ``IN_SLOT``, they are those of a first byte that waited for no load."""

    def assume(self, host_seconds: float) -> None:
        """Set what a load from host memory is assumed to take, in seconds."""
        self._assumed = 0.0, host_seconds, max(host_seconds, DISK_SECONDS)

    @staticmethod
    def place_of(state: PodState, adapter: str | None, where: int | None = None) -> int | None:
        """Return where the adapter of a request is on a pod, before the request is sent.

        Return ``None`` if its first byte says nothing about loads: it may wait for a slot, or for a
        load that another request began.

        Args:
            state: The pod.
            adapter: The adapter; ``None``: the base model, which is always there.
            where: ``AdapterBeliefs.where`` of the adapter. ``None``: it has not been asked for.
        """
        if adapter is None:
            return IN_SLOT
        if adapter in state.in_flight_adapters:
            return None if adapter in state.loading else IN_SLOT
        beliefs = state.beliefs
        if adapter in beliefs.peers.adapters and adapter in beliefs.active:
            return IN_SLOT
        room = beliefs.free_slots
        if room is not None and room <= 0:
            return None
        place = beliefs.where(adapter) if where is None else where
        if place != IN_SLOT:
            state.loading.add(adapter)
            uses, assumed = beliefs.last_uses, beliefs.memory.assumed
            if assumed is not None and beliefs.residency is None and adapter in uses:
                needed = needed_for(adapter, reversed(uses))
                if needed is not None and needed > assumed:
                    return _NEEDED + needed
        return place

    def first_byte(self, state: PodState, place: int, seconds: float) -> None:
        """Record when the first byte of a streamed answer came.

        Args:
            state: The pod.
            place: Where the adapter of the request was when it was sent.
            seconds: From then on, without the time to process prompts.
        """
        loads = state.loads
        if loads is None:
            loads = state.loads = Loads()
        if place == IN_SLOT:
            loads.first_bytes.append(seconds)
            if state.adapters:
                self.on_seen(base_model_of(state), place, seconds)
            return
        everywhere = self._of(state)
        usual = _usual(loads, _FEWEST_FIRST_BYTES)
        if usual is None:
            usual = _usual(everywhere, _FEWEST_TOLD)
        if usual is None:
            return
        # Negative ones are kept: they show how little first bytes say.
        took = min(seconds - usual, HIGHEST_SECONDS)
        if place >= _NEEDED:
            # What is learned of the disk may be of host memory that is larger than believed.
            _, host, disk = self._assumed
            fast = took < sqrt(host * disk)
            self._size_of(state).loaded(place - _NEEDED, fast=fast)
            place = IN_HOST_MEMORY if fast else AWAY
        for each in (loads, everywhere):
            _add(each, place, took)
        self.on_seen(base_model_of(state), place, took)
        if loads.count % _EVERY == 0:
            self._derive(state, loads)

    def heard(self, base_model: str, place: int, seconds: float) -> None:
        """Take in a load that another router saw.

        Args:
            base_model: That of the pod.
            place: Where the adapter was.
            seconds: What the load took. ``IN_SLOT``: until the first byte.
        """
        loads = self._loads_of(base_model)
        if place == IN_SLOT:
            loads.first_bytes.append(seconds)
        else:
            _add(loads, place, seconds)

    def refresh(self, state: PodState) -> None:
        """Derive a pod's times again if others with its base model have learned, or it reported."""
        memory = state.beliefs.memory
        if memory.assumed is not None and self._sizes:
            size = self._size_of(state).size
            if size != max(memory.learned, memory.assumed):
                state.beliefs.learn_size(size)
        loads, count = state.loads, self._of(state).count // _EVERY
        if loads is None:
            if not count and _reported(state) is None and self._assumed is ASSUMED:
                return  # So it is on most pods.
            loads = state.loads = Loads()
        if loads.seen != (count, _reported(state)):
            self._derive(state, loads)

    def _derive(self, state: PodState, here: Loads) -> None:
        reported, everywhere = _reported(state), self._of(state)
        here.seen = everywhere.count // _EVERY, reported
        state.beliefs.knows_disk = len(everywhere.from_disk) >= _FEWEST
        known = self._assumed if reported is None else reported_or(reported, self._assumed)
        host = _learned(known[IN_HOST_MEMORY], everywhere.from_host, here.from_host)
        disk = _learned(known[AWAY], everywhere.from_disk, here.from_disk)
        state.beliefs.load_seconds = 0.0, host, max(host, disk)

    def _size_of(self, state: PodState) -> LearnedSize:
        key = base_model_of(state), state.beliefs.memory.assumed or 0
        size = self._sizes.get(key)
        if size is None:
            if len(self._sizes) >= _MODELS:
                del self._sizes[next(iter(self._sizes))]
            size = self._sizes[key] = LearnedSize(key[1])
        return size

    def _of(self, state: PodState) -> Loads:
        return self._loads_of(base_model_of(state))

    def _loads_of(self, base_model: str) -> Loads:
        loads = self._of_base_model.get(base_model)
        if loads is None:
            if len(self._of_base_model) >= _MODELS:
                del self._of_base_model[next(iter(self._of_base_model))]
            loads = self._of_base_model[base_model] = Loads()
        return loads


def base_model_of(state: PodState) -> str:
    """Return the base model that says how long loads take on a pod; empty: unknown."""
    return state.pod.base_model or next(iter(state.base_models), "")


def _usual(loads: Loads, fewest: int) -> float | None:
    """Return how long first bytes take without a load; ``None``: too few were seen."""
    if len(loads.first_bytes) < fewest:
        return None
    if not loads.usual_of or loads.count - loads.usual_of >= _EVERY:
        loads.usual, loads.usual_of = _median(loads.first_bytes), loads.count or 1
    return loads.usual


def _reported(state: PodState) -> float | None:
    return None if state.metrics is None else state.metrics.adapter_load_seconds


def _learned(before: float, everywhere: deque[float], here: deque[float]) -> float:
    """Return the seconds of a load on a pod, by the loads of its base model and its own."""
    seconds, error = _combined((before, before), everywhere)
    known = seconds, max(error, _ALIKE * seconds)
    own, others = _combined(known, here)[0], _combined(known, everywhere)[0]
    return others if others / _DIFFERS <= own <= others * _DIFFERS else own


def _combined(before: _Known, loads: deque[float]) -> _Known:
    """Return what is known together with some loads."""
    known, doubt = before
    if len(loads) < _FEWEST or doubt <= 0:
        return before
    median = max(0.0, _median(loads))
    spread = _NORMAL * _median(abs(seconds - median) for seconds in loads)
    error = max(_MEDIAN * spread / sqrt(len(loads)), _LEAST_ERROR, known / len(loads))
    weight = doubt**2 / (doubt**2 + error**2)
    return known + weight * (median - known), error * sqrt(weight)


def _add(loads: Loads, place: int, seconds: float) -> None:
    (loads.from_host if place == IN_HOST_MEMORY else loads.from_disk).append(seconds)
    loads.count += 1


def _ignore(_base_model: str, _place: int, _seconds: float) -> None:
    """Do nothing."""


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
