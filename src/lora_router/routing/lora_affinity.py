"""``lora-affinity``: where the adapter is, else where there is room for it.

The strategy of AIBrix pull request 1181 with the defects found in its review mended.
"""

from enum import Enum, auto

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.least_request import least_loaded


class Standing(Enum):
    """How a pod stands to an adapter."""

    RUNNING = auto()
    """The adapter has a request there, by the pod's own word or by this router's ledger."""
    WAITING = auto()
    """The pod lists it as waiting and not as running: it will be loaded, and is not yet."""
    CAPACITY = auto()
    """Not there, and fewer adapters than slots, or unknown how many."""
    FULL = auto()
    """Not there, and every slot is taken."""


class LoraAffinity:
    """Prefer pods that have the adapter, fill pods that have room, in these steps.

    1. A request for a base model needs no slot: least-request over all candidates.
    2. *Affinity*: pods where the adapter runs (newest series of ``lora_requests_info``, or a
       request of this router in flight); if none, pods where it waits.
    3. *Capacity*: pods without it whose distinct adapters, scraped and in flight together, are
       fewer than ``max_lora``. A pod whose ``max_lora`` is unknown, or whose snapshot is too
       old to count, has capacity.
    4. Both groups have pods: the affinity group with the probability
       ``AIBRIX_LORA_AFFINITY_THRESHOLD``, else the capacity group, which lets a hot adapter
       spread a little. One is empty: the other.
    5. Within the group: fewest requests in flight, ties at random.
    6. Neither group has a pod: any candidate at random.
    """

    name = "lora-affinity"

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng
        self._threshold = options.lora_affinity_threshold
        self._max_age = options.metrics_max_age

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick:
        """Choose."""
        adapter = request.adapter
        pods = candidates.shortlist(adapter, self._random)
        if adapter is None:
            return Pick(least_loaded(pods, self._random), "base-model")

        running: list[PodView] = []
        waiting: list[PodView] = []
        capacity: list[PodView] = []
        for pod in pods:
            match self.standing(pod, adapter, now):
                case Standing.RUNNING:
                    running.append(pod)
                case Standing.WAITING:
                    waiting.append(pod)
                case Standing.CAPACITY:
                    capacity.append(pod)
                case Standing.FULL:
                    pass

        affinity = running or waiting
        if affinity and capacity:
            if self._random.random() < self._threshold:
                return Pick(least_loaded(affinity, self._random), "affinity")
            return Pick(least_loaded(capacity, self._random), "spread")
        if affinity:
            return Pick(least_loaded(affinity, self._random), "affinity")
        if capacity:
            return Pick(least_loaded(capacity, self._random), "capacity")
        return Pick(self._random.choice(pods), "all-full")

    def standing(self, pod: PodView, adapter: str, now: float) -> Standing:
        """Say how a pod stands to an adapter at ``now``."""
        in_flight = pod.in_flight_adapters
        if adapter in in_flight:
            return Standing.RUNNING
        metrics = pod.fresh_metrics(now, self._max_age)
        lora = metrics.lora if metrics is not None else None
        if lora is None:
            return Standing.CAPACITY
        if adapter in lora.running:
            return Standing.RUNNING
        if adapter in lora.waiting:
            return Standing.WAITING
        if lora.max_lora is None or len(lora.active | in_flight.keys()) < lora.max_lora:
            return Standing.CAPACITY
        return Standing.FULL
