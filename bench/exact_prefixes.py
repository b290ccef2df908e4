"""What exact knowledge of prefix caches would be worth: ``python -m bench.exact_prefixes FILE...``.

The router believes what pods have in their prefix caches, by what it sent where. vLLM can publish
what its cache has (KV events). Here each scenario is played with the router's own index, and with
an index that reads the caches of the simulated pods at the moment of the decision. No events can
tell a router more than that. The figures are medians over the seeds.
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prefixes import PrefixIndex
from lora_router.fleet.prompt import Prompt
from lora_router.routing.algorithm import Algorithm, AlgorithmOptions
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.router_clock import RouterClock
from lora_router.simulator.router_model import RouterModel
from lora_router.simulator.scenario import find_scenario
from lora_router.simulator.summary import Summary, median_of, summarise
from lora_router.simulator.trace import BASE_MODEL
from lora_router.simulator.traffic import GeneratedTraffic

KINDS = ("believed", "exact")


@dataclass(slots=True)
class _Asked:
    """What the cache of a pod is asked for."""

    adapter: str | None
    blocks: Sequence[int]
    block_tokens: int


class ExactPrefixes(PrefixIndex):
    """Reads the caches of simulated pods."""

    def __init__(self, simulation: FleetSimulation, fleet: Fleet) -> None:
        super().__init__()
        self._simulation = simulation
        self._fleet = fleet

    def cached(self, model: str, prompt: Prompt) -> Mapping[PodState, float]:
        """Return how many tokens of a prompt's beginning each pod has, the most first."""
        if not prompt.chunks:
            return {}
        adapter = None if model == BASE_MODEL else model
        asked = _Asked(adapter, prompt.chunks, int(prompt.ends[0]))
        found: dict[PodState, float] = {}
        for pod in self._simulation.pods:
            state = self._fleet.get(pod.name)
            groups = pod.kv_cache.find(asked, int(prompt.tokens), 0).groups
            if state is not None and groups:
                found[state] = prompt.ends[len(groups) - 1]
        return dict(sorted(found.items(), key=lambda each: -each[1]))


class ExactSimulation(FleetSimulation):
    """A simulation whose routers know what pods have in their prefix caches."""

    def _new_router(self, name: str, clock: RouterClock, rng: random.Random) -> RouterModel:
        router = super()._new_router(name, clock, rng)
        router.fleet.prefixes = ExactPrefixes(self, router.fleet)
        return router


def play(scenario_name: str, load: float, seed: int, kind: str) -> Summary:
    """Return the figures of one run."""
    scenario = find_scenario(scenario_name)
    seconds = scenario.seconds
    traffic = GeneratedTraffic(scenario.workload, scenario.rate_at(load), seconds)
    fleet = scenario.fleet(seconds, adapters=traffic.adapters)
    simulation = (ExactSimulation if kind == "exact" else FleetSimulation)(fleet, _placement, seed)
    return summarise(simulation.run(traffic.requests(seed)), seconds, scenario.goodput)


def _placement(rng: random.Random) -> Algorithm:
    return LoraPlacement(AlgorithmOptions(rng=rng))


def row(scenario_name: str, figures: Mapping[str, Summary]) -> str:
    """Return a row of the table: the figures of both kinds."""
    cells = []
    for kind in KINDS:
        found = figures[kind]
        cells += [f"{found.ttft['p99']:.2f}", f"{found.good:.1%}", f"{found.prefix_hits:.1%}"]
    return f"| `{find_scenario(scenario_name).name}` | {' | '.join(cells)} |"


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="+", help="names or files of scenarios")
    parser.add_argument("--load", type=float, default=0.85, help="share of the capacity")
    parser.add_argument("--seeds", default="11,12,13,14,15")
    parser.add_argument("--processes", type=int, help="default: one for each core")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    heads = [f"{kind}: {figure}" for kind in KINDS for figure in ("p99 s", "good", "hits")]
    print(f"| scenario | {' | '.join(heads)} |")
    print("| --- |" + " ---: |" * len(heads))
    with ProcessPoolExecutor(arguments.processes) as workers:
        for name in arguments.scenarios:
            runs = {
                kind: [workers.submit(play, name, arguments.load, seed, kind) for seed in seeds]
                for kind in KINDS
            }
            figures = {kind: median_of(run.result() for run in each) for kind, each in runs.items()}
            print(row(name, figures), flush=True)


if __name__ == "__main__":
    main()
