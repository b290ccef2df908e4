"""What exact knowledge of prefix caches would be worth."""

from bench.exact_prefixes import ExactPrefixes, ExactSimulation
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.fleet_options import FleetOptions
from lora_router.simulator.trace import BASE_MODEL, Arrival

BLOCKS = (1, 2, 3, 4)


def test_routers_know_what_the_pods_have() -> None:
    engine = EngineOptions(prefix_caching=True, chunk_tokens=2048)
    simulation = ExactSimulation(
        FleetOptions((engine, engine), ()),
        lambda rng: LoraPlacement(AlgorithmOptions(rng=rng)),
        seed=1,
    )
    first = Arrival(0.0, BASE_MODEL, 256, 5, BLOCKS)
    run = simulation.run([first, first._replace(at=5.0), first._replace(at=9.0)])

    index = simulation.routers[0].fleet.prefixes
    assert isinstance(index, ExactPrefixes)
    prompt = run.requests[0].prompt()
    had = {state.pod.name: tokens for state, tokens in index.cached(BASE_MODEL, prompt).items()}
    # The last token is computed each time, so its block is not found.
    assert had == {run.requests[0].pod: 192}
    assert [request.cached_tokens for request in run.requests] == [0, 192, 192]
    assert index.cached("another", prompt) == {}
