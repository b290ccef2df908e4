"""``l-metric-local``: the product of prompt tokens to compute and of requests, as AIBrix has it."""

import random
from collections.abc import Mapping

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.policies.prompt_tokens import tokens_of
from lora_router.simulator.policies.sent_requests import SentRequests


class LMetricLocal:
    """Picks the pod with the lowest product, with ties at random.

    Source: Zhang et al., "LMetric: Simple is Better - Multiplication May Be All You Need for LLM
    Request Scheduling", arXiv 2603.15202 (2026-03-16), as AIBrix has it:
    ``pkg/plugins/gateway/algorithms/l_metric_local.go``, commit 2519ad5.

    The factors are the prompt tokens that the pod lacked in its cache, of this request and of all
    that are on the pod, and the number of these requests. A request counts until it ends. The
    oldest requests are assumed to end first (``sent_requests``).
    """

    name = "l-metric-local"
    reads_prompts = True

    def __init__(self, options: AlgorithmOptions, _engine: EngineOptions) -> None:
        self._random: random.Random = options.rng
        self._sent = SentRequests()

    def pick(self, request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        """Return the pod with the lowest product, and count the request there."""
        tokens = tokens_of(request)
        cached = candidates.cached(request.model, request.prompt)
        scores = [self.score(pod, tokens, cached) for pod in candidates]
        least = min(scores)
        ties = [pod for pod, score in zip(candidates, scores, strict=True) if score == least]
        pod = ties[0] if len(ties) == 1 else self._random.choice(ties)
        self._sent.add(pod, request.adapter, max(0.0, tokens - cached.get(pod, 0.0)))
        return Pick(pod, "least-product")

    def score(self, pod: PodView, tokens: float, cached: Mapping[PodView, float]) -> float:
        """Return the product of a pod for a prompt of some tokens."""
        missing = max(0.0, tokens - cached.get(pod, 0.0))
        return (self._sent.size_on(pod) + missing) * (pod.in_flight + 1)
