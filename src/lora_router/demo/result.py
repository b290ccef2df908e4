"""The figures that the demo measures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lora_router.demo.load import BASE, Outcome
from lora_router.demo.stack import PodReport
from lora_router.simulator.no_value import ratio
from lora_router.simulator.percentile import percentile


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of one algorithm."""

    requests: int
    ttft_ms: dict[str, float]
    """Time to first token in milliseconds: ``p50``, ``p95``, ``p99``."""
    affinity_hit_rate: float
    """Share of adapter requests whose adapter was active on their pod when they arrived."""
    prefix_hit_rate: float
    """Share of the prompt tokens of chats that were in the prefix cache of their pod."""
    slot_waits: int
    """Requests that waited for a slot on their pod."""
    adapter_loads: int
    """Loads of an adapter into a slot, on all pods."""
    requests_by_pod: dict[str, int]
    requests_by_router: dict[str, int]
    """The requests that each router routed."""
    errors: int
    error_examples: list[str]


def summarise(
    outcomes: Sequence[Outcome], reports: Sequence[PodReport], by_router: Mapping[str, int]
) -> Result:
    """Return the figures of one algorithm.

    Args:
        outcomes: All requests of the trace.
        reports: The final state of all pods.
        by_router: How many requests each router routed.
    """
    good = [outcome for outcome in outcomes if outcome.error is None]
    times = sorted(outcome.first_token_seconds * 1000 for outcome in good)
    adapter = [outcome for outcome in good if outcome.model != BASE]
    hits = sum(outcome.adapter_state == "active" for outcome in adapter)
    chat_tokens = sum(outcome.chat_tokens for outcome in good)
    cached = sum(outcome.cached_tokens for outcome in good)
    errors = Counter(outcome.error for outcome in outcomes if outcome.error is not None)
    by_pod = Counter(outcome.pod for outcome in good)
    return Result(
        requests=len(outcomes),
        ttft_ms={f"p{p}": round(percentile(times, p / 100), 1) for p in (50, 95, 99)},
        affinity_hit_rate=round(ratio(hits, len(adapter)), 4),
        prefix_hit_rate=round(ratio(cached, chat_tokens), 4),
        slot_waits=sum(report.slot_waits for report in reports),
        adapter_loads=sum(report.loads for report in reports),
        requests_by_pod={report.pod: by_pod[report.pod] for report in reports},
        requests_by_router=dict(by_router),
        errors=sum(errors.values()),
        error_examples=[f"{count} times: {error}" for error, count in errors.most_common(5)],
    )
