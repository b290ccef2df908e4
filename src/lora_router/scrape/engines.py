"""The names of the metrics that routing needs, for each model server. Data only."""

from dataclasses import dataclass

PROCESS_START = "process_start_time_seconds"
"""The server's start as Unix time, as the official Prometheus clients name it. A page that is
merged from several processes does not contain it."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A metric, or those of its series that have one label value."""

    name: str
    label: str = ""
    """Empty: all series are read."""
    value: str = ""
    part: str = ""
    """The label that says which part of a total a series is. It is empty in a total. Where there
    are totals, only they are read."""


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
class CacheMetrics:
    """The metric that reports how many tokens the KV cache of an engine has room for."""

    name: str
    tokens: str = ""
    """The label with the number of tokens. Empty: the metric's value is the number."""
    blocks: str = ""
    """The label with the number of blocks, where there is no such number."""
    block_tokens: str = ""
    """The label with the number of tokens in a block."""
    is_on: str = ""
    """The label that is ``False`` if nothing is kept for later requests."""


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """The names on one engine's metrics page.

    Where several names are given, the first that is on the page is read.
    """

    engine: str
    """One of ``fleet.engine_names.ENGINES``. An engine may have several kinds of pages."""
    running: Gauge
    """Requests in the batch."""
    waiting: Gauge
    """Requests in the queue."""
    kv_cache_usage: tuple[Gauge, ...] = ()
    """Fraction of the KV cache in use, in [0, 1]."""
    cache: CacheMetrics | None = None
    """The metric of the size of the KV cache."""
    deferred: Gauge | None = None
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
    def identity(self) -> tuple[str, str]:
        """The metrics of which one on a page identifies the engine."""
        return self.running.name, self.waiting.name

    @property
    def all(self) -> tuple[str, ...]:
        """The names of all series."""
        others = (self.lora_info, self.generated_tokens)
        return (*(name for name in others if name is not None), *self.labelled)

    @property
    def labelled(self) -> tuple[str, ...]:
        """The names of the series that are read with their labels, each of them."""
        names = (
            self.running.name,
            self.waiting.name,
            *((self.lora_slots,) if self.lora_slots is not None else ()),
            *(gauge.name for gauge in self.kv_cache_usage),
            *((self.cache.name,) if self.cache is not None else ()),
            *((self.deferred.name,) if self.deferred is not None else ()),
            *(self.residency.all if self.residency is not None else ()),
        )
        return tuple(dict.fromkeys(names))


def _vllm_names(engine: str, prefix: str) -> EngineMetrics:
    """Return vLLM's names with a prefix."""
    return EngineMetrics(
        engine=engine,
        running=Gauge(f"{prefix}num_requests_running"),
        waiting=Gauge(f"{prefix}num_requests_waiting"),
        # Releases before 0.10 use the second name.
        kv_cache_usage=(
            Gauge(f"{prefix}kv_cache_usage_perc"),
            Gauge(f"{prefix}gpu_cache_usage_perc"),
        ),
        # Models whose layers have caches of several kinds have fewer tokens than their blocks say,
        # so newer releases state the tokens.
        cache=CacheMetrics(
            f"{prefix}cache_config_info",
            tokens="kv_cache_size_tokens",
            blocks="num_gpu_blocks",
            block_tokens="block_size",
            is_on="enable_prefix_caching",
        ),
        deferred=Gauge(f"{prefix}num_requests_waiting_by_reason", "reason", "deferred"),
        lora_info=f"{prefix}lora_requests_info",
        residency=ResidencyMetrics(
            loaded=f"{prefix}lora_adapter_loaded",
            adapter_label="adapter_name",
            level_label="level",
            gpu_level="gpu",
            cpu_level="cpu",
            gpu_loaded=f"{prefix}num_gpu_loaded_lora_adapters",
            gpu_slots=f"{prefix}max_gpu_lora_adapters",
            load_seconds=f"{prefix}lora_adapter_load_seconds",
        ),
        generated_tokens=f"{prefix}generation_tokens_total",
    )


VLLM = _vllm_names("vllm", "vllm:")
"""Verified with vLLM 0.32.0; the recorded pages are in ``tests/data/vllm-0.32.0``. Residency is
from vllm-project/vllm#54830, which is not released yet."""

