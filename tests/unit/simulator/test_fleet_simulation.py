"""Fleets in simulated time, with the algorithms that serve."""

import random
from collections.abc import Iterable
from dataclasses import replace
from itertools import count

import pytest

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, Hold, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.lora_affinity import LoraAffinity
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.fleet_options import FleetOptions, Outage
from lora_router.simulator.fleet_simulation import FleetRun, FleetSimulation
from lora_router.simulator.knowledge import (
    NOTHING,
    PEERING,
    SCRAPES,
    Knowledge,
    KnowledgeError,
    read_knowledge,
)
from lora_router.simulator.no_value import NO_VALUE
from lora_router.simulator.percentile import percentile
from lora_router.simulator.scenario import shipped_scenario
from lora_router.simulator.summary import Summary, median_of, summarise
from lora_router.simulator.trace import Workload, make_trace
from tests.parameters import mostly_slow

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


@pytest.mark.slow
def test_every_request_ends_and_the_ledger_is_empty_afterwards() -> None:
    simulation, run = play()

    assert len(run.requests) == total()
    assert all(request.arrived < request.first_token <= request.ended for request in run.requests)
    assert [router.fleet.ledger.total for router in simulation.routers] == [0]


def test_the_requests_of_strangers_end_too_and_no_router_is_asked() -> None:
    class Unasked(LeastRequest):
        def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick:
            raise AssertionError(request)

    _, run = play(
        replace(FLEET, strangers=1.0), lambda rng: Unasked(AlgorithmOptions(rng=rng)), seconds=5.0
    )

    assert len(run.requests) == total(5.0)
    assert len({request.pod for request in run.requests}) > 1


def test_a_scrape_that_fails_tells_the_router_nothing() -> None:
    simulation, _ = play(replace(FLEET, lost_scrapes=1.0), seconds=2.0)

    assert [state.metrics for state in simulation.routers[0].fleet] == [None] * 4


@pytest.mark.slow
@pytest.mark.parametrize("outages", [(), (Outage(1, at=20.0, lasts=15.0, sudden=True),)])
def test_the_same_seed_gives_the_same_run(outages: tuple[Outage, ...]) -> None:
    fleet = replace(FLEET, outages=outages)
    first, second = play(fleet)[1], play(fleet)[1]
    assert [r.first_token for r in first.requests] == [r.first_token for r in second.requests]


@pytest.mark.slow
def test_affinity_loads_less_and_waits_less_than_counting_requests() -> None:
    counting = summarise(play(make=least_request)[1], 60.0)
    knowing = summarise(play()[1], 60.0)

    assert knowing.loads < counting.loads
    assert knowing.slot_waits < counting.slot_waits


@pytest.mark.parametrize("sudden", mostly_slow([False, True]))
def test_no_request_is_lost_with_a_pod(sudden: bool) -> None:
    fleet = replace(FLEET, outages=(Outage(1, at=20.0, lasts=15.0, sudden=sudden),))
    simulation, run = play(fleet)

    assert len(run.requests) == total()
    assert simulation.routers[0].fleet.ledger.total == 0
    states = {state.pod.name: state.pod for state in simulation.routers[0].fleet}
    assert states["pod-1"].ready
    assert states["pod-1"].uid == "1"


@pytest.mark.slow
def test_several_routers_share_the_requests() -> None:
    simulation, run = play(replace(FLEET, routers=3))
    assert len(run.requests) == total()
    assert [router.fleet.ledger.total for router in simulation.routers] == [0, 0, 0]


class OneAtATime:
    """Holds a request that would be the second one on a pod."""

    name = "one-at-a-time"

    def pick(self, request: InferenceRequest, candidates: object, now: float) -> Pick | Hold:
        idle = [pod for pod in candidates if not pod.in_flight]  # type: ignore[attr-defined]
        if idle:
            return Pick(idle[0], "idle")
        return Hold("busy", 600.0)


