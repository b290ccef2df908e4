"""``lora-residency``: the scorer by adapter residency that llm-d-router#2792 proposes.

To compare with, and so as proposed, apart from two things: load is this router's own count, and a
pod of which nothing is known is taken for one with a free slot.
"""

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.load_score import highest_sum, load_scores

SCORES = {"gpu": 1.0, "cpu": 0.7, "free-slot": 0.6, "evictable": 0.3, "saturated": 0.0}
"""What a pod's tier is worth. The names are the reasons of picks."""


class LoraResidencyScore:
    """Add a score for where the adapter is to a score for the load, in these steps.

    1. A pod's tier, the first that holds:

       *gpu* (1.0): the adapter is in a slot, in use or not.
       *cpu* (0.7): it is in host memory.
       *free-slot* (0.6): fewer adapters are in slots than there are slots; or it is unknown how
       many, or the snapshot is too old to count.
       *evictable* (0.3): no slot is free, but an adapter in one of them is idle.
       *saturated* (0.0): every slot has an adapter with requests.

    2. A pod's load: 1 for the fewest requests in flight, 0 for the most, linear between.
    3. The highest sum of the two wins, ties at random.

    For a base model the first score is the share of slots without an active adapter (1 if unknown),
    which keeps it off pods that are busy with adapters.

    What is in slots is what the server says (``PodMetrics.residency``). vLLM up to 0.32.0 does not:
    then it is the adapters that ``lora_requests_info`` shows as active, none is known to be in host
    memory, and no full pod is evictable. Active always means: by that metric. What this router has
    in flight counts as load only.
    """

    name = "lora-residency"

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng
        self._max_age = options.metrics_max_age

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick:
        """Choose."""
        adapter = request.adapter
        pods = candidates.shortlist(adapter, self._random)
        loads = load_scores(pods)
        if adapter is None:
            shares = [self.idle_share(pod, now) for pod in pods]
            return Pick(pods[highest_sum(shares, loads, self._random)], "base-model")
        tiers = [self.tier(pod, adapter, now) for pod in pods]
        best = highest_sum([SCORES[tier] for tier in tiers], loads, self._random)
        return Pick(pods[best], tiers[best])

    def tier(self, pod: PodView, adapter: str, now: float) -> str:
        """Name a pod's tier at ``now``, a key of ``SCORES``."""
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
        """Return the share of a pod's slots that no active adapter is in, in [0, 1]."""
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
