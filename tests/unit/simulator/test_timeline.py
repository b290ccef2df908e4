"""Samples of the slots of a simulated fleet."""

import random
from itertools import pairwise

import pytest

from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.fleet_options import FleetOptions
from lora_router.simulator.fleet_simulation import FleetRun, FleetSimulation
from lora_router.simulator.timeline import (
    FleetSample,
    PodSample,
    Slot,
    Timeline,
    pods_that_run,
    record_timeline,
)
from lora_router.simulator.trace import Workload, make_trace

WORKLOAD = Workload(12, zipf=1.0)
FLEET = FleetOptions((EngineOptions(max_loras=2),) * 3, WORKLOAD.adapter_names)
SECONDS = 60.0


def simulation(
    algorithm: type[LeastRequest | LoraPlacement] = LeastRequest, fleet: FleetOptions = FLEET
) -> FleetSimulation:
    def make(rng: random.Random) -> LeastRequest | LoraPlacement:
        return algorithm(AlgorithmOptions(rng=rng))

    return FleetSimulation(fleet, make, seed=3)


def play(simulation: FleetSimulation) -> FleetRun:
    return simulation.run(make_trace(WORKLOAD, rate=3.0, seconds=SECONDS, seed=3))


def recorded(algorithm: type[LeastRequest | LoraPlacement] = LeastRequest) -> Timeline:
    simulated = simulation(algorithm)
    timeline = record_timeline(simulated, SECONDS)
    play(simulated)
    return timeline


@pytest.mark.slow
def test_samples_are_spread_evenly_over_the_time() -> None:
    timeline = recorded()

    assert len(timeline.samples) == 600
    assert [sample.time for sample in timeline.samples[:3]] == [0.0, 0.1, 0.2]
    assert all(len(pod.slots) == 2 for sample in timeline.samples for pod in sample.pods)


@pytest.mark.slow
def test_an_adapter_keeps_its_place_while_it_is_loaded() -> None:
    def places(pod: PodSample) -> dict[str, int]:
        return {slot.adapter: place for place, slot in enumerate(pod.slots) if slot is not None}

    samples, stayed, moved = recorded().samples, 0, 0
    for earlier, later in pairwise(samples):
        for before, after in zip(earlier.pods, later.pods, strict=True):
            was, is_now = places(before), places(after)
            stayed += sum(was[name] == is_now[name] for name in was.keys() & is_now.keys())
            moved += sum(was[name] != is_now[name] for name in was.keys() & is_now.keys())
    assert (stayed > 1000, moved) == (True, 0)


@pytest.mark.slow
def test_waiting_on_pods_and_in_the_router_are_counted_apart() -> None:
    scattering, placing = recorded(LeastRequest), recorded(LoraPlacement)

    assert max(sample.deferred for sample in scattering.samples) > 0
    assert max(sample.held for sample in scattering.samples) == 0
    assert max(sample.held for sample in placing.samples) > 0
    busiest = max(scattering.samples, key=lambda sample: sample.deferred)
    assert sum(pod.deferred for pod in busiest.pods) == busiest.deferred


@pytest.mark.slow
def test_recording_does_not_change_the_simulation() -> None:
    watched, alone = simulation(), simulation()
    record_timeline(watched, SECONDS)

    first, second = play(watched), play(alone)
    assert [r.first_token for r in first.requests] == [r.first_token for r in second.requests]
    assert first.pods == second.pods


@pytest.mark.slow
def test_of_a_large_fleet_the_first_pods_are_drawn_and_all_that_wait_are_counted() -> None:
    engines = (EngineOptions(max_loras=64, max_cpu_loras=64),) * 5
    large = simulation(fleet=FleetOptions(engines, WORKLOAD.adapter_names))
    timeline = record_timeline(large, SECONDS)
    play(large)

    assert timeline.pods == 5
    assert len(timeline.samples[0].pods) == 2


def test_pods_that_run_an_adapter_are_averaged_over_the_time_it_runs() -> None:
    runs = PodSample((Slot("sql", in_use=True), None), 0)
    idle = PodSample((None, Slot("sql", in_use=False)), 0)
    samples = [
        FleetSample(0.0, (runs, runs), 0, 0),
        FleetSample(1.0, (idle, runs), 0, 0),
        FleetSample(2.0, (idle, idle), 0, 0),
    ]

    assert pods_that_run("sql", samples) == 1.5
    assert pods_that_run("chat", samples) == 0.0
