"""What several routers with peering are worth beside one: small runs of what docs/routing.md shows.

Runs are deterministic. The bounds leave room for changes that are no regressions. The requests of
several seeds count together: in a single run, the p99 is that of about ten requests, and which of
them wait changes with any change.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from itertools import chain

import pytest

from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.fleet_options import RouterEvent, RouterTrouble
from lora_router.simulator.fleet_simulation import FleetRun, FleetSimulation
from lora_router.simulator.knowledge import PEERING, SCRAPES
from lora_router.simulator.percentile import percentile
from lora_router.simulator.router_options import RouterOptions
from lora_router.simulator.scenario import shipped_scenario
from lora_router.simulator.trace import make_trace

pytestmark = pytest.mark.slow

SECONDS, WARM_UP = 60.0, 10.0
A_SEED = (11,)
"""For what hardly depends on chance."""
SEEDS = (11, 12, 13)
MANY_SEEDS = range(11, 19)
"""For rare events."""
ONE = RouterOptions()
PARTED_AT, PARTED_FOR = (12.0, 27.0, 42.0), 10.0
LATE = 1.0
"""What waits for longer than this, in seconds, waits for a load from disk or for a slot."""


def peering(routers: int, **wire: float) -> RouterOptions:
    return RouterOptions(routers, PEERING, **wire)  # type: ignore[arg-type]


@cache
def played_once(scenario: str, options: RouterOptions, seed: int, *events: RouterEvent) -> FleetRun:
    found = shipped_scenario(scenario)
    fleet = options.applied_to(found.fleet(SECONDS, options.routers), SECONDS)
    trace = make_trace(found.workload, rate=found.rate, seconds=SECONDS, seed=seed)
    simulation = FleetSimulation(
        replace(fleet, router_events=events),
        lambda rng: LoraPlacement(AlgorithmOptions(rng=rng)),
        seed,
    )
    return simulation.run(trace)


def played(
    scenario: str,
    options: RouterOptions,
    *events: RouterEvent,
    seeds: Iterable[int] = SEEDS,
) -> list[FleetRun]:
    return [played_once(scenario, options, seed, *events) for seed in seeds]


def first_tokens(runs: list[FleetRun], counts: Callable[[float], bool]) -> list[float]:
    """Return the times to the first token of the requests whose arrival counts, the least first."""
    requests = chain.from_iterable(run.requests for run in runs)
    return sorted(each.first_token - each.arrived for each in requests if counts(each.arrived))


def p99(runs: list[FleetRun], counts: Callable[[float], bool] = lambda at: at >= WARM_UP) -> float:
    return percentile(first_tokens(runs, counts), 0.99)


def late(runs: list[FleetRun], counts: Callable[[float], bool]) -> int:
    return sum(seconds > LATE for seconds in first_tokens(runs, counts))


def loads(runs: list[FleetRun]) -> int:
    return sum(pod.loads for run in runs for pod in run.pods)


@pytest.mark.parametrize(
    ("scenario", "most_loads"), [("mixed-slots", 1.35), ("b-zipf", 1.35), ("flash-crowd", 1.6)]
)
def test_several_routers_are_nearly_as_good_as_one(scenario: str, most_loads: float) -> None:
    """Copies of a hot adapter go to other pods, as each router has other slots in its allotment."""
    one, several = played(scenario, ONE), played(scenario, peering(4))

    assert p99(several) <= 1.35 * p99(one)
    assert loads(several) <= most_loads * loads(one)


def test_copies_that_drain_are_not_replaced_by_further_ones() -> None:
    """Routers that let a copy of an adapter drain and then opened another loaded half more."""
    one = played("long-prompts", ONE, seeds=A_SEED)
    several = played("long-prompts", peering(4), seeds=A_SEED)

    assert loads(several) <= 1.2 * loads(one)


def test_of_lost_messages_little_is_noticed() -> None:
    one = played("mixed-slots", ONE)
    lossy = played("mixed-slots", peering(4, loss=0.05))

    assert p99(lossy) <= 1.45 * p99(one)
    assert loads(lossy) <= 1.45 * loads(one)


def test_a_partition_is_no_worse_than_scrapes_alone_and_soon_over() -> None:
    events = [
        RouterEvent(RouterTrouble.PARTED, router, at, PARTED_FOR)
        for at in PARTED_AT
        for router in range(2)
    ]
    parted = played("mixed-slots", peering(2), *events, seeds=MANY_SEEDS)
    never = played("mixed-slots", peering(2), seeds=MANY_SEEDS)
    scrapes = played("mixed-slots", RouterOptions(2, SCRAPES), seeds=MANY_SEEDS)

    def during(at: float) -> bool:
        return any(one <= at < one + PARTED_FOR for one in PARTED_AT)

    def after(at: float) -> bool:
        return any(one + PARTED_FOR + 1.0 <= at < one + 15.0 for one in PARTED_AT)

    assert late(parted, during) <= 1.25 * late(scrapes, during)
    # Copies that were made during the partition drain for some seconds more.
    assert p99(parted, after) <= 1.75 * p99(never, after)


def test_the_load_of_a_killed_router_is_forgotten_in_time() -> None:
    found = shipped_scenario("mixed-slots")
    fleet = peering(4).applied_to(found.fleet(SECONDS, 4), SECONDS)
    killed = RouterEvent(RouterTrouble.KILLED, 0, 10.0, 1000.0)
    simulation = FleetSimulation(
        replace(fleet, router_events=(killed,)),
        lambda rng: LoraPlacement(AlgorithmOptions(rng=rng)),
        11,
    )
    of_it: list[bool] = []

    def look() -> None:
        for router in simulation.routers[1:]:
            shares = (state.beliefs.peers.share_of("router-0") for state in router.fleet)
            of_it.append(any(share is not None for share in shares))

    for at in (9.99, 11.1):
        simulation.call_at(at, look)
    run = simulation.run(make_trace(found.workload, rate=found.rate, seconds=20.0, seed=11))

    assert of_it == [True] * 3 + [False] * 3
    assert [router.fleet.ledger.total for router in simulation.routers[1:]] == [0, 0, 0]
    assert run.refused == 0
