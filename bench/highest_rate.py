"""The highest rate of requests that an algorithm can handle, by bisection in simulated time."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from lora_router.routing.algorithm import Algorithm, AlgorithmOptions
from lora_router.simulator.algorithms import make_algorithm
from lora_router.simulator.fleet_options import FleetOptions
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.scenario import Scenario
from lora_router.simulator.simulated_request import SimulatedRequest
from lora_router.simulator.summary import WARM_UP, Summary, summarise
from lora_router.simulator.trace import Arrival, make_trace

SECONDS = 300.0
"""Length of a trace."""
LIMIT_SECONDS = 5.0
"""Limit for the p99 of the time to first token."""
_CLOSE_ENOUGH = 1.02
_LOWEST = 0.05


def with_loads(scenario: Scenario, *, block: bool) -> Scenario:
    """Return the scenario with loads that stall the batch, or with loads that do not."""
    return replace(scenario, keys=replace(scenario.keys, loads_block=block))


def trace_of(scenario: Scenario, rate: float, seed: int) -> list[Arrival]:
    """Return the requests of one run."""
    return list(make_trace(scenario.workload, rate=rate, seconds=SECONDS, seed=seed))


def play(scenario: Scenario, algorithm: str, rate: float, seed: int) -> Summary:
    """Return the figures of one run."""
    fleet = scenario.fleet(SECONDS)
    simulation = FleetSimulation(fleet, maker(algorithm, fleet), seed)
    return summarise(simulation.run(trace_of(scenario, rate, seed)), SECONDS)


def highest_rate(scenario: Scenario, algorithm: str, seeds: Sequence[int]) -> float:
    """Return the highest rate at which the p99 is within the limit for most of the seeds.

    In requests per second, within 2 %. 0: no rate.
    """

    def carried(rate: float) -> bool:
        needed = len(seeds) // 2 + 1
        kept = missed = 0
        for seed in seeds:
            if _keeps_the_limit(scenario, algorithm, rate, seed):
                kept += 1
            else:
                missed += 1
            if needed in {kept, missed}:
                break
        return kept >= needed

    lower, upper = 0.0, scenario.rate
    while carried(upper):
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


def _keeps_the_limit(scenario: Scenario, algorithm: str, rate: float, seed: int) -> bool:
    """Return whether the p99 is within the limit. The run stops when that is certain."""
    trace = trace_of(scenario, rate, seed)
    since = WARM_UP * SECONDS
    may_be_late = 0.01 * sum(arrival.at >= since for arrival in trace)
    late = 0

    def too_many(request: SimulatedRequest) -> bool:
        nonlocal late
        late += request.arrived >= since and request.first_token - request.arrived > LIMIT_SECONDS
        return late > may_be_late

    fleet = scenario.fleet(SECONDS)
    simulation = FleetSimulation(fleet, maker(algorithm, fleet), seed)
    simulation.run(trace, stop_when=too_many)
    return late <= may_be_late


def maker(name: str, fleet: FleetOptions) -> Callable[[random.Random], Algorithm]:
    """Return a factory of an algorithm, for a fleet on which it is simulated."""
    return lambda rng: make_algorithm(name, AlgorithmOptions(rng=rng), fleet.engine(0))