RAY = _vllm_names("ray", "ray_vllm_")
"""vLLM in Ray Serve. From ``vllm/v1/metrics/ray_wrappers.py``, which replaces the colon, and from
the panels of ``serve_llm_dashboard_panels.py`` in Ray, which adds ``ray_``. Ray's agent on each
node serves the page, at a port of its own."""

RAY_BEFORE_OPENTELEMETRY = _vllm_names("ray", "ray_vllm:")
"""The same in older releases, which keep the colon."""

SGLANG = EngineMetrics(
    engine="sglang",
    # With priority scheduling, each priority has a series beside that of the total.
    running=Gauge("sglang:num_running_reqs", part="priority"),
    waiting=Gauge("sglang:num_queue_reqs", part="priority"),
    kv_cache_usage=(Gauge("sglang:token_usage"),),
    cache=CacheMetrics("sglang:max_total_num_tokens"),
    lora_slots="sglang:lora_pool_slots_total",
    generated_tokens="sglang:generation_tokens_total",
)
"""From SGLang's documentation of production metrics and from its ``metrics_collector.py``."""

NIM = EngineMetrics(
    engine="nim",
    running=Gauge("num_requests_running"),
    waiting=Gauge("num_requests_waiting"),
    kv_cache_usage=(Gauge("gpu_cache_usage_perc"),),
    generated_tokens="generation_tokens_total",
)
"""NVIDIA NIM for LLMs 1.x, from its page "Observability". It removes vLLM's prefix, and lists no
metric of adapters. NIM 2.x passes the page of vLLM or SGLang on."""

TRTLLM = EngineMetrics(
    engine="trtllm",
    running=Gauge("trtllm_num_requests_running"),
    waiting=Gauge("trtllm_num_requests_waiting"),
    kv_cache_usage=(Gauge("trtllm_kv_cache_utilization"),),
    generated_tokens="trtllm_generation_tokens_total",
)
"""``trtllm-serve``, from ``tensorrt_llm/metrics/collector.py``. It has no metric of adapters."""

TRITON = EngineMetrics(
    engine="triton",
    running=Gauge("nv_trt_llm_request_metrics", "request_type", "scheduled"),
    waiting=Gauge("nv_trt_llm_request_metrics", "request_type", "waiting"),
    kv_cache_usage=(Gauge("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "fraction"),),
)
"""Triton's TensorRT-LLM backend, from ``custom_metrics_reporter.cc`` and from the model server
protocol of the Gateway API Inference Extension. Older releases have neither ``waiting`` nor
``fraction``. Triton's own metrics (``nv_inference_*``) are counters, and contain no load."""

TGI = EngineMetrics(
    engine="tgi",
    running=Gauge("tgi_batch_current_size"),
    waiting=Gauge("tgi_queue_size"),
    generated_tokens="tgi_request_generated_tokens_sum",
)
"""Text Generation Inference, from ``docs/source/reference/metrics.md``. It has no metric of the KV
cache and none of adapters."""

LMDEPLOY = EngineMetrics(
    engine="lmdeploy",
    running=Gauge("lmdeploy:num_requests_running"),
    waiting=Gauge("lmdeploy:num_requests_waiting"),
    kv_cache_usage=(Gauge("lmdeploy:gpu_cache_usage_perc"),),
    generated_tokens="lmdeploy:generation_tokens_total",
)
"""From ``lmdeploy/metrics/loggers.py``. It has no metric of adapters."""

LLAMACPP = EngineMetrics(
    engine="llamacpp",
    running=Gauge("llamacpp:requests_processing"),
    waiting=Gauge("llamacpp:requests_deferred"),
    kv_cache_usage=(Gauge("llamacpp:kv_cache_usage_ratio"),),
    generated_tokens="llamacpp:tokens_predicted_total",
)
"""llama.cpp's server with ``--metrics``, from ``tools/server/README.md``. Only older releases have
the usage of the KV cache. There is no metric of adapters."""

PAGES = (
    VLLM,
    SGLANG,
    RAY,
    RAY_BEFORE_OPENTELEMETRY,
    TRTLLM,
    TRITON,
    TGI,
    NIM,
    LMDEPLOY,
    LLAMACPP,
)
"""All kinds of pages. If a page has metrics of several, the first metric on it decides."""
