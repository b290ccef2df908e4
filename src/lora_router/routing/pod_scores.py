"""The scores of llm-d-router's scorers: each maps a pod to a number from 0 to 1, the best.

Source: llm-d-router, ``pkg/epp/framework/plugins/scheduling/scorer``, commit ebab687 (2026-08-21):
``prefix``, ``loraaffinity``, ``queuedepth``, ``kvcacheutilization`` and ``activerequest``. The
Gateway API Inference Extension had the same scorers up to its release 1.5. Pods without a fresh
snapshot count as there: nothing waits, the KV cache is empty, and no adapter is active.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import InferenceRequest
from lora_router.routing.least_request import requests_in_flight
from lora_router.routing.load_score import scores_of
from lora_router.routing.prefix_share import cached_share


@dataclass(frozen=True, slots=True)
class Seen:
    """What the scorers see of a request and of the pods in question."""

    request: InferenceRequest
    pods: Sequence[PodView]
    metrics: Sequence[PodMetrics | None]
    """The fresh snapshot of each pod."""
    cached: Mapping[PodView, float]
    """Tokens of the prompt's beginning, by pod."""


def prefix_scores(seen: Seen) -> list[float]:
    """Return the share of the prompt's chunks that each pod has."""
    if not seen.cached:
        return [0.0] * len(seen.pods)
    return [cached_share(seen.cached, pod, seen.request) for pod in seen.pods]


def adapter_scores(seen: Seen) -> list[float]:
    """Return 1 for an active adapter, 0.8 for capacity, 0.6 for a waiting adapter, and else 0.

    The sizes of both labels of ``lora_requests_info`` are added, as in the original. vLLM writes
    the same names into both, so a pod has capacity while fewer than half of its slots are active.
    A base model is looked up like an adapter and is never found.
    """
    model = seen.request.model
    return [_adapter_score(model, metrics) for metrics in seen.metrics]


def _adapter_score(model: str, metrics: PodMetrics | None) -> float:
    lora = None if metrics is None else metrics.lora
    if lora is None:
        return 0.0
    if model in lora.running:
        return 1.0
    if len(lora.running) + len(lora.waiting) < (lora.max_lora or 0):
        return 0.8
    return 0.6 if model in lora.waiting else 0.0


def queue_scores(seen: Seen) -> list[float]:
    """Return 1 for the fewest requests in a server's queue, 0 for the most, linear between."""
    return scores_of([_waiting(metrics) for metrics in seen.metrics])


def _waiting(metrics: PodMetrics | None) -> int:
    return 0 if metrics is None else int(metrics.waiting or 0)


def kv_scores(seen: Seen) -> list[float]:
    """Return the share of each pod's KV cache that is free."""
    return [1.0 - ((metrics and metrics.kv_cache_usage) or 0.0) for metrics in seen.metrics]


def request_scores(seen: Seen) -> list[float]:
    """Return 1 for a pod without requests in flight, 0 for the most, and linear between."""
    counts = [requests_in_flight(pod) for pod in seen.pods]
    most = max(counts)
    return [(most - count) / most if count else 1.0 for count in counts]


SCORERS: Mapping[str, Callable[[Seen], list[float]]] = {
    "prefix": prefix_scores,
    "lora": adapter_scores,
    "queue": queue_scores,
    "kv": kv_scores,
    "requests": request_scores,
}
"""The scorers, by the names that profiles use."""
