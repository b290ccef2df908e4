"""Whole fleets in simulated time, with the algorithms that serve."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from lora_router.routing.algorithm import AlgorithmOptions, Hold, InferenceRequest, Pick
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.lora_affinity import LoraAffinity
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.engine import EngineOptions
from lora_router.simulator.fleet_simulation import (
    FleetOptions,
    FleetRun,
    FleetSimulation,
    Outage,
)
from lora_router.simulator.knowledge import (
    NOTHING,
    SCRAPES,
    Knowledge,
    KnowledgeError,
    read_knowledge,
)
from lora_router.simulator.scenario import ScenarioError, read_scenario
from lora_router.simulator.summary import Summary, median_of, percentile, summarise
from lora_router.simulator.trace import Workload, make_trace

SCENARIOS = Path(__file__).parents[3] / "bench" / "scenarios"
WORKLOAD = Workload(12, zipf=1.0, base_share=0.1)
FLEET = FleetOptions((EngineOptions(max_loras=2),) * 4, WORKLOAD.adapter_names)


def affinity(rng: random.Random) -> LoraAffinity:
    return LoraAffinity(AlgorithmOptions(rng=rng))


def least_request(rng: random.Random) -> LeastRequest:
    return LeastRequest(AlgorithmOptions(rng=rng))


def play(
    fleet: FleetOptions = FLEET,
    make: object = affinity,
    *,
    rate: float = 8.0,
    seconds: float = 60.0,
) -> tuple[FleetSimulation, FleetRun]:
    simulation = FleetSimulation(fleet, make, seed=3)  # type: ignore[arg-type]
    trace = make_trace(WORKLOAD, rate=rate, seconds=seconds, seed=3)
    return simulation, simulation.run(trace)


def total(seconds: float = 60.0, rate: float = 8.0) -> int:
    return len(list(make_trace(WORKLOAD, rate=rate, seconds=seconds, seed=3)))


def test_every_request_ends_and_nothing_stays_counted() -> None:
    simulation, run = play()

    assert len(run.requests) == total()
    assert all(request.arrived < request.first_token <= request.ended for request in run.requests)
    assert [router.fleet.ledger.total for router in simulation._routers] == [0]


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = play()[1], play()[1]
    assert [r.first_token for r in first.requests] == [r.first_token for r in second.requests]


def test_affinity_loads_less_and_waits_less_than_counting_requests() -> None:
    counting = summarise(play(make=least_request)[1], 60.0)
    knowing = summarise(play()[1], 60.0)

    assert knowing.loads < counting.loads
    assert knowing.slot_waits < counting.slot_waits


@pytest.mark.parametrize("sudden", [False, True])
def test_a_pod_that_goes_loses_no_request(sudden: bool) -> None:
    fleet = replace(FLEET, outages=(Outage(1, at=20.0, lasts=15.0, sudden=sudden),))
    simulation, run = play(fleet)

    assert len(run.requests) == total()
    assert simulation._routers[0].fleet.ledger.total == 0
    states = {state.pod.name: state.pod for state in simulation._routers[0].fleet}
    assert states["pod-1"].ready
    assert states["pod-1"].uid == "1"


def test_several_routers_share_the_requests() -> None:
    simulation, run = play(replace(FLEET, routers=3))
    assert len(run.requests) == total()
    assert [router.fleet.ledger.total for router in simulation._routers] == [0, 0, 0]


class OneAtATime:
    """Holds whatever would be a pod's second request."""

    name = "one-at-a-time"

    def pick(self, request: InferenceRequest, candidates: object, now: float) -> Pick | Hold:
        idle = [pod for pod in candidates if not pod.in_flight]  # type: ignore[attr-defined]
        if idle:
            return Pick(idle[0], "idle")
        return Hold("busy", 600.0)


