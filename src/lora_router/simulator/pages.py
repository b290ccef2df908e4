"""A simulated pod's ``/metrics`` and ``/v1/models``, with vLLM 0.32.0's names and habits.

Habits that a router must live with, kept here on purpose: ``lora_requests_info`` has no sample
before the first request was served; its series are never removed; both labels name the same
adapters; the order of names matters; the value is the Unix time of the last step.
"""

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

from lora_router.simulator.engine import Engine, EngineRequest

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"

_TOKEN_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_TTFT_BUCKETS = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    10,
    20,
)
_SECONDS_BUCKETS = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480)
_ENGINE = ("engine", "model_name")


class MetricsPage:
    """The metrics of one pod."""

    def __init__(self, engine: Engine, base: str) -> None:
        self._engine = engine
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        labels = ("0", base)

        def gauge(name: str, meaning: str) -> Gauge:
            return Gauge(name, meaning, _ENGINE, registry=registry).labels(*labels)

        def counter(name: str, meaning: str) -> Counter:
            return Counter(name, meaning, _ENGINE, registry=registry).labels(*labels)

        def histogram(name: str, meaning: str, buckets: Iterable[float]) -> Histogram:
            made = Histogram(name, meaning, _ENGINE, registry=registry, buckets=tuple(buckets))
            return made.labels(*labels)

        self._running = gauge(
            "vllm:num_requests_running", "Number of requests in model execution batches."
        )
        self._waiting = gauge(
            "vllm:num_requests_waiting", "Number of requests waiting to be processed."
        )
        by_reason = Gauge(
            "vllm:num_requests_waiting_by_reason",
            "Number of waiting requests by what they wait for.",
            (*_ENGINE, "reason"),
            registry=registry,
        )
        self._no_capacity = by_reason.labels(*labels, "capacity")
        self._deferred = by_reason.labels(*labels, "deferred")
        self._kv_cache = gauge(
            "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage."
        )
        Gauge(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            ("block_size", "engine", "num_gpu_blocks"),
            registry=registry,
        ).labels("16", "0", str(engine.options.kv_cache_tokens // 16)).set(1)
        self._prompt_tokens = counter("vllm:prompt_tokens", "Number of prefill tokens processed.")
        self._generated = counter(
            "vllm:generation_tokens", "Number of generation tokens processed."
        )
        success = Counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            ("engine", "finished_reason", "model_name"),
            registry=registry,
        )
        self._finished = success.labels("0", "length", base)
        self._aborts = success.labels("0", "abort", base)
        self._request_prompt = histogram(
            "vllm:request_prompt_tokens", "Number of prefill tokens processed.", _TOKEN_BUCKETS
        )
        self._request_output = histogram(
            "vllm:request_generation_tokens",
            "Number of generation tokens processed.",
            _TOKEN_BUCKETS,
        )
        self._iteration = histogram(
            "vllm:iteration_tokens_total",
            "Histogram of number of tokens per engine_step.",
            (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),
        )
        self._first_token = histogram(
            "vllm:time_to_first_token_seconds",
            "Histogram of time to first token in seconds.",
            _TTFT_BUCKETS,
        )
        self._end_to_end = histogram(
            "vllm:e2e_request_latency_seconds",
            "Histogram of e2e request latency in seconds.",
            _SECONDS_BUCKETS,
        )
        self._lora_info = Gauge(
            "vllm:lora_requests_info",
            "Running stats on lora requests.",
            ("max_lora", "running_lora_adapters", "waiting_lora_adapters"),
            registry=registry,
        )

    def note_step(self, batch: Iterable[EngineRequest], now: float) -> None:
        """Take note of a step's end.

        Args:
            batch: The requests that got a token.
            now: The clock of ``EngineRequest.arrived``, in seconds.
        """
        tokens = 0
        for request in batch:
            tokens += 1
            if request.generated == 1:
                self._first_token.observe(now - request.arrived)
                self._prompt_tokens.inc(request.prompt_tokens)
                self._request_prompt.observe(request.prompt_tokens)
            if request.finished:
                self._finished.inc()
                self._request_output.observe(request.generated)
                self._end_to_end.observe(now - request.arrived)
        self._generated.inc(tokens)
        self._iteration.observe(tokens)
        names = ",".join(self._engine.listed)
        self._lora_info.labels(str(self._engine.options.max_loras), names, names).set(time.time())

    def note_abort(self) -> None:
        """Take note of a request whose client left."""
        self._aborts.inc()

    def render(self) -> bytes:
        """Return the page."""
        engine = self._engine
        self._running.set(len(engine.running))
        self._waiting.set(len(engine.waiting))
        self._no_capacity.set(0)
        self._deferred.set(engine.deferred)
        self._kv_cache.set(engine.kv_cache_usage)
        return generate_latest(self._registry)


def models_document(base: str, adapters: Iterable[str], created: int) -> dict[str, object]:
    """Return what ``/v1/models`` answers: the base model, then the adapters."""

    def model(name: str, root: str, parent: str | None, length: int | None) -> dict[str, object]:
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": length,
            "permission": [],
        }

    listed = [model(base, f"/models/{base}", None, 8192)]
    listed += [model(name, f"/adapters/{name}", base, None) for name in adapters]
    return {"object": "list", "data": listed}
