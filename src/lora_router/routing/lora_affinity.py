"""``lora-affinity``: prefers pods that have the adapter, then pods that have room for it.

This is the strategy of AIBrix pull request 1181, without the defects that its review found.
"""

from collections.abc import Sequence
from enum import Enum, auto

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import (
    AlgorithmOptions,
    Cost,
    InferenceRequest,
    Pick,
    Sight,
)
from lora_router.routing.candidates import Candidates
from lora_router.routing.least_request import (
    least_loaded,
    load_costs,
    load_of,
    requests_in_flight,
)
from lora_router.routing.looks import PLACES, RUNNING
from lora_router.routing.rendezvous import rendezvous_order


class Standing(Enum):
    """The relation of a pod to an adapter."""

    RUNNING = auto()
    """The adapter has a request there, according to the pod or to this router's ledger."""
    WAITING = auto()
    """The pod lists the adapter as waiting and not as running: it is not loaded yet, but will be.
    """
    CAPACITY = auto()
    """The adapter is absent, and fewer adapters than slots are there, or the number of slots is
    unknown."""
    FULL = auto()
    """The adapter is absent, and every slot is taken."""


_IN_ORDER = (Standing.RUNNING, Standing.WAITING, Standing.CAPACITY)
_WHY_NOT = {
    Standing.RUNNING: "",
    Standing.WAITING: "the adapter runs on other pods",
    Standing.CAPACITY: "the adapter is on other pods",
    Standing.FULL: "no free slot",
}


class LoraAffinity:
    """Prefers pods that have the adapter, and fills pods that have room.

    1. A request for a base model needs no slot. It is routed by least-request over all candidates.
    2. The *affinity* group consists of the pods on which the adapter runs (according to the newest
       series of ``lora_requests_info``, or a request in flight of this router or of a peer). If
       there are none, it consists of the pods on which the adapter waits.
    3. The *capacity* group consists of the pods without the adapter on which the number of distinct
       adapters, scraped and in flight together, is lower than ``max_lora``. A pod whose
       ``max_lora`` is unknown, or whose snapshot is stale, has capacity. If this router may take a
       slot on some of these pods (``fleet/slot_allotment.py``), the others are left out.
    4. If both groups have pods, the affinity group is used with the probability
       ``AIBRIX_LORA_AFFINITY_THRESHOLD``, and otherwise the capacity group, which lets a hot
       adapter spread a little. If one group is empty, the other is used.
    5. Within the group, the pod with the fewest requests in flight, of this router and its peers,
       is picked. Ties are broken at random. Where routers are peers, ties of the capacity group are
       broken by rendezvous hashing: routers that meet a new adapter at the same time pick the same
       pod, and not a slot each.
    6. If both groups are empty, a random candidate is picked.
    """

    name = "lora-affinity"

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng
        self._threshold = options.lora_affinity_threshold
        self._max_age = options.metrics_max_age

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick:
        """Return a pick by the steps above."""
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
            return Pick(self._with_room(adapter, capacity), "spread")
        if affinity:
            return Pick(least_loaded(affinity, self._random), "affinity")
        if capacity:
            return Pick(self._with_room(adapter, capacity), "capacity")
        return Pick(self._random.choice(pods), "all-full")

    def _with_room(self, adapter: str, capacity: Sequence[PodView]) -> PodView:
        """Return the least loaded pod, of those on which this router may take a slot, if any."""
        own = [pod for pod in capacity if pod.beliefs.may_take_slot(adapter)]
        pods = own or capacity
        if pods[0].beliefs.peers.allotment is None:
            return least_loaded(pods, self._random)
        return min(rendezvous_order(adapter, pods), key=requests_in_flight)

    def terms(
        self,
        request: InferenceRequest,
        sights: Sequence[Sight],
        _candidates: Candidates | None,
        now: float,
    ) -> Sequence[Cost]:
        """Return the requests in flight of the pods in the group that is used (``Explains``)."""
        adapter = request.adapter
        if adapter is None:
            return load_costs(sights)
        standings = [self._standing_of(sight, adapter, now) for sight in sights]
        used = next((each for each in _IN_ORDER if each in standings), Standing.FULL)
        if used is Standing.FULL:
            return [Cost()] * len(sights)  # One by chance.
        return [
            Cost({"requests": load_of(sight)})
            if standing is used
            else Cost(excluded=_WHY_NOT[standing])
            for sight, standing in zip(sights, standings, strict=True)
        ]

    def _standing_of(self, sight: Sight, adapter: str, now: float) -> Standing:
        """Return the standing of a pod that is explained. That of a past one is an estimate."""
        if sight.view is not None:
            return self.standing(sight.view, adapter, now)
        if sight.place == PLACES[RUNNING]:
            return Standing.RUNNING
        return Standing.FULL if sight.is_full else Standing.CAPACITY

    def standing(self, pod: PodView, adapter: str, now: float) -> Standing:
        """Return the relation of a pod to an adapter at ``now``."""
        in_flight = pod.in_flight_adapters
        of_peers = pod.beliefs.peers.adapters
        if adapter in in_flight or adapter in of_peers:
            return Standing.RUNNING
        metrics = pod.fresh_metrics(now, self._max_age)
        lora = metrics.lora if metrics is not None else None
        if lora is None:
            return Standing.CAPACITY
        if adapter in lora.running:
            return Standing.RUNNING
        if adapter in lora.waiting:
            return Standing.WAITING
        if lora.max_lora is None or len(lora.active | in_flight.keys() | of_peers) < lora.max_lora:
            return Standing.CAPACITY
        return Standing.FULL
