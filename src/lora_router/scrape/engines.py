"""What each model server calls the numbers that routing needs. Data only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LabelledMetric:
    """A metric of which only the series with one label value counts."""

    name: str
    label: str
    value: str


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """The names on one engine's ``/metrics``.

    Where several names are given, the first that is on the page counts.
    """

    engine: str
    running: str
    """Requests in the batch; its presence also tells the engine from the others."""
    waiting: str
    """Requests in the queue."""
    kv_cache_usage: tuple[str, ...]
    """Share of the KV cache in use, in [0, 1]."""
    deferred: LabelledMetric | None = None
    """Queued requests that wait for an adapter slot."""
    lora_info: str | None = None
    """The gauge whose labels name the active adapters and whose value is a Unix time."""
    lora_slots: str | None = None
    """Slots for distinct adapters, where the engine counts them and names none."""


VLLM = EngineMetrics(
    engine="vllm",
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    # The second name is that of releases before 0.10.
    kv_cache_usage=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    deferred=LabelledMetric("vllm:num_requests_waiting_by_reason", "reason", "deferred"),
    lora_info="vllm:lora_requests_info",
)
"""Measured on vLLM 0.32.0; the recorded pages are in ``tests/data/vllm-0.32.0``."""

SGLANG = EngineMetrics(
    engine="sglang",
    running="sglang:num_running_reqs",
    waiting="sglang:num_queue_reqs",
    kv_cache_usage=("sglang:token_usage",),
    lora_slots="sglang:lora_pool_slots_total",
)
"""From SGLang's documentation of its production metrics and ``metrics_collector.py``."""

ENGINES = {metrics.engine: metrics for metrics in (VLLM, SGLANG)}
