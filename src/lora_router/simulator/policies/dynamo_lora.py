"""``dynamo-lora``: NVIDIA Dynamo's allocation of LoRA adapters to workers."""

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lora_router.fleet.adapter_beliefs import IN_SLOT
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.rendezvous import rendezvous_order
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.policies.dynamo_kv import DynamoKv

TICK_SECONDS = 3.0
WINDOW_SECONDS = 90.0
"""30 ticks."""
COOLDOWN_TICKS = 3
EMA_ALPHA = 0.3


@dataclass(slots=True)
class _Allocation:
    """The workers of an adapter."""

    pods: tuple[PodView, ...]
    is_active: bool
    """Whether it has arrivals in the window."""


class DynamoLora(DynamoKv):
    """Gives each adapter workers by its share of the arrivals, and picks of these by KV cost.

    Source: NVIDIA Dynamo, ``lib/llm/src/lora``: ``controller.rs`` (commit 0a8cd5a), ``filter.rs``
    (75de68b), ``config.rs`` (32381ac) and ``routing/hrw.rs`` (9323dab), with the default values.

    1. Every 3 s the allocation is computed anew. The load of an adapter is the number of its
       arrivals in the last 90 s, smoothed (exponential moving average, 0.3).
    2. An adapter with load gets its share of all slots as its number of replicas, rounded up, at
       least 1 and at most the number of workers. If these are more than there are slots, they are
       scaled down, and the remainders decide who gets the rest. If there are more such adapters
       than slots, only those with the most load count. The number shrinks at most every 3 ticks.
    3. Its workers are those that it has already, then the next ones by rendezvous hashing. Workers
       with every slot taken are skipped, unless all are. An adapter without load has its first
       worker by hashing. An adapter with load for which no replica is left keeps the workers that
       have it loaded, or gets one.
    4. A request goes to the worker with the lowest cost (``dynamo-kv``) of the adapter's workers
       that have it loaded, else of all its workers. Before its first allocation: of the workers
       that have it loaded, else of all.

    Loaded means: believed to be in a slot.
    """

    name = "dynamo-lora"

    def __init__(self, options: AlgorithmOptions, engine: EngineOptions) -> None:
        super().__init__(options, engine)
        self._arrivals: deque[tuple[float, str]] = deque()
        self._counts: Counter[str] = Counter()
        self._loads: dict[str, float] = {}
        self._table: dict[str, _Allocation] = {}
        self._shrunk_at: dict[str, int] = {}
        self._tick = 0
        self._next_tick = -math.inf

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick:
        """Return the worker with the lowest cost of those that the adapter has."""
        adapter = request.adapter
        if adapter is None:
            return super().pick(request, candidates, now)
        self._arrivals.append((now, adapter))
        self._counts[adapter] += 1
        if now >= self._next_tick:
            self._next_tick = now + TICK_SECONDS
            self._allocate(candidates, now)
        reason = "replicas" if adapter in self._table else "unallocated"
        workers = self._workers(adapter, candidates)
        return self.cheapest(request, candidates, workers, now, reason)

    def _workers(self, adapter: str, candidates: Candidates) -> Sequence[PodView]:
        """Return the candidates among which a request may choose (``filter.rs``)."""
        loaded = [pod for pod in candidates if pod.beliefs.where(adapter) == IN_SLOT]
        allocation = self._table.get(adapter)
        if allocation is None:
            return loaded or candidates
        pods = [pod for pod in allocation.pods if pod in candidates.members]
        if allocation.is_active:
            pods = [pod for pod in pods if pod in loaded] or pods
        return pods or loaded or candidates.first(adapter, 1)

    # The controller

    def _allocate(self, candidates: Candidates, now: float) -> None:
        self._tick += 1
        self._forget_arrivals_before(now - WINDOW_SECONDS)
        for adapter in {*self._loads, *self._counts}:
            before = self._loads.get(adapter, float(self._counts[adapter]))
            self._loads[adapter] = before + EMA_ALPHA * (self._counts[adapter] - before)
        # Loads are whole numbers there.
        loads = {name: round(load) for name, load in self._loads.items() if round(load) > 0}
        slots = sum(pod.beliefs.slots or 0 for pod in candidates)
        wanted = replica_counts(loads, slots, len(candidates))
        known = sorted({*self._table, *self._loads})
        taken = {pod: _loaded(pod, known) for pod in candidates}
        for adapter in sorted(wanted):
            self._place(adapter, wanted[adapter], candidates, taken)
        for adapter in known:
            if adapter not in loads:
                self._table[adapter] = _Allocation(tuple(candidates.first(adapter, 1)), False)
                self._shrunk_at.pop(adapter, None)
            elif adapter not in wanted:
                self._pin(adapter, candidates, taken)

    def _forget_arrivals_before(self, time: float) -> None:
        arrivals, counts = self._arrivals, self._counts
        while arrivals and arrivals[0][0] < time:
            adapter = arrivals.popleft()[1]
            counts[adapter] -= 1
            if not counts[adapter]:
                del counts[adapter]

    def _place(
        self, adapter: str, wanted: int, pods: Sequence[PodView], taken: dict[PodView, set[str]]
    ) -> None:
        prior = self._table[adapter].pods if adapter in self._table else ()
        count = self._with_cooldown(adapter, wanted, len(prior))
        order = rendezvous_order(adapter, pods)
        free = [pod for pod in order if not _is_full(taken[pod], pod, adapter)]
        kept = [pod for pod in free if pod in prior]
        chosen = (kept + [pod for pod in free if pod not in prior])[:count] or order[:count]
        for pod in chosen:
            taken[pod].add(adapter)
        self._table[adapter] = _Allocation(tuple(chosen), True)

    def _with_cooldown(self, adapter: str, wanted: int, current: int) -> int:
        if wanted >= current:
            self._shrunk_at.pop(adapter, None)
            return wanted
        last = self._shrunk_at.get(adapter)
        if last is not None and self._tick - last < COOLDOWN_TICKS:
            return current
        self._shrunk_at[adapter] = self._tick
        return current if last is None else wanted

    def _pin(self, adapter: str, pods: Sequence[PodView], taken: dict[PodView, set[str]]) -> None:
        prior = self._table[adapter].pods if adapter in self._table else ()
        warm = tuple(pod for pod in prior if pod in pods and adapter in taken[pod])
        if not warm:
            order = rendezvous_order(adapter, pods)
            free = (pod for pod in order if not _is_full(taken[pod], pod, adapter))
            warm = (next(free, order[0]),)
        for pod in warm:
            taken[pod].add(adapter)
        self._table[adapter] = _Allocation(warm, True)


