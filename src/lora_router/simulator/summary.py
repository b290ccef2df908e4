"""The figures of a simulated run."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lora_router.simulator.fleet_simulation import FleetRun
from lora_router.simulator.fleet_table import FleetRow, fleet_rows, median_rows
from lora_router.simulator.goodput import Goodput, seconds_per_token
from lora_router.simulator.no_value import NO_VALUE, median, ratio
from lora_router.simulator.percentile import percentile
from lora_router.simulator.simulated_request import SimulatedRequest

WARM_UP = 0.15
"""Share of the trace, from its start, whose requests are not counted."""
_LIMITS = Goodput()
FEWEST = 20
"""Requests after the warm-up that an adapter must have for its own p99 to count."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one algorithm on one trace. Times in seconds. Some may have no value."""

    requests: int
    """Requests that were served."""
    refused: int
    ttft: dict[str, float]
    """p50, p95 and p99 of the time to first token of those that were served."""
    end_to_end: dict[str, float]
    """The same of the time to the last token."""
    tpot: dict[str, float]
    """The same of the time per output token after the first one."""
    good: float
    """Share of the requests that met the limits. A refused request did not."""
    refused_share: float
    longest_wait: float
    """The longest time to a first token, or until a refusal, in the whole run."""
    prefix_hits: float
    """Share of the prompt tokens that a pod had in its prefix cache."""
    slot_waits: float
    """Share of the requests that waited on a pod for an adapter slot."""
    idle_slot_waits: int
    """Number of those (in the whole run) that were sent there while another pod had a free slot."""
    held: float
    """Share of the requests that were held in the router. As for ``slot_waits``, of those that were
    served."""
    loads: float
    """Adapter loads per 1,000 requests."""
    evictions: float
    imbalance: float
    """Requests of the busiest pod, divided by the average. A pod that returns is the same pod."""
    worst_adapter_p99: float
    """The largest p99 time to first token among the adapters with 20 requests or more."""
    median_adapter_p99: float
    """The median of the same p99s."""
    moved: float
    """Share of the adapters whose busiest pod in the second half differs from that in the first."""
    fleet: tuple[FleetRow, ...] = ()
    """How an autoscaler changed the fleet over time. Empty if the number of pods is fixed."""


def summarise(run: FleetRun, seconds: float, limits: Goodput = _LIMITS) -> Summary:
    """Return the figures of a run.

    Args:
        run: The run.
        seconds: Length of its trace.
        limits: What a good request is.
    """
    since = WARM_UP * seconds
    counted = [request for request in run.requests if request.arrived >= since]
    refused = sum(request.arrived >= since for request in run.turned_away)
    ttft = sorted(request.first_token - request.arrived for request in counted)
    by_adapter: dict[str, list[float]] = defaultdict(list)
    for request in counted:
        if request.adapter is not None:
            by_adapter[request.adapter].append(request.first_token - request.arrived)
    total = len(run.requests)
    asked = len(counted) + refused
    routed = [pod.routed for pod in run.pods]
    adapters_p99 = sorted(
        percentile(sorted(times), 0.99) for times in by_adapter.values() if len(times) >= FEWEST
    )
    return Summary(
        requests=len(run.requests),
        refused=run.refused,
        ttft=_three(ttft),
        end_to_end=_three(sorted(request.ended - request.arrived for request in counted)),
        tpot=_three(sorted(map(seconds_per_token, counted))),
        good=ratio(sum(map(limits.is_good, counted)), asked),
        refused_share=ratio(refused, asked),
        longest_wait=max(
            (
                *(request.first_token - request.arrived for request in run.requests),
                *(request.ended - request.arrived for request in run.turned_away),
            ),
            default=NO_VALUE,
        ),
        prefix_hits=ratio(
            sum(request.cached_tokens for request in counted),
            sum(request.prompt_tokens for request in counted),
        ),
        slot_waits=ratio(sum(request.deferred for request in run.requests), total),
        idle_slot_waits=run.idle_slot_waits,
        held=ratio(run.held, total),
        loads=ratio(1000 * sum(pod.loads for pod in run.pods), total),
        evictions=ratio(1000 * sum(pod.evictions for pod in run.pods), total),
        imbalance=ratio(max(routed) * len(routed), sum(routed)),
        worst_adapter_p99=max(adapters_p99, default=NO_VALUE),
        median_adapter_p99=percentile(adapters_p99, 0.5),
        moved=_moved(run.requests, seconds / 2),
        fleet=fleet_rows(run, seconds),
    )


def median_of(summaries: Iterable[Summary]) -> Summary:
    """Return the median of each figure over runs with several seeds."""
    all_of_them = list(summaries)
    found: dict[str, Any] = {}
    for each in fields(Summary):
        values = [getattr(summary, each.name) for summary in all_of_them]
        if each.name == "fleet":
            found[each.name] = median_rows(values)
        elif each.type is int:
            found[each.name] = int(statistics.median(values))
        elif each.type is float:
            found[each.name] = median(values)
        else:
            found[each.name] = {key: median(value[key] for value in values) for key in values[0]}
    return Summary(**found)


def _moved(requests: Iterable[SimulatedRequest], middle: float) -> float:
    """Return the share of adapters (those in both halves) whose busiest pod changed."""
    halves: tuple[dict[str, Counter[str]], ...] = (defaultdict(Counter), defaultdict(Counter))
    for request in requests:
        if request.adapter is not None:
            halves[request.arrived >= middle][request.adapter][request.pod] += 1
    before, after = halves
    both = before.keys() & after.keys()
    moved = sum(
        before[adapter].most_common(1)[0][0] != after[adapter].most_common(1)[0][0]
        for adapter in both
    )
    return ratio(moved, len(both))


def _three(ordered: Sequence[float]) -> dict[str, float]:
    return {f"p{share}": percentile(ordered, share / 100) for share in (50, 95, 99)}
