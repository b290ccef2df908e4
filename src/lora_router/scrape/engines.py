"""What each model server calls the numbers that routing needs. Data only."""

from dataclasses import dataclass

PROCESS_START = "process_start_time_seconds"
"""What every server that uses the official Prometheus client calls its start, as Unix time. A page
that is merged from several processes does not have it."""


@dataclass(frozen=True, slots=True)
class LabelledMetric:
    """A metric of which only the series with one label value counts."""

    name: str
    label: str
    value: str


@dataclass(frozen=True, slots=True)
class ResidencyMetrics:
    """The metrics that say which adapters are loaded. A server that has one of them says so."""

    loaded: str
    """One series above 0 for each loaded adapter, with its name and where it is as labels."""
    adapter_label: str
    level_label: str
    gpu_level: str
    cpu_level: str
    gpu_loaded: str
    """How many are in slots. It is there when ``loaded`` has no series, because none is."""
    gpu_slots: str
    """Slots, taken or not."""
    load_seconds: str
    """The histogram of the times that loads took."""

    @property
    def all(self) -> tuple[str, ...]:
        """Every name as it stands before a series."""
        histogram = (f"{self.load_seconds}_sum", f"{self.load_seconds}_count")
        return (self.loaded, self.gpu_loaded, self.gpu_slots, *histogram)


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
    residency: ResidencyMetrics | None = None
    """Which adapters are loaded."""
    generated_tokens: str | None = None
    """The counter of tokens that came out, which tells a restart where no start time does. Of all
    counters it moves the most, so a new server is seen as long as it has done less than the old;
    and it is one series for each engine, while the one of requests is five."""

    @property
    def all(self) -> tuple[str, ...]:
        """Every name as it stands before a series."""
        single = (
            self.running,
            self.waiting,
            self.lora_info,
            self.lora_slots,
            self.generated_tokens,
        )
        return (
            *(name for name in single if name is not None),
            *self.kv_cache_usage,
            *((self.deferred.name,) if self.deferred is not None else ()),
            *(self.residency.all if self.residency is not None else ()),
        )


VLLM = EngineMetrics(
    engine="vllm",
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    # The second name is that of releases before 0.10.
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
"""Measured on vLLM 0.32.0; the recorded pages are in ``tests/data/vllm-0.32.0``. Residency
is that of vllm-project/vllm#54830, which no release has yet."""

SGLANG = EngineMetrics(
    engine="sglang",
    running="sglang:num_running_reqs",
    waiting="sglang:num_queue_reqs",
    kv_cache_usage=("sglang:token_usage",),
    lora_slots="sglang:lora_pool_slots_total",
    generated_tokens="sglang:generation_tokens_total",
)
"""From SGLang's documentation of its production metrics and ``metrics_collector.py``."""

ENGINES = {metrics.engine: metrics for metrics in (VLLM, SGLANG)}
