import random
from dataclasses import replace

import pytest

from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.fleet_options import FleetOptions, LoaderOptions, Outage
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.trace import Workload, make_trace

ADAPTERS = tuple(f"adapter-{number:03}" for number in range(8))
FLEET = FleetOptions(
    (EngineOptions(max_loras=2, max_cpu_loras=4),) * 4,
    ADAPTERS,
    preloaded=(),
    loader=LoaderOptions(before_seconds=30.0),
)


def _simulation(fleet: FleetOptions) -> FleetSimulation:
    return FleetSimulation(
        fleet, lambda rng: LoraPlacement(AlgorithmOptions(rng=random.Random(rng.random()))), 1
    )


def test_adapters_are_in_host_memory_before_the_first_request() -> None:
    simulation = _simulation(FLEET)
    run = simulation.run(make_trace(Workload(adapters=8), rate=3.0, seconds=10.0, seed=1))
    assert all(len(pod.slots.host_memory) == 4 for pod in simulation.pods)
    assert max(each.first_token - each.arrived for each in run.requests) < 1.5


@pytest.mark.parametrize("routers", [1, 2])
def test_requests_wait_for_adapters_that_are_nowhere_and_all_are_served(routers: int) -> None:
    cold = replace(FLEET, loader=LoaderOptions(), routers=routers)
    trace = list(make_trace(Workload(adapters=8), rate=3.0, seconds=5.0, seed=1))
    run = _simulation(cold).run(trace)
    assert (run.refused, len(run.requests)) == (0, len(trace))


def test_a_pod_that_was_started_again_is_loaded_again() -> None:
    outage = Outage(pod=0, at=2.0, lasts=2.0, sudden=True)
    simulation = _simulation(replace(FLEET, outages=(outage,)))
    run = simulation.run(make_trace(Workload(adapters=8), rate=2.0, seconds=20.0, seed=1))
    assert run.refused == 0
    assert simulation.pods[0].slots.host_memory
