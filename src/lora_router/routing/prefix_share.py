"""How much of a request's prompt pods have, as a share."""

from collections.abc import Mapping

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import InferenceRequest


def cached_share(cached: Mapping[PodView, float], pod: PodView, request: InferenceRequest) -> float:
    """Return which share of the prompt's whole chunks a pod has, in [0, 1].

    0: it has none of them, or the prompt has none.

    Args:
        cached: Tokens of the prompt's beginning, by pod (``Candidates.cached``).
        pod: The pod.
        request: The request.
    """
    prompt = request.prompt
    if prompt is None or not prompt.ends:
        return 0.0
    tokens = cached.get(pod, 0.0)
    return min(1.0, tokens / prompt.ends[-1])
