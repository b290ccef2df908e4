"""The highest rate of requests that an algorithm can handle, by bisection in simulated time."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lora_router.routing.algorithm import Algorithm, AlgorithmOptions
from lora_router.simulator.algorithms import make_algorithm
from lora_router.simulator.fleet_options import FleetOptions
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.goodput import Goodput
from lora_router.simulator.scenario import Scenario
from lora_router.simulator.simulated_request import SimulatedRequest
from lora_router.simulator.summary import WARM_UP
from lora_router.simulator.trace import Arrival, make_trace
from lora_router.simulator.traffic import GeneratedTraffic, Traffic

SECONDS = 300.0
"""Length of a trace."""
LIMIT_SECONDS = 5.0
"""Limit for the p99 of the time to first token."""
_CLOSE_ENOUGH = 1.02
_LOWEST, _HIGHEST = 0.05, 1e6


@dataclass(frozen=True, slots=True)
class Limit:
    """When a rate is carried: few enough requests miss a limit."""

    about: str
    may_miss: float
    """Share of the requests that may miss it."""
    goodput: bool
    """Whether the limits are those of the scenario's ``goodput``. Otherwise the time to first token
    is limited to ``LIMIT_SECONDS``."""

    def missed(self, request: SimulatedRequest, goodput: Goodput) -> bool:
        """Return whether a request that ended missed the limit."""
        if self.goodput:
            return not goodput.is_good(request)
        return request.first_token - request.arrived > LIMIT_SECONDS


LIMITS = {
    "p99": Limit(f"p99 of the time to first token: {LIMIT_SECONDS:g} s", 0.01, goodput=False),
    "good": Limit("95 % of the requests are good", 0.05, goodput=True),
}


def with_loads(scenario: Scenario, *, block: bool) -> Scenario:
    """Return the scenario with loads that stall the batch, or with loads that do not."""
    return replace(scenario, keys=replace(scenario.keys, loads_block=block))


def trace_of(scenario: Scenario, rate: float, seed: int) -> list[Arrival]:
    """Return the requests of one run."""
    return list(make_trace(scenario.workload, rate=rate, seconds=SECONDS, seed=seed))


def highest_rate(
    scenario: Scenario,
    algorithm: str,
    seeds: Sequence[int],
    limit: str = "p99",
    traffic: Callable[[float], Traffic] | None = None,
) -> float:
    """Return the highest rate that is carried with most of the seeds.

    Args:
        scenario: The scenario.
        algorithm: The algorithm.
        seeds: Seeds of the traces.
        limit: One of ``LIMITS``.
        traffic: Returns the requests at a rate. ``None``: those of the scenario.

    Returns:
        Requests per second, within 2 %. 0: no rate is carried.
    """

    def generated(rate: float) -> Traffic:
        return GeneratedTraffic(scenario.workload, rate, SECONDS)

    traffic_at = generated if traffic is None else traffic

    def carried(rate: float) -> bool:
        needed = len(seeds) // 2 + 1
        kept = missed = 0
        for seed in seeds:
            if _keeps_the_limit(scenario, algorithm, traffic_at(rate), seed, LIMITS[limit]):
                kept += 1
            else:
                missed += 1
            if needed in {kept, missed}:
                break
        return kept >= needed

    lower, upper = 0.0, scenario.rate
    # A few recorded requests are carried at any rate.
    while upper <= _HIGHEST and carried(upper):
        lower, upper = upper, upper * 1.5
    while lower == 0.0:
        rate = upper / 1.5
        if rate < _LOWEST:
            return 0.0
        if carried(rate):
            lower = rate
        else:
            upper = rate
    while upper / lower > _CLOSE_ENOUGH:
        middle = (lower * upper) ** 0.5
        if carried(middle):
            lower = middle
        else:
            upper = middle
    return lower


def _keeps_the_limit(
    scenario: Scenario, algorithm: str, traffic: Traffic, seed: int, limit: Limit
) -> bool:
    """Return whether the limit is kept. The run stops when it certainly is not."""
    trace = list(traffic.requests(seed))
    since = WARM_UP * traffic.seconds
    may_miss = limit.may_miss * sum(arrival.at >= since for arrival in trace)
    goodput = scenario.goodput
    missed = 0

    def too_many(request: SimulatedRequest) -> bool:
        nonlocal missed
        missed += request.arrived >= since and limit.missed(request, goodput)
        return missed > may_miss

    fleet = scenario.fleet(traffic.seconds, adapters=traffic.adapters)
    simulation = FleetSimulation(fleet, maker(algorithm, fleet), seed)
    run = simulation.run(trace, stop_when=too_many)
    missed += sum(request.arrived >= since for request in run.turned_away)
    return missed <= may_miss


def maker(name: str, fleet: FleetOptions) -> Callable[[random.Random], Algorithm]:
    """Return a factory of an algorithm for a fleet whose pods are all as its first one."""
    return lambda rng: make_algorithm(name, AlgorithmOptions(rng=rng), fleet.engine(0))
