"""Candidates worth inspecting because they have the beginning of a request's prompt."""

import random
from collections.abc import Mapping, Sequence
from itertools import islice

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import InferenceRequest
from lora_router.routing.candidates import FULL_LOOK, Candidates

MOST = 8
"""How many pods a large fleet's shortlist gains. Prompts of one session are on few pods. A system
prompt may be on all of them, and then the least loaded pods of the shortlist have it too."""


def with_prefix_pods(
    candidates: Candidates,
    request: InferenceRequest,
    cached: Mapping[PodView, float],
    rng: random.Random,
) -> Sequence[PodView]:
    """Return the shortlist for a request, and the pods that have the most of its prompt.

    Args:
        candidates: The candidates. All of a small fleet are returned.
        request: The request.
        cached: Tokens of the prompt's beginning, by pod, those with the most first
            (``Candidates.cached``).
        rng: For pods that are equally good.
    """
    pods = candidates.shortlist(request.adapter, rng)
    if not cached or len(candidates) <= FULL_LOOK:
        return pods
    members = candidates.members
    more = [pod for pod in islice(cached, MOST) if pod in members and pod not in pods]
    return [*pods, *more] if more else pods


def cached_share(cached: Mapping[PodView, float], pod: PodView, request: InferenceRequest) -> float:
    """Return which share of the prompt's whole chunks a pod has, in [0, 1].

    0: it has none of them, or the prompt has none.
    """
    prompt = request.prompt
    if prompt is None or not prompt.ends:
        return 0.0
    tokens = cached.get(pod, 0.0)
    return min(1.0, tokens / prompt.ends[-1])
