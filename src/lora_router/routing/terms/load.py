"""*Load*: what a request waits for on a pod because of the others there.

- Each request in flight costs 1, of whichever sender. It costs more for a long prompt, because the
  whole batch waits while that is processed. On a pod that answers more slowly than others, it costs
  as many times more.
- Prompt tokens on their way to the pod cost what processing them takes, times a weight: they delay
  those behind them, and the batch.
- A KV cache that is nearly full costs more the fuller it is. When it is full, requests wait on the
  pod or are computed anew (vLLM: *preemption*), however few they are.
"""

from lora_router.fleet.pod_state import PodView
from lora_router.routing.terms.weights import REQUESTS_A_SECOND, Weights

KV_FROM = 0.7
"""A KV cache that is less full costs nothing."""
KV_PRICE = 60.0
"""What a full KV cache costs, in requests."""
STALL_SECONDS = 0.25
"""If processing a prompt takes this long, each request in flight counts twice. A lower value makes
long prompts go where few requests are, with more loads. A higher value makes them stall more."""
_KV_SLOPE = KV_PRICE / (1.0 - KV_FROM)


def stall(tokens: float, tokens_a_second: float) -> float:
    """Return what a request in flight costs for a new one with a prompt.

    Args:
        tokens: Tokens of the prompt that have to be processed.
        tokens_a_second: How fast pods process them.
    """
    return 1.0 + tokens / (tokens_a_second * STALL_SECONDS)


class Load:
    """The load of pods."""

    __slots__ = ("_kv", "_max_age", "_prompts", "_speed")

    def __init__(self, weights: Weights, max_age: float) -> None:
        self._prompts = weights.prompt_weight * REQUESTS_A_SECOND
        self._kv = weights.kv_weight * _KV_SLOPE
        self._speed = weights.speed_weight
        self._max_age = max_age

    def of(self, pod: PodView, now: float, each: float) -> float:
        """Return a pod's load.

        Args:
            pod: The pod.
            now: Seconds, monotonic.
            each: What each request in flight costs (``stall``).
        """
        load = (pod.in_flight + pod.beliefs.foreign_requests) * each
        work = pod.work
        if work.slowness > 1.0:
            load += load * (work.slowness - 1.0) * self._speed
        if work.empty_at > now:
            load += (work.empty_at - now) * self._prompts
        metrics = pod.metrics
        if metrics is not None:
            kv = metrics.kv_cache_usage
            if kv is not None and kv > KV_FROM and now - metrics.scraped_at <= self._max_age:
                load += (kv - KV_FROM) * self._kv
        return load

    def parts(self, pod: PodView, now: float, each: float) -> dict[str, float]:
        """Return what makes up a pod's load, by name, for people. Parts of 0 are omitted."""
        requests = pod.in_flight + pod.beliefs.foreign_requests
        stalls = requests * (each - 1.0)
        work, metrics = pod.work, pod.metrics
        slow = requests * each * (work.slowness - 1.0) * self._speed
        prompts = work.pending_seconds(now) * self._prompts
        kv = 0.0
        if metrics is not None and now - metrics.scraped_at <= self._max_age:
            kv = max(0.0, (metrics.kv_cache_usage or 0.0) - KV_FROM) * self._kv
        more = {"stalls": stalls, "slow-pod": slow, "prompts": prompts, "kv-cache": kv}
        return {"requests": requests} | {name: each for name, each in more.items() if each > 0.0}
