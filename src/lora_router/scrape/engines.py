"""The names of the metrics that routing needs, for each model server. Data only."""

from dataclasses import dataclass

PROCESS_START = "process_start_time_seconds"
"""The server's start as Unix time, as the official Prometheus clients name it. A page that is
merged from several processes does not contain it."""


@dataclass(frozen=True, slots=True)
class LabelledMetric:
    """A metric of which only the series with one label value is read."""

    name: str
    label: str
    value: str


@dataclass(frozen=True, slots=True)
class ResidencyMetrics:
    """The metrics that report which adapters are loaded."""

    loaded: str
    """One series above 0 for each loaded adapter, with its name and level as labels."""
    adapter_label: str
    level_label: str
    gpu_level: str
    cpu_level: str
    gpu_loaded: str
    """Number of adapters in slots. Present even if ``loaded`` has no series."""
    gpu_slots: str
    """Number of slots, used or not."""
    load_seconds: str
    """Histogram of load times."""

    @property
    def all(self) -> tuple[str, ...]:
        """The names of all series."""
        histogram = (f"{self.load_seconds}_sum", f"{self.load_seconds}_count")
        return (self.loaded, self.gpu_loaded, self.gpu_slots, *histogram)


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """The names on one engine's ``/metrics``.

    Where several names are given, the first that is on the page is read.
    """

    engine: str
    running: str
    """Requests in the batch. Its presence also identifies the engine."""
    waiting: str
    """Requests in the queue."""
    kv_cache_usage: tuple[str, ...]
    """Fraction of the KV cache in use, in [0, 1]."""
    deferred: LabelledMetric | None = None
    """Queued requests that wait for an adapter slot."""
    lora_info: str | None = None
    """The gauge whose labels name the active adapters and whose value is a Unix time."""
    lora_slots: str | None = None
    """Slots for distinct adapters, for an engine that counts slots but names no adapters."""
    residency: ResidencyMetrics | None = None
    """The metrics of loaded adapters."""
    generated_tokens: str | None = None
    """Counter of generated tokens, which detects a restart if the page has no start time. It grows
    faster than any other counter, so a restarted server is detected while its count is below the
    old one; and it has one series for each engine, while the counter of requests has five."""

    @property
    def all(self) -> tuple[str, ...]:
        """The names of all series."""
        others = (self.lora_info, self.generated_tokens)
        return (*(name for name in others if name is not None), *self.labelled)

    @property
    def labelled(self) -> tuple[str, ...]:
        """The names of the series that are read with their labels, each of them."""
        return (
            self.running,
            self.waiting,
            *((self.lora_slots,) if self.lora_slots is not None else ()),
            *self.kv_cache_usage,
            *((self.deferred.name,) if self.deferred is not None else ()),
            *(self.residency.all if self.residency is not None else ()),
        )


VLLM = EngineMetrics(
    engine="vllm",
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    # Releases before 0.10 use the second name.
    kv_cache_usage=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    deferred=LabelledMetric("vllm:num_requests_waiting_by_reason", "reason", "deferred"),
    lora_info="vllm:lora_requests_info",
    residency=ResidencyMetrics(
        loaded="vllm:lora_adapter_loaded",
        adapter_label="adapter_name",
        level_label="level",
        gpu_level="gpu",
        cpu_level="cpu",
        gpu_loaded="vllm:num_gpu_loaded_lora_adapters",
        gpu_slots="vllm:max_gpu_lora_adapters",
        load_seconds="vllm:lora_adapter_load_seconds",
    ),
    generated_tokens="vllm:generation_tokens_total",
)
"""Verified with vLLM 0.32.0; the recorded pages are in ``tests/data/vllm-0.32.0``. Residency is
from vllm-project/vllm#54830, which is not released yet."""

SGLANG = EngineMetrics(
    engine="sglang",
    running="sglang:num_running_reqs",
    waiting="sglang:num_queue_reqs",
    kv_cache_usage=("sglang:token_usage",),
    lora_slots="sglang:lora_pool_slots_total",
    generated_tokens="sglang:generation_tokens_total",
)
"""From SGLang's documentation of production metrics and from its ``metrics_collector.py``."""

ENGINES = {metrics.engine: metrics for metrics in (VLLM, SGLANG)}
