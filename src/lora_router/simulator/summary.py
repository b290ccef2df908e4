"""The figures of a simulated run."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lora_router.simulator.fleet_simulation import FleetRun
from lora_router.simulator.fleet_table import FleetRow, fleet_rows, median_rows
from lora_router.simulator.percentile import percentile
from lora_router.simulator.simulated_request import SimulatedRequest

WARM_UP = 0.15
"""Share of the trace, from its start, whose requests are not counted."""
TTFT_LIMIT_SECONDS = 2.0
"""Longest time to first token of a good request."""
_FEWEST = 20
"""Requests that an adapter must have for its own p99 to count."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one algorithm on one trace. Times in seconds."""

    requests: int
    refused: int
    ttft: dict[str, float]
    """p50, p95 and p99 of the time to first token."""
    end_to_end: dict[str, float]
    good: float
    """Share of the requests whose first token came within the limit."""
    slot_waits: float
    """Share of the requests that waited on a pod for an adapter slot."""
    idle_slot_waits: int
    """Number of those (in the whole run) that were sent there while another pod had a free slot."""
    held: float
    """Share of the requests that were held in the router."""
    loads: float
    """Adapter loads per 1,000 requests."""
    evictions: float
    imbalance: float
    """Requests of the busiest pod, divided by the average."""
    worst_adapter_p99: float
    """The largest p99 time to first token among the adapters with 20 requests or more."""
    median_adapter_p99: float
    """The median of the same p99s."""
    moved: float
    """Share of the adapters whose busiest pod in the second half differs from that in the first."""
    fleet: tuple[FleetRow, ...] = ()
    """How an autoscaler changed the fleet over time. Empty if the number of pods is fixed."""


def summarise(run: FleetRun, seconds: float) -> Summary:
    """Return the figures of a run.

    Args:
        run: The run.
        seconds: Length of its trace.
    """
    counted = [request for request in run.requests if request.arrived >= WARM_UP * seconds]
    ttft = sorted(request.first_token - request.arrived for request in counted)
    by_adapter: dict[str, list[float]] = defaultdict(list)
    for request in counted:
        if request.adapter is not None:
            by_adapter[request.adapter].append(request.first_token - request.arrived)
    total = len(run.requests) or 1
    routed = [pod.routed for pod in run.pods]
    adapters_p99 = sorted(
        percentile(sorted(times), 0.99) for times in by_adapter.values() if len(times) >= _FEWEST
    )
    return Summary(
        requests=len(run.requests),
        refused=run.refused,
        ttft=_three(ttft),
        end_to_end=_three(sorted(request.ended - request.arrived for request in counted)),
        good=sum(time <= TTFT_LIMIT_SECONDS for time in ttft) / (len(ttft) or 1),
        slot_waits=sum(request.deferred for request in run.requests) / total,
        idle_slot_waits=run.idle_slot_waits,
        held=run.held / total,
        loads=1000 * sum(pod.loads for pod in run.pods) / total,
        evictions=1000 * sum(pod.evictions for pod in run.pods) / total,
        imbalance=max(routed) * len(routed) / (sum(routed) or 1),
        worst_adapter_p99=max(adapters_p99, default=0.0),
        median_adapter_p99=percentile(adapters_p99, 0.5),
        moved=_moved(run.requests, seconds / 2),
        fleet=fleet_rows(run, seconds),
    )


def median_of(summaries: Iterable[Summary]) -> Summary:
    """Return the median of each figure over runs with several seeds."""
    all_of_them = list(summaries)

    def median(name: str) -> float:
        return float(statistics.median(getattr(each, name) for each in all_of_them))

    def medians(name: str) -> dict[str, float]:
        keys = getattr(all_of_them[0], name)
        return {
            key: statistics.median(getattr(each, name)[key] for each in all_of_them) for key in keys
        }

    return Summary(
        requests=int(median("requests")),
        refused=int(median("refused")),
        ttft=medians("ttft"),
        end_to_end=medians("end_to_end"),
        good=median("good"),
        slot_waits=median("slot_waits"),
        idle_slot_waits=int(median("idle_slot_waits")),
        held=median("held"),
        loads=median("loads"),
        evictions=median("evictions"),
        imbalance=median("imbalance"),
        worst_adapter_p99=median("worst_adapter_p99"),
        median_adapter_p99=median("median_adapter_p99"),
        moved=median("moved"),
        fleet=median_rows([each.fleet for each in all_of_them]),
    )


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
    return moved / (len(both) or 1)


def _three(ordered: Sequence[float]) -> dict[str, float]:
    return {f"p{share}": percentile(ordered, share / 100) for share in (50, 95, 99)}
