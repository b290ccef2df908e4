"""``four-tier``: the LoRA affinity scorer of llm-d and the Gateway API Inference Extension.

To compare with, and so as published, apart from two things: load is this router's own count, and a
pod of which nothing is known is taken for one with room (there: for a full one).
"""

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.load_score import highest_sum, load_scores

SCORES = {"active": 1.0, "capacity": 0.8, "waiting": 0.6, "none": 0.0}
"""What a pod's tier is worth. The names are the reasons of picks."""


class FourTier:
    """Add a score for the adapter to a score for the load, in these steps.

    1. A pod's tier, by the labels of its newest ``lora_requests_info``, the first that holds:

       *active* (1.0): the adapter is in the running label.
       *capacity* (0.8): the adapters in both labels, each counted once, are fewer than
       ``max_lora``; or nothing is known of them, or the snapshot is too old to count.
       *waiting* (0.6): the adapter is in the waiting label.
       *none* (0.0).

    2. A pod's load: 1 for the fewest requests in flight, 0 for the most, linear between.
    3. The highest sum of the two wins, ties at random.

    A base model is looked up like an adapter and never found: such requests prefer pods with room,
    though they need none. vLLM 0.32.0 writes the same names into both labels, so there an adapter
    that waits is active. What this router has in flight counts as load only: an adapter is active
    when a scrape says so.
    """

    name = "four-tier"

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng
        self._max_age = options.metrics_max_age

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick:
        """Choose."""
        pods = candidates.shortlist(request.adapter, self._random)
        tiers = [self.tier(pod, request.adapter, now) for pod in pods]
        scores = [SCORES[tier] for tier in tiers]
        best = highest_sum(scores, load_scores(pods), self._random)
        return Pick(pods[best], tiers[best])

    def tier(self, pod: PodView, adapter: str | None, now: float) -> str:
        """Name a pod's tier at ``now``, a key of ``SCORES``."""
        metrics = pod.fresh_metrics(now, self._max_age)
        lora = metrics.lora if metrics is not None else None
        if lora is None:
            return "capacity"
        if adapter in lora.running:
            return "active"
        if lora.max_lora is None or len(lora.active) < lora.max_lora:
            return "capacity"
        if adapter in lora.waiting:
            return "waiting"
        return "none"
