"""``dynamo-kv``: the cost of NVIDIA Dynamo's KV router."""

import random
from collections.abc import Mapping, Sequence

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.policies.prompt_tokens import tokens_of
from lora_router.simulator.policies.sent_requests import ActivePrompts

BLOCK_TOKENS = 16.0
"""The block size of vLLM."""


class DynamoKv:
    """Picks the worker with the lowest cost in blocks, with ties at random.

    Source: NVIDIA Dynamo, ``lib/kv-router/src/scheduling/selector/default.rs`` at commit 07a6c9c,
    and the pages *Routing Concepts* and *Configuration and Tuning* of its documentation (1.6).

    ``cost = prefill blocks + decode blocks``, with all weights at their defaults:

    - *Prefill blocks*: the prompt tokens that are on their way to the worker and have no first
      token yet, plus the prompt of this request, minus what the worker has cached of it.
    - *Decode blocks*: the blocks of the prompts that the worker has, plus those of this prompt. A
      block that several of them begin with counts once (``lib/kv-router/src/sequences``).
    - The temperature is 0: the lowest cost is picked. The weight of the number of active requests
      is 0, and the credit for the overlap is 1.

    Dynamo learns of first tokens and ends from the stream. Here, prompt tokens on their way are
    those of ``PodView.work``, which drains them at the speed that was learned until the first byte.
    An algorithm sees how many requests a pod has, but not which ended: the oldest are assumed to.
    """

    name = "dynamo-kv"
    reads_prompts = True

    def __init__(self, options: AlgorithmOptions, _engine: EngineOptions) -> None:
        self._random: random.Random = options.rng
        self._active = ActivePrompts()

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick:
        """Return the worker with the lowest cost."""
        return self.cheapest(request, candidates, candidates, now, "least-blocks")

    def cheapest(
        self,
        request: InferenceRequest,
        candidates: Candidates,
        among: Sequence[PodView],
        now: float,
        reason: str,
    ) -> Pick:
        """Return a pick of the worker with the lowest cost, and count the request there.

        Args:
            request: The request.
            candidates: All candidates.
            among: The candidates that may be picked.
            now: Seconds, as in ``pick``.
            reason: The reason of the pick.
        """
        tokens = tokens_of(request)
        cached = candidates.cached(request.model, request.prompt)
        costs = [self._cost(pod, request, tokens, cached, now) for pod in among]
        least = min(costs)
        ties = [pod for pod, cost in zip(among, costs, strict=True) if cost == least]
        pod = ties[0] if len(ties) == 1 else self._random.choice(ties)
        self._active.add(pod, request, tokens)
        return Pick(pod, reason, max(0.0, tokens - cached.get(pod, 0.0)))

    def _cost(
        self,
        pod: PodView,
        request: InferenceRequest,
        tokens: float,
        cached: Mapping[PodView, float],
        now: float,
    ) -> float:
        """Return the cost of a request, whose prompt has some tokens, on a worker, in blocks."""
        work = pod.work
        prefill = work.pending_seconds(now) * work.tokens_a_second + tokens - cached.get(pod, 0.0)
        decode = self._active.tokens_with(pod, request, tokens)
        return (max(0.0, prefill) + decode) / BLOCK_TOKENS
