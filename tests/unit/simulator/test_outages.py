"""Pods that fail or are rolled: what they have when they return, and what becomes of requests."""

from collections.abc import Callable, Sequence

import pytest

from lora_router.fleet.lora_spec import COMMAND_LINE, LoraSpec
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.least_request import LeastRequest
from lora_router.simulator.algorithms import make_algorithm
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.fleet_options import (
    FleetOptions,
    LoaderOptions,
    Outage,
    RouterEvent,
    RouterTrouble,
)
from lora_router.simulator.fleet_simulation import FleetRun, FleetSimulation
from lora_router.simulator.summary import summarise
from lora_router.simulator.trace import Arrival

ADAPTERS = ("adapter-000", "adapter-001", "adapter-002")
KINDS = pytest.mark.parametrize("sudden", [False, True])


def fleet_of(pods: int, *outages: Outage, told: bool = False) -> FleetOptions:
    return FleetOptions(
        (EngineOptions(max_loras=2),) * pods, ADAPTERS, outages=outages, host_memory_told=told
    )


def simulated(options: FleetOptions) -> FleetSimulation:
    return FleetSimulation(options, lambda rng: LeastRequest(AlgorithmOptions(rng=rng)), seed=1)


def play(
    options: FleetOptions,
    *trace: Arrival,
    looks: Sequence[tuple[float, Callable[[FleetSimulation], None]]] = (),
) -> FleetRun:
    simulation = simulated(options)
    for at, look in looks:
        simulation.call_at(at, lambda look=look: look(simulation))  # type: ignore[misc]
    return simulation.run(trace)


def base(at: float, output_tokens: int = 10) -> Arrival:
    return Arrival(at, "base", 100, output_tokens)


@KINDS
def test_a_pod_returns_with_nothing_in_host_memory(sudden: bool) -> None:
    found: list[set[str]] = []

    def look(simulation: FleetSimulation) -> None:
        found.append(set(simulation.pods[0].slots.host_memory))

    play(fleet_of(2, Outage(0, 10.0, 5.0, sudden)), base(30.0), looks=[(9.0, look), (20.0, look)])

    assert found == [{*ADAPTERS}, set()]


@KINDS
def test_routers_that_are_told_what_pods_start_with_are_told_that_it_is_empty(sudden: bool) -> None:
    options = fleet_of(2, Outage(0, 10.0, 5.0, sudden), told=True)
    assert options.spec_of(0) == LoraSpec(2, 64, COMMAND_LINE, ADAPTERS)
    assert options.spec_of(0, 1) == LoraSpec(2, 64, COMMAND_LINE)
    found: list[tuple[bool, bool]] = []

    def look(simulation: FleetSimulation) -> None:
        states = simulation.routers[0].fleet
        both = [states.get(pod.name) for pod in simulation.pods]
        found.append((*(each.beliefs.in_host_memory(ADAPTERS[0]) for each in both if each),))  # type: ignore[arg-type]

    play(options, base(30.0), looks=[(9.0, look), (20.0, look)])

    assert found == [(True, True), (False, True)]


def test_a_pod_that_returns_lists_only_what_is_loaded_on_it_again() -> None:
    options = FleetOptions(
        (EngineOptions(max_loras=2),) * 2,
        ADAPTERS,
        outages=(Outage(0, 10.0, 5.0, sudden=True),),
        loader=LoaderOptions(),
    )
    found: list[int] = []

    def look(simulation: FleetSimulation) -> None:
        fleet = simulation.routers[0].fleet
        served = [fleet.serving(name).pods for name in ADAPTERS]
        found.append(sum("pod-0" in {state.pod.name for state in pods} for pods in served))

    play(options, base(30.0), looks=[(9.0, look), (15.0 + 1e-6, look)])

    assert found == [3, 0]


def test_a_pod_that_drains_is_still_the_pod_that_it_was() -> None:
    found: list[tuple[str, bool]] = []

    def look(simulation: FleetSimulation) -> None:
        state = simulation.routers[0].fleet.get("pod-1")
        assert state is not None
        found.append((state.pod.uid, state.pod.ready))

    play(
        fleet_of(2, Outage(0, 5.0, 1.0), Outage(1, 10.0, 5.0)),
        base(30.0),
        looks=[(9.0, look), (12.0, look), (20.0, look)],
    )

    assert found == [("0", True), ("0", False), ("1", True)]


def test_a_request_that_is_lost_with_its_pod_has_waited_since_it_arrived() -> None:
    both = (Outage(0, 50.0, 5.0, sudden=True), Outage(1, 50.0, 5.0, sudden=True))
    run = play(fleet_of(3, *both), *(base(20.0 + each, output_tokens=2000) for each in range(3)))
    assert sorted(request.arrived for request in run.requests) == [20.0 + each for each in range(3)]
    found = summarise(run, 100.0)
    assert found.longest_wait > 25.0
    assert found.end_to_end["p99"] > 60.0


def test_the_busiest_pod_counts_with_those_that_it_replaced() -> None:
    run = play(
        fleet_of(2, Outage(0, 10.0, 5.0), Outage(0, 20.0, 5.0)),
        *(base(at) for at in (1.0, 2.0, 18.0, 19.0, 28.0, 29.0)),
    )

    assert len(run.pods) == 2
    assert sum(pod.routed for pod in run.pods) == 6
    assert summarise(run, 30.0).imbalance == max(pod.routed for pod in run.pods) / 3


@pytest.mark.slow
def test_a_request_that_is_held_twice_is_one_that_was_held() -> None:
    killed = tuple(
        RouterEvent(RouterTrouble.KILLED, number % 2, 5.0 + 2 * number, 1.0) for number in range(6)
    )
    engine = EngineOptions(max_loras=1)
    options = FleetOptions((engine,), ADAPTERS, routers=2, router_events=killed)
    simulation = FleetSimulation(
        options, lambda rng: make_algorithm("hold", AlgorithmOptions(rng=rng), engine), seed=1
    )
    trace = [Arrival(1.0 + number, name, 100, 1000) for number, name in enumerate(ADAPTERS)]
    run = simulation.run(trace)

    assert run.held == 2
    assert summarise(run, 10.0).held == pytest.approx(2 / 3)
