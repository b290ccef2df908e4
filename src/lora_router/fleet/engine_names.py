"""The model servers that are known by name, and where each serves its metrics."""

from collections.abc import Mapping

DEFAULT_METRICS_PATH = "/metrics"

METRICS_PATHS: Mapping[str, str] = {
    "vllm": DEFAULT_METRICS_PATH,
    "sglang": DEFAULT_METRICS_PATH,
    "ray": DEFAULT_METRICS_PATH,
    "nim": "/v1/metrics",
    "trtllm": "/prometheus/metrics",
    "triton": DEFAULT_METRICS_PATH,
    "tgi": DEFAULT_METRICS_PATH,
    "lmdeploy": DEFAULT_METRICS_PATH,
    "llamacpp": DEFAULT_METRICS_PATH,
}
"""The path of the metrics page by engine. Sources: NIM's page "Observability"; TensorRT-LLM's
example ``prometheus_metrics`` (its ``/metrics`` returns JSON); the others as in
``scrape.engines``."""

UNKNOWN = "unknown"
"""In reports: an engine that no label names."""

ENGINES = tuple(METRICS_PATHS)
"""The values of the label ``model.aibrix.ai/engine``, and of ``engine`` in the pods file."""

LOADS_WHEN_LISTED = frozenset({"vllm", "sglang"})
"""Engines that have loaded every adapter that they list: ``load_lora_adapter`` of vLLM's
``OpenAIServingModels``, also for ``--lora-modules``; SGLang's ``LoRAManager``."""