def replica_counts(loads: Mapping[str, int], slots: int, workers: int) -> dict[str, int]:
    """Return the number of replicas of each adapter, as step 2 of ``DynamoLora`` says.

    Args:
        loads: The load of each adapter, above 0.
        slots: The slots of all workers.
        workers: The number of workers.
    """
    ranked = sorted(loads.items(), key=lambda each: (-each[1], each[0]))[:slots]
    total = sum(load for _, load in ranked)
    if not total:
        return {}
    wanted = {
        name: min(float(workers), max(1.0, math.ceil(load / total * slots)))
        for name, load in ranked
    }
    most = sum(wanted.values())
    if most <= slots:
        return {name: int(count) for name, count in wanted.items()}
    scaled = {name: max(1.0, count * slots / most) for name, count in wanted.items()}
    counts = {name: int(count) for name, count in scaled.items()}
    left = slots - sum(counts.values())
    for name in sorted(scaled, key=lambda name: (counts[name] - scaled[name], name)):
        if left <= 0:
            break
        if counts[name] < workers:
            counts[name] += 1
            left -= 1
    return counts


def _loaded(pod: PodView, adapters: Iterable[str]) -> set[str]:
    return {adapter for adapter in adapters if pod.beliefs.where(adapter) == IN_SLOT}


def _is_full(taken: set[str], pod: PodView, adapter: str) -> bool:
    """Return whether other adapters take every slot of a pod."""
    slots = pod.beliefs.slots
    return slots is not None and len(taken - {adapter}) >= slots