def test_held_requests_are_bound_when_a_pod_is_free() -> None:
    _, run = play(make=lambda _rng: OneAtATime(), rate=4.0, seconds=20.0)

    assert run.held > 0
    assert run.refused == 0
    assert len(run.requests) == total(20.0, 4.0)
    assert max(pod.deferred for pod in run.pods) == 0


def test_percentiles_are_values_that_were_seen() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.99) == 4.0


def test_medians_are_figure_by_figure() -> None:
    summary = summarise(play()[1], 60.0)
    better = replace(summary, loads=0.0)
    assert median_of([summary, better, better]).loads == 0.0
    assert median_of([summary]) == summary


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_scenario_of_the_bench_can_be_played(path: Path) -> None:
    scenario = read_scenario(path)
    fleet = scenario.fleet(10.0)
    trace = list(make_trace(scenario.workload, rate=scenario.rate, seconds=10.0, seed=1))
    run = FleetSimulation(fleet, affinity, seed=1).run(trace)
    assert len(run.requests) == len(trace)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("podz: 3", "podz: Extra inputs are not permitted"),
        ("pods: 0", "pods: Input should be greater than or equal to 1"),
        ("rate: often", "rate: Input should be a valid number"),
        ("output_tokens: [9, 3]", "output_tokens: the first must not be above the second"),
        ("outages: [{pod: 99, at: 0.1, lasts: 0.1}]", "there is no pod 99"),
        ("max_cpu_loras: 1", "max_cpu_loras must be at least as many"),
        ("[", "is not YAML"),
    ],
)
def test_a_wrong_scenario_is_named_with_its_key(
    tmp_path: Path, change: str, complaint: str
) -> None:
    file = tmp_path / "scenario.yaml"
    key = change.partition(":")[0]
    good = {"about": "x", "pods": "2", "slots": "[2]", "adapters": "4", "rate": "1"}
    good.pop(key, None)
    file.write_text("\n".join([*(f"{k}: {v}" for k, v in good.items()), change]))
    with pytest.raises(ScenarioError) as error:
        read_scenario(file)
    assert str(file) in str(error.value)
    assert complaint in str(error.value)
    with pytest.raises(ScenarioError, match="cannot be read"):
        read_scenario(tmp_path / "missing.yaml")


class TestSeveralRouters:
    def played(self, routers: int, knowledge: Knowledge, seed: int = 3) -> Summary:
        scenario = read_scenario(SCENARIOS / "b-zipf.yaml")
        fleet = replace(scenario.fleet(90.0, routers), knowledge=knowledge)
        trace = make_trace(scenario.workload, rate=16.0, seconds=90.0, seed=seed)
        simulation = FleetSimulation(
            fleet, lambda rng: LoraPlacement(AlgorithmOptions(rng=rng)), seed
        )
        return summarise(simulation.run(trace), 90.0)

    def test_the_more_they_know_of_each_other_the_fewer_wait_on_pods(self) -> None:
        nothing = self.played(2, NOTHING)
        scrapes = self.played(2, SCRAPES)
        exchange = self.played(2, Knowledge(exchange_seconds=0.1))
        assert nothing.slot_waits > scrapes.slot_waits > exchange.slot_waits
        assert nothing.ttft["p99"] > 2 * exchange.ttft["p99"]

    def test_one_router_has_nobody_to_hear_from(self) -> None:
        assert self.played(1, Knowledge(exchange_seconds=0.1)) == self.played(1, SCRAPES)


@pytest.mark.parametrize("text", ["", "all", "0", "-1", "61", "nan"])
def test_knowledge_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(KnowledgeError, match=f"^peers={text}: must be nothing, scrapes, or"):
        read_knowledge(text)


def test_knowledge_is_read_and_shown() -> None:
    assert (read_knowledge("nothing"), read_knowledge("scrapes")) == (NOTHING, SCRAPES)
    assert str(read_knowledge("0.1")) == "0.1 s"
    assert [str(each) for each in (NOTHING, SCRAPES)] == ["nothing", "scrapes"]
