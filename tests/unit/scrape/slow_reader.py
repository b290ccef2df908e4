"""Reads a vLLM page the simple way: the official parser reads every line."""

import math
from collections import defaultdict
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lora_router.fleet.pod_metrics import LoraActivity, LoraResidency, PodMetrics

Samples = dict[str, list[Sample]]


def read_slowly(page: bytes, *, scraped_at: float, wall_now: float) -> PodMetrics:
    samples: Samples = defaultdict(list)
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            samples[sample.name].append(sample)
    usage = samples["vllm:kv_cache_usage_perc"] or samples["vllm:gpu_cache_usage_perc"]
    started_at = _started_at(samples)
    return PodMetrics(
        scraped_at=scraped_at,
        running=_requests(samples["vllm:num_requests_running"]),
        waiting=_requests(samples["vllm:num_requests_waiting"]),
        kv_cache_usage=_usage(usage),
        cache_tokens=_cache_tokens(samples["vllm:cache_config_info"]),
        deferred=_requests(
            [
                sample
                for sample in samples["vllm:num_requests_waiting_by_reason"]
                if sample.labels.get("reason") == "deferred"
            ]
        ),
        lora=_lora(samples, wall_now),
        residency=_residency(samples),
        adapter_load_seconds=_mean(samples),
        started_at=started_at,
        generated_tokens=_generated_tokens(samples),
    )


def _finite(samples: list[Sample]) -> list[float]:
    return [float(sample.value) for sample in samples if 0 <= sample.value <= 1e12]


def _usage(samples: list[Sample]) -> float | None:
    most = max((sample.value for sample in samples if sample.value >= 0), default=math.inf)
    return min(float(most), 1.0) if most <= 1.05 else None


def _requests(samples: list[Sample]) -> float | None:
    counts = [count for count in _finite(samples) if count <= 1e6]
    return sum(counts) if counts and sum(counts) <= 1e6 else None


def _sum(samples: list[Sample]) -> float | None:
    return sum(_finite(samples)) if _finite(samples) else None


def _cache_tokens(samples: list[Sample]) -> float | None:
    sizes = [sample.labels.get("kv_cache_size_tokens", "") for sample in samples]
    return sum(map(float, filter(str.isdecimal, sizes))) if any(sizes) else None


def _lora(samples: Samples, wall_now: float) -> LoraActivity | None:
    series = samples["vllm:lora_requests_info"]
    if not series:
        return None
    believable = [one for one in series if 0 < one.value <= 1.5 * wall_now]
    is_merged = any(1.5 * wall_now < one.value <= 1000 * wall_now for one in series)
    newest = max(believable, key=lambda sample: sample.value) if believable else series[0]
    slots = newest.labels.get("max_lora", "")
    activity = LoraActivity(
        max_lora=int(slots) if slots.isdecimal() and 0 < int(slots) <= 100_000 else None,
        running=_names(newest.labels.get("running_lora_adapters", "")),
        waiting=_names(newest.labels.get("waiting_lora_adapters", "")),
        updated_at=float(newest.value) if believable else 0.0,
    )
    is_old = is_merged and abs(activity.updated_at - wall_now) > 60
    if is_old or not believable:
        return replace(activity, running=frozenset(), waiting=frozenset())
    return activity


def _names(label: str) -> frozenset[str]:
    return frozenset(part.strip() for part in label.split(",")) - {""}


def _residency(samples: Samples) -> LoraResidency | None:
    loaded = samples["vllm:lora_adapter_loaded"]
    slots = samples["vllm:max_gpu_lora_adapters"]
    if not loaded and not slots and not samples["vllm:num_gpu_loaded_lora_adapters"]:
        return None
    names = {
        level: {
            sample.labels["adapter_name"]
            for sample in loaded
            if sample.labels.get("level") == level
            and sample.labels.get("adapter_name")
            and sample.value > 0
        }
        for level in ("gpu", "cpu")
    }
    most = max(_finite(slots), default=0.0)
    return LoraResidency(
        gpu=frozenset(names["gpu"]),
        cpu=frozenset(names["cpu"] - names["gpu"]),
        max_gpu=int(most) if 1 <= most <= 100_000 else None,
    )


def _mean(samples: Samples) -> float | None:
    total = _sum(samples["vllm:lora_adapter_load_seconds_sum"])
    count = _sum(samples["vllm:lora_adapter_load_seconds_count"])
    if total is None or count is None or count < 1 or total / count > 3600:
        return None
    return total / count


def _started_at(samples: Samples) -> float | None:
    starts = samples["process_start_time_seconds"]
    return float(starts[0].value) if starts and 0 < starts[0].value < math.inf else None


def _generated_tokens(samples: Samples) -> float | None:
    counts = samples["vllm:generation_tokens_total"]
    total = sum(float(sample.value) for sample in counts)
    return total if counts and 0 <= total < math.inf else None
