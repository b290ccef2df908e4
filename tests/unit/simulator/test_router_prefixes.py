"""Chats find their beginnings on pods: through any router, and while pods are full."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.knowledge import PEERING, SCRAPES, Knowledge
from lora_router.simulator.router_options import RouterOptions
from lora_router.simulator.scenario import Scenario, read_scenario
from lora_router.simulator.simulated_request import SimulatedRequest
from lora_router.simulator.trace import make_trace

pytestmark = pytest.mark.slow

SECONDS = 40.0
CHATS = """\
about: chats that grow by 1,000 tokens a turn
pods: 4
slots: 4
adapters: 1
base_share: 1.0
kv_cache_tokens: 200000
prefix_caching: true
rate: 8
sessions:
  {turns: [4, 8], first_prompt_tokens: [600, 1000], growth_tokens: [800, 1200], think_seconds: 4}
"""


BUSY = """\
about: as many chats as four pods carry, if each is processed once
pods: 4
slots: 4
adapters: 1
base_share: 1.0
kv_cache_tokens: 350000
prefix_caching: true
chunk_tokens: 2048
rate: 11.5
sessions:
  {turns: [1, 10], first_prompt_tokens: [400, 1200], growth_tokens: [900, 1400], think_seconds: 6}
"""
BUSY_SECONDS = 80.0


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    path = tmp_path_factory.mktemp("scenarios") / "chats.yaml"
    path.write_text(CHATS)
    return read_scenario(path)


@cache
def hits(scenario: Scenario, routers: int, knowledge: Knowledge = PEERING) -> float:
    """Return the share of prompt tokens that pods had in their caches."""
    options = RouterOptions() if routers == 1 else RouterOptions(routers, knowledge)
    fleet = options.applied_to(scenario.fleet(SECONDS, routers), SECONDS)
    trace = make_trace(scenario.workload, rate=scenario.rate, seconds=SECONDS, seed=11)
    return share_found(FleetSimulation(fleet, placement, 11).run(trace).requests)


@pytest.mark.parametrize("routers", [2, 4])
def test_the_turns_of_a_chat_find_its_beginning_through_any_router(
    scenario: Scenario, routers: int
) -> None:
    one, several = hits(scenario, 1), hits(scenario, routers)

    assert one > 0.5
    assert several > 0.9 * one


def test_routers_that_do_not_talk_find_less(scenario: Scenario) -> None:
    assert hits(scenario, 4, SCRAPES) < 0.9 * hits(scenario, 4)


@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.parametrize(("limit", "least"), [(None, 0.6), (24, 0.35)])
def test_chats_stay_where_their_beginnings_are_although_pods_are_full(
    tmp_path: Path, seed: int, limit: int | None, least: float
) -> None:
    """When each chat moved to the next pod with room, 20 % were found, and a third was refused."""
    path = tmp_path / "busy.yaml"
    path.write_text(BUSY)
    scenario = read_scenario(path)
    fleet = scenario.fleet(BUSY_SECONDS)
    overload = replace(fleet.overload, max_requests_per_pod=limit)
    trace = make_trace(scenario.workload, rate=scenario.rate, seconds=BUSY_SECONDS, seed=seed)

    run = FleetSimulation(replace(fleet, overload=overload), placement, seed).run(trace)

    assert share_found(run.requests) > least


def placement(rng: random.Random) -> LoraPlacement:
    return LoraPlacement(AlgorithmOptions(rng=rng))


def share_found(requests: Sequence[SimulatedRequest]) -> float:
    """Return the share of prompt tokens that pods had in their caches."""
    tokens = sum(each.prompt_tokens for each in requests)
    return sum(each.cached_tokens for each in requests) / tokens
