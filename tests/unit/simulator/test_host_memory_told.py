"""Routers that know from the specifications of pods how many adapters their host memory holds."""

import random
from pathlib import Path

import pytest

from lora_router.fleet.adapter_beliefs import IN_SLOT
from lora_router.fleet.lora_spec import COMMAND_LINE, UNLIMITED, LoraSpec
from lora_router.routing.algorithm import Algorithm, AlgorithmOptions
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.fleet_options import FleetOptions
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.scenario import Scenario, read_scenario
from lora_router.simulator.trace import make_trace


def placement(rng: random.Random) -> Algorithm:
    return LoraPlacement(AlgorithmOptions(rng=rng))


def scenario(tmp_path: Path, *keys: str) -> Scenario:
    lines = (
        "about: a test",
        "pods: 3",
        "slots: [2]",
        "adapters: 24",
        "rate: 6",
        "max_cpu_loras: 5",
        *keys,
    )
    path = tmp_path / "scenario.yaml"
    path.write_text("\n".join(lines))
    return read_scenario(path)


def fleet(tmp_path: Path, *keys: str) -> FleetOptions:
    return scenario(tmp_path, *keys).fleet(60.0)


def test_pods_tell_what_their_command_line_would(tmp_path: Path) -> None:
    told = fleet(tmp_path, "host_memory_told: true", "preload: 2")
    names = ("adapter-000", "adapter-001")
    assert told.spec_of(0) == LoraSpec(2, 5, COMMAND_LINE, names)
    # A pod that starts later is empty.
    assert told.spec_of(3) == LoraSpec(2, 5, COMMAND_LINE)

    assert fleet(tmp_path).spec_of(0) == LoraSpec(host_memory=UNLIMITED)


@pytest.mark.slow
@pytest.mark.parametrize("preload", ["all", "none"])
def test_what_a_router_believes_is_what_the_pods_have(tmp_path: Path, preload: str) -> None:
    keys = ("host_memory_told: true", f"preload: {preload}", "disk_load_ms: 300")
    made = scenario(tmp_path, *keys)
    options = made.fleet(60.0)
    simulation = FleetSimulation(options, placement, seed=1)
    looks = 0

    def look() -> None:
        nonlocal looks
        [router] = simulation.routers
        for pod in simulation.pods:
            state = router.fleet.get(pod.name)
            # The pod takes what was sent with its next step.
            if state is None or pod.waiting:
                continue
            looks += 1
            places = {name: state.beliefs.where(name) for name in options.adapters}
            assert {name for name, place in places.items() if place == IN_SLOT} == set(
                pod.slots.resident
            )
            in_memory = {name for name in places if state.beliefs.in_host_memory(name)}
            assert in_memory == set(pod.slots.host_memory)

    for tick in range(1, 120):
        simulation.call_at(tick / 2 + 0.001, look)
    run = simulation.run(make_trace(made.workload, rate=made.rate, seconds=60.0, seed=1))

    assert looks > 100
    assert sum(pod.evictions for pod in run.pods) > 20
