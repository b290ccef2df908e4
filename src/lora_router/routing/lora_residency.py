"""``lora-residency``: the scorer by adapter residency that llm-d-router#2792 proposes.

This algorithm exists for comparison, so it follows the proposal except in two points. Load is this
router's own count. A pod about which nothing is known counts as having a free slot.
"""

from collections.abc import Sequence

from lora_router.fleet.adapter_beliefs import IN_HOST_MEMORY, IN_SLOT
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import (
    AlgorithmOptions,
    Cost,
    InferenceRequest,
    Pick,
    Sight,
)
from lora_router.routing.candidates import Candidates
from lora_router.routing.load_score import highest_sum, load_scores, score_costs
from lora_router.routing.looks import PLACES, RUNNING

SCORES = {"gpu": 1.0, "cpu": 0.7, "free-slot": 0.6, "evictable": 0.3, "saturated": 0.0}
"""The score of each tier. The names are the reasons of picks."""

_TIERS = {PLACES[RUNNING]: "gpu", PLACES[IN_SLOT]: "gpu", PLACES[IN_HOST_MEMORY]: "cpu"}


class LoraResidencyScore:
    """Adds a score for the location of the adapter to a score for the load.

    1. The tier of a pod is the first of these that applies:

       *gpu* (1.0): the adapter is in a slot, in use or not.
       *cpu* (0.7): the adapter is in host memory.
       *free-slot* (0.6): fewer adapters are in slots than there are slots; or the number of
       slots is unknown, or the snapshot is stale.
       *evictable* (0.3): no slot is free, but the adapter in at least one of them is idle.
       *saturated* (0.0): every slot has an adapter with requests.

    2. The load score of a pod is 1 for the fewest requests in flight, 0 for the most, and linear in
       between.
    3. The pod with the highest sum of the two scores is picked. Ties are broken at random.

    For a base model, the first score is the fraction of slots without an active adapter (1 if
    unknown). This keeps its requests off pods that are busy with adapters.

    The adapters in slots are those that the server reports (``PodMetrics.residency``). vLLM up to
    0.32.0 does not report them. In that case the adapters that ``lora_requests_info`` shows as
    active are used, no adapter is known to be in host memory, and no full pod is evictable.
    *Active* always refers to that metric. This router's requests in flight affect only the load
    score.
    """

    name = "lora-residency"

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng
        self._max_age = options.metrics_max_age

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick:
        """Return the candidate with the highest sum of scores."""
        adapter = request.adapter
        pods = candidates.shortlist(adapter, self._random)
        loads = load_scores(pods)
        if adapter is None:
            shares = [self.idle_share(pod, now) for pod in pods]
            return Pick(pods[highest_sum(shares, loads, self._random)], "base-model")
        tiers = [self.tier(pod, adapter, now) for pod in pods]
        best = highest_sum([SCORES[tier] for tier in tiers], loads, self._random)
        return Pick(pods[best], tiers[best])

    def terms(
        self,
        request: InferenceRequest,
        sights: Sequence[Sight],
        _candidates: Candidates | None,
        now: float,
    ) -> Sequence[Cost]:
        """Return both scores as negative costs (``Explains``)."""
        return score_costs(
            [self._score_of(sight, request.adapter, now) for sight in sights], sights
        )

    def _score_of(self, sight: Sight, adapter: str | None, now: float) -> float:
        """Return the score of a pod that is explained. That of a past decision is an estimate."""
        view = sight.view
        if view is not None:
            if adapter is None:
                return self.idle_share(view, now)
            return SCORES[self.tier(view, adapter, now)]
        return SCORES[_TIERS.get(sight.place, "saturated" if sight.is_full else "free-slot")]

    def tier(self, pod: PodView, adapter: str, now: float) -> str:
        """Return a pod's tier at ``now``, a key of ``SCORES``."""
        metrics = pod.fresh_metrics(now, self._max_age)
        if metrics is None:
            return "free-slot"
        residency = metrics.residency
        active = _active(metrics)
        in_slots = active if residency is None else residency.gpu
        if adapter in in_slots:
            return "gpu"
        if residency is not None and adapter in residency.cpu:
            return "cpu"
        slots = _slots(metrics)
        if slots is None or len(in_slots) < slots:
            return "free-slot"
        return "saturated" if in_slots <= active else "evictable"

    def idle_share(self, pod: PodView, now: float) -> float:
        """Return the fraction of a pod's slots without an active adapter, in [0, 1]."""
        metrics = pod.fresh_metrics(now, self._max_age)
        slots = _slots(metrics) if metrics is not None else None
        if metrics is None or slots is None:
            return 1.0
        return max(0.0, 1.0 - len(_active(metrics)) / slots)


def _active(metrics: PodMetrics) -> frozenset[str]:
    return metrics.lora.active if metrics.lora is not None else frozenset()


def _slots(metrics: PodMetrics) -> int | None:
    if metrics.residency is not None and metrics.residency.max_gpu is not None:
        return metrics.residency.max_gpu
    return metrics.lora.max_lora if metrics.lora is not None else None
