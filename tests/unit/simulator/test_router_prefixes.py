"""What several routers know together of the beginnings of prompts that pods have cached."""

from functools import cache

import pytest

from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.knowledge import PEERING, SCRAPES, Knowledge
from lora_router.simulator.router_options import RouterOptions
from lora_router.simulator.scenario import Scenario, read_scenario
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
    simulation = FleetSimulation(fleet, lambda rng: LoraPlacement(AlgorithmOptions(rng=rng)), 11)
    requests = simulation.run(trace).requests
    tokens = sum(each.prompt_tokens for each in requests)
    return sum(each.cached_tokens for each in requests) / tokens


@pytest.mark.parametrize("routers", [2, 4])
def test_the_turns_of_a_chat_find_its_beginning_through_any_router(
    scenario: Scenario, routers: int
) -> None:
    one, several = hits(scenario, 1), hits(scenario, routers)

    assert one > 0.5
    assert several > 0.9 * one


def test_routers_that_do_not_talk_find_less(scenario: Scenario) -> None:
    assert hits(scenario, 4, SCRAPES) < 0.9 * hits(scenario, 4)
