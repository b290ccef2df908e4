"""``four-tier``: the LoRA affinity scorer of llm-d and the Gateway API Inference Extension.

This algorithm exists for comparison, so it follows the published one except in two points. Load is
this router's own count. A pod about which nothing is known counts as having room (in the original:
as full).
"""

from collections.abc import Sequence

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

SCORES = {"active": 1.0, "capacity": 0.8, "waiting": 0.6, "none": 0.0}
"""The score of each tier. The names are the reasons of picks."""


class FourTier:
    """Adds a score for the adapter to a score for the load.

    1. The tier of a pod comes from the labels of its newest ``lora_requests_info``. The first
       tier that applies is used:

       *active* (1.0): the adapter is in the running label.
       *capacity* (0.8): the number of distinct adapters in both labels is lower than
       ``max_lora``; or nothing is known about the adapters, or the snapshot is stale.
       *waiting* (0.6): the adapter is in the waiting label.
       *none* (0.0): none of the above.

    2. The load score of a pod is 1 for the fewest requests in flight, 0 for the most, and linear in
       between.
    3. The pod with the highest sum of the two scores is picked. Ties are broken at random.

    A base model is looked up like an adapter and is never found. Its requests therefore prefer pods
    with room, although they need no slot. vLLM 0.32.0 writes the same names into both labels, so a
    waiting adapter counts as active there. This router's requests in flight affect only the load
    score: an adapter is active only if a scrape lists it.
    """

    name = "four-tier"

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng
        self._max_age = options.metrics_max_age

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick:
        """Return the candidate with the highest sum of scores."""
        pods = candidates.shortlist(request.adapter, self._random)
        tiers = [self.tier(pod, request.adapter, now) for pod in pods]
        scores = [SCORES[tier] for tier in tiers]
        best = highest_sum(scores, load_scores(pods), self._random)
        return Pick(pods[best], tiers[best])

    def terms(
        self,
        request: InferenceRequest,
        sights: Sequence[Sight],
        _candidates: Candidates | None,
        now: float,
    ) -> Sequence[Cost]:
        """Return both scores as negative costs (``Explains``)."""
        tiers = [self._tier_of(sight, request.adapter, now) for sight in sights]
        return score_costs([SCORES[tier] for tier in tiers], sights)

    def _tier_of(self, sight: Sight, adapter: str | None, now: float) -> str:
        """Return the tier of a pod that is explained. That of a past decision is an estimate."""
        if sight.view is not None:
            return self.tier(sight.view, adapter, now)
        if sight.place == PLACES[RUNNING]:
            return "active"
        return "none" if sight.is_full else "capacity"

    def tier(self, pod: PodView, adapter: str | None, now: float) -> str:
        """Return a pod's tier at ``now``, a key of ``SCORES``."""
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