@pytest.mark.slow
def test_held_requests_are_routed_when_a_pod_is_free() -> None:
    _, run = play(make=lambda _rng: OneAtATime(), rate=4.0, seconds=20.0)

    assert run.held > 0
    assert run.refused == 0
    assert len(run.requests) == total(20.0, 4.0)
    assert max(pod.deferred for pod in run.pods) == 0


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([], 0.5) is NO_VALUE
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.99) == 4.0


@pytest.mark.slow
def test_medians_are_figure_by_figure() -> None:
    summary = summarise(play()[1], 60.0)
    better = replace(summary, loads=0.0)
    assert median_of([summary, better, better]).loads == 0.0
    assert median_of([summary]) == summary


class InTurn:
    """Sends requests to the pods in turn, so that figures depend on the model of a pod alone."""

    name = "in-turn"

    def __init__(self) -> None:
        self._next = count()

    def pick(self, request: InferenceRequest, candidates: Iterable[PodView], now: float) -> Pick:
        pods = sorted(candidates, key=lambda pod: pod.pod.name)
        return Pick(pods[next(self._next) % len(pods)], "in-turn")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "p50", "p99", "loads", "slot_waits"),
    [
        ("b-zipf", 6.327108341179814, 14.46114794765904, 623.9316239316239, 0.7136752136752137),
        ("mixed-slots", 1.5858389583351844, 42.87977937595314, 506.87285223367695, 0.5652920962),
        ("long-prompts", 0.5744174184360489, 2.802673385156444, 693.4306569343066, 0.0218978102),
    ],
)
def test_the_model_of_a_pod_keeps_its_figures(
    name: str, p50: float, p99: float, loads: float, slot_waits: float
) -> None:
    """The figures were recorded before scenarios had keys for the speed of a pod.

    The tables of docs/routing.md depend on them.
    """
    scenario = shipped_scenario(name)
    trace = make_trace(scenario.workload, rate=scenario.rate, seconds=30.0, seed=1)
    simulation = FleetSimulation(scenario.fleet(30.0), lambda _rng: InTurn(), seed=1)
    found = summarise(simulation.run(trace), 30.0)

    assert (found.ttft["p50"], found.ttft["p99"]) == pytest.approx((p50, p99), rel=1e-9)
    assert (found.loads, found.slot_waits) == pytest.approx((loads, slot_waits), rel=1e-9)


@pytest.mark.slow
class TestSeveralRouters:
    def played(self, routers: int, knowledge: Knowledge, seed: int = 3) -> Summary:
        scenario = shipped_scenario("b-zipf")
        fleet = replace(scenario.fleet(90.0, routers), knowledge=knowledge)
        trace = make_trace(scenario.workload, rate=16.0, seconds=90.0, seed=seed)
        simulation = FleetSimulation(
            fleet, lambda rng: LoraPlacement(AlgorithmOptions(rng=rng)), seed
        )
        return summarise(simulation.run(trace), 90.0)

    def test_routers_that_know_more_of_each_other_make_fewer_requests_wait_on_pods(self) -> None:
        nothing = self.played(2, NOTHING)
        scrapes = self.played(2, SCRAPES)
        peering = self.played(2, PEERING)
        assert nothing.slot_waits > scrapes.slot_waits > peering.slot_waits
        assert nothing.ttft["p99"] > 2 * peering.ttft["p99"]

    def test_one_router_is_the_same_with_and_without_peering(self) -> None:
        assert self.played(1, PEERING) == self.played(1, SCRAPES)


@pytest.mark.parametrize("text", ["", "all", "0.1", "PEERING"])
def test_unknown_knowledge_is_refused(text: str) -> None:
    with pytest.raises(
        KnowledgeError, match=f"^--peers: must be nothing, scrapes .*, not {text!r}$"
    ):
        read_knowledge(text)


def test_knowledge_is_read_by_its_name() -> None:
    assert [read_knowledge(name) for name in ("nothing", "scrapes", "peering")] == [*Knowledge]
