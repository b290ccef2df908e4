"""``/metrics`` and ``/v1/models`` of a simulated pod, with the names and quirks of vLLM 0.32.0.

These quirks are reproduced because a router must handle them: ``lora_requests_info`` has no sample
before the first request; its series are never removed; both labels name the same adapters; the
order of the names matters; the value is the Unix time of the last step.

Families that the model has no numbers for are on the page too, with constant values, so that a
reader must find its few lines among as many others as on a real page.
"""

import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import generate_latest

from lora_router.simulator.engine import Engine, EngineRequest

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
MAX_MODEL_LEN = 8192
"""Tokens that a request may have in total, as ``/v1/models`` reports."""

_ENGINE = ("engine", "model_name")

_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_LONG_SECONDS = (
    *(0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60),
    *(120, 240, 480, 960, 1920, 7680),
)
_FIRST_TOKEN_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5),
    *(10, 20, 40, 80, 160, 640, 2560),
)
_NEXT_TOKEN_SECONDS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5),
    *(10, 20, 40, 80),
)

_FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")

_UNMOVED_COUNTERS = (
    "estimated_flops_per_gpu",
    "estimated_read_bytes_per_gpu",
    "estimated_write_bytes_per_gpu",
    "external_prefix_cache_queries",
    "external_prefix_cache_hits",
    "mm_cache_queries",
    "mm_cache_hits",
)
_UNMOVED_HISTOGRAMS = (
    ("request_max_num_generation_tokens", _TOKENS),
    ("request_params_n", (1, 2, 5, 10, 20)),
    ("request_params_max_tokens", _TOKENS),
    ("request_prefill_kv_computed_tokens", _TOKENS),
    ("request_num_preemptions", (1, 2, 3, 4, 5, 10, 20)),
    ("inter_token_latency_seconds", _NEXT_TOKEN_SECONDS),
    ("request_time_per_output_token_seconds", _NEXT_TOKEN_SECONDS),
    ("request_queue_time_seconds", _LONG_SECONDS),
    ("request_inference_time_seconds", _LONG_SECONDS),
    ("request_prefill_time_seconds", _LONG_SECONDS),
    ("request_decode_time_seconds", _LONG_SECONDS),
)


class MetricsPage:
    """The metrics of one pod."""

    def __init__(
        self, engine: Engine, base: str, unix_time: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._unix_time = unix_time
        self._registry = registry = CollectorRegistry()
        self._labels = ("0", base)
        GCCollector(registry=registry)
        PlatformCollector(registry=registry)
        ProcessCollector(registry=registry)

        self._running = self._gauge(
            "vllm:num_requests_running", "Number of requests in model execution batches."
        )
        self._waiting = self._gauge(
            "vllm:num_requests_waiting", "Number of requests waiting to be processed."
        )
        by_reason = Gauge(
            "vllm:num_requests_waiting_by_reason",
            "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for "
            "scheduling capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV "
            "transfer, blocked status). Sum of all reasons equals vllm:num_requests_waiting.",
            (*_ENGINE, "reason"),
            registry=registry,
        )
        self._no_capacity = by_reason.labels(*self._labels, "capacity")
        self._deferred = by_reason.labels(*self._labels, "deferred")
        self._kv_cache = self._gauge(
            "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage."
        )
        self._prompt_tokens = self._counter(
            "vllm:prompt_tokens", "Number of prefill tokens processed."
        )
        self._queried = self._counter(
            "vllm:prefix_cache_queries",
            "Prefix cache queries, in terms of number of queried tokens.",
        )
        self._hits = self._counter(
            "vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens."
        )
        self._cached = self._counter(
            "vllm:prompt_tokens_cached", "Number of cached prompt tokens (local + external)."
        )
        by_source = Counter(
            "vllm:prompt_tokens_by_source",
            "Number of prompt tokens by source.",
            (*_ENGINE, "source"),
            registry=registry,
        )
        self._by_source = {
            source: by_source.labels(*self._labels, source)
            for source in ("local_compute", "local_cache_hit", "external_kv_transfer")
        }
        self._preemptions = self._counter(
            "vllm:num_preemptions", "Cumulative number of preemption from the engine."
        )
        self._counted = (0, 0, 0)
        """Of the engine: prompt tokens, cached ones, and preemptions, as they were counted last."""
        self._generated = self._counter(
            "vllm:generation_tokens", "Number of generation tokens processed."
        )
        success = Counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            ("engine", "finished_reason", "model_name"),
            registry=registry,
        )
        finished = {reason: success.labels("0", reason, base) for reason in _FINISHED_REASONS}
        self._finished, self._aborts = finished["length"], finished["abort"]
        self._request_prompt = self._histogram(
            "vllm:request_prompt_tokens", "Number of prefill tokens processed.", _TOKENS
        )
        self._request_output = self._histogram(
            "vllm:request_generation_tokens", "Number of generation tokens processed.", _TOKENS
        )
        self._iteration = self._histogram(
            "vllm:iteration_tokens_total",
            "Histogram of number of tokens per engine_step.",
            _STEP_TOKENS,
        )
        self._first_token = self._histogram(
            "vllm:time_to_first_token_seconds",
            "Histogram of time to first token in seconds.",
            _FIRST_TOKEN_SECONDS,
        )
        self._end_to_end = self._histogram(
            "vllm:e2e_request_latency_seconds",
            "Histogram of e2e request latency in seconds.",
            _LONG_SECONDS,
        )
        self._add_unmoved()
        self._lora_info = Gauge(
            "vllm:lora_requests_info",
            "Running stats on lora requests.",
            ("max_lora", "running_lora_adapters", "waiting_lora_adapters"),
            registry=registry,
        )
        self._add_cache_config()

    def note_step(self, batch: Iterable[EngineRequest], now: float) -> None:
        """Record the end of a step.

        Args:
            batch: The requests that got a token.
            now: Seconds on the clock of ``EngineRequest.arrived``.
        """
        tokens = 0
        for request in batch:
            tokens += 1
            if request.generated == 1:
                self._first_token.observe(now - request.arrived)
                self._prompt_tokens.inc(request.prompt_tokens)
                self._cached.inc(request.cached_tokens)
                computed = request.prompt_tokens - request.cached_tokens
                self._by_source["local_compute"].inc(computed)
                self._by_source["local_cache_hit"].inc(request.cached_tokens)
                self._request_prompt.observe(request.prompt_tokens)
            if request.finished:
                self._finished.inc()
                self._request_output.observe(request.generated)
                self._end_to_end.observe(now - request.arrived)
        self._generated.inc(tokens)
        self._count_prompts()
        self._iteration.observe(tokens)
        names = ",".join(self._engine.listed)
        max_lora = str(self._engine.options.max_loras)
        self._lora_info.labels(max_lora, names, names).set(self._unix_time())

    def _count_prompts(self) -> None:
        """Count what the engine looked up, and whom it preempted, since the last time."""
        engine = self._engine
        queried, hits, preempted = self._counted
        self._counted = engine.prompt_tokens, engine.cached_tokens, engine.preemptions
        # Without prefix caching, vLLM looks nothing up.
        if engine.options.prefix_caching:
            self._queried.inc(engine.prompt_tokens - queried)
            self._hits.inc(engine.cached_tokens - hits)
        self._preemptions.inc(engine.preemptions - preempted)

    def note_abort(self) -> None:
        """Record a request whose client disconnected."""
        self._aborts.inc()

    def render(self) -> bytes:
        """Return the page."""
        engine = self._engine
        waiting, deferred = len(engine.waiting), engine.deferred
        self._running.set(len(engine.running))
        self._waiting.set(waiting)
        self._no_capacity.set(waiting - deferred)
        self._deferred.set(deferred)
        self._kv_cache.set(engine.kv_cache_usage)
        return generate_latest(self._registry)

    # Families

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(name, meaning, _ENGINE, registry=self._registry).labels(*self._labels)

    def _counter(self, name: str, meaning: str) -> Counter:
        return Counter(name, meaning, _ENGINE, registry=self._registry).labels(*self._labels)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
        made = Histogram(name, meaning, _ENGINE, registry=self._registry, buckets=buckets)
        return made.labels(*self._labels)

    def _add_unmoved(self) -> None:
        for name in _UNMOVED_COUNTERS:
            self._counter(f"vllm:{name}", f"Not simulated: {name.replace('_', ' ')}.")
        for name, buckets in _UNMOVED_HISTOGRAMS:
            self._histogram(f"vllm:{name}", f"Not simulated: {name.replace('_', ' ')}.", buckets)
        sleep = Gauge(
            "vllm:engine_sleep_state",
            "Not simulated: the engine is always awake.",
            (*_ENGINE, "sleep_state"),
            registry=self._registry,
        )
        for state in ("awake", "weights_offloaded", "discard_all"):
            sleep.labels(*self._labels, state).set(state == "awake")

    def _add_cache_config(self) -> None:
        options = self._engine.options
        tokens = options.kv_cache_tokens
        values = {
            "block_size": str(options.block_tokens),
            "cache_dtype": "auto",
            "enable_prefix_caching": str(options.prefix_caching),
            "engine": "0",
            "gpu_memory_utilization": "0.92",
            "kv_cache_size_tokens": str(tokens),
            "num_cpu_blocks": "None",
            "num_gpu_blocks": str(tokens // options.block_tokens),
            "sliding_window": "None",
        }
        Gauge(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            tuple(values),
            registry=self._registry,
        ).labels(**values).set(1)


def models_document(base: str, adapters: Mapping[str, str], created: int) -> dict[str, object]:
    """Return what ``/v1/models`` answers: the base model, then the adapters.

    Args:
        base: The base model's name.
        adapters: Adapters with the paths from which they were loaded, their ``root``; their
            ``parent`` is the base model.
        created: Unix time in seconds.
    """

    def model(name: str, root: str, parent: str | None, length: int | None) -> dict[str, object]:
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": length,
            "permission": [_permission(name, created)],
        }

    listed = [model(base, f"/models/{base}", None, MAX_MODEL_LEN)]
    listed += [model(name, root, base, None) for name, root in adapters.items()]
    return {"object": "list", "data": listed}


def _permission(name: str, created: int) -> dict[str, object]:
    return {
        "id": f"modelperm-{name}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
