"""Print what each term of ``lora-placement``'s cost is worth: ``python -m bench.terms``.

Each scenario is played with all terms, and then with one term left out at a time. The figures are
medians of seeds 11 to 15; the weights were chosen on seeds 1 to 5. Without arguments, the scenarios
that come with lora-router are played at their own rates. ``--trace FILE`` plays a recording in
place of a scenario's own traffic.
"""

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lora_router.routing.algorithm import Algorithm, AlgorithmOptions
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.recorded.formats import read_recording
from lora_router.simulator.recorded.session_adapters import SessionAdapters
from lora_router.simulator.scenario import Scenario, find_scenario, scenarios_of_fixed_fleets
from lora_router.simulator.summary import Summary, median_of, summarise
from lora_router.simulator.traffic import GeneratedTraffic, Traffic, replayed

WITHOUT: Mapping[str, Mapping[str, str]] = {
    "all terms": {},
    "prefix": {"prefix_weight": "0"},
    "prompts": {"prompt_weight": "0"},
    "prefix, prompts": {"prefix_weight": "0", "prompt_weight": "0"},
    "KV cache": {"kv_weight": "0"},
    "speed": {"speed_weight": "0"},
    "adapter": {"adapter_weight": "0"},
}
"""The variants, by what is left out, with the options that leave it out."""


@dataclass(frozen=True, slots=True)
class Case:
    """Traffic for a fleet."""

    scenario: str
    """A name or the path of a file."""
    rate: float | None = None
    """Requests per second. ``None``: those of the load, or of the scenario."""
    load: float | None = None
    """Share of the scenario's capacity, if it states that."""
    trace: Path | None = None
    """A recording in place of the scenario's own traffic."""


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "scenarios", nargs="*", help="names or files; default: those that come along"
    )
    parser.add_argument("--seeds", default="11,12,13,14,15")
    parser.add_argument("--load", type=float, help="share of a scenario's capacity")
    parser.add_argument("--rate", type=float, help="requests per second")
    parser.add_argument("--trace", type=Path, help="a recording to play on each fleet")
    parser.add_argument("--processes", type=int, help="default: one for each core")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    names = arguments.scenarios or scenarios_of_fixed_fleets()
    cases = [Case(name, arguments.rate, arguments.load, arguments.trace) for name in names]
    with ProcessPoolExecutor(arguments.processes) as workers:
        found = _play_all(workers, cases, seeds)
    print(table(cases, found))


def play(case: Case, left_out: str, seed: int) -> Summary:
    """Return the figures of one run without a term."""
    scenario = find_scenario(case.scenario)
    traffic = _traffic(case, scenario)
    seconds = traffic.seconds
    fleet = scenario.fleet(seconds, adapters=traffic.adapters)
    simulation = FleetSimulation(fleet, _maker(WITHOUT[left_out]), seed)
    return summarise(simulation.run(traffic.requests(seed)), seconds, scenario.goodput)


def _maker(extra: Mapping[str, str]) -> Callable[[random.Random], Algorithm]:
    return lambda rng: LoraPlacement(AlgorithmOptions(rng=rng, extra=extra))


def _traffic(case: Case, scenario: Scenario) -> Traffic:
    rate = case.rate
    if rate is None and case.load is not None and scenario.keys.capacity is not None:
        rate = scenario.rate_at(case.load)
    if case.trace is None:
        return GeneratedTraffic(scenario.workload, rate or scenario.rate, scenario.seconds)
    keys = scenario.keys
    sessions = SessionAdapters(keys.adapters, keys.zipf, keys.base_share)
    return replayed(read_recording(case.trace), sessions, rate=rate)


def _play_all(
    workers: ProcessPoolExecutor, cases: Sequence[Case], seeds: Sequence[int]
) -> dict[tuple[Case, str], Summary]:
    keys = [(case, left_out, seed) for case in cases for left_out in WITHOUT for seed in seeds]
    played: dict[tuple[Case, str], list[Summary]] = {}
    for (case, left_out, _), summary in zip(
        keys, workers.map(play, *zip(*keys, strict=True)), strict=True
    ):
        played.setdefault((case, left_out), []).append(summary)
    return {key: median_of(summaries) for key, summaries in played.items()}


def table(cases: Sequence[Case], found: Mapping[tuple[Case, str], Summary]) -> str:
    """Return a table in Markdown: p99 of the time to first token, and the share of good requests.

    The first figures are those with all terms. The others are those without a term.
    """
    lines = [
        "### p99 of the time to first token in seconds, and share of good requests, without a term",
        "",
        f"| scenario | {' | '.join(WITHOUT)} |",
        "| --- |" + " ---: |" * len(WITHOUT),
    ]
    for case in cases:
        cells = [_cell(found[case, left_out]) for left_out in WITHOUT]
        lines.append(f"| `{Path(case.scenario).stem}` | {' | '.join(cells)} |")
    return "\n".join((*lines, ""))


def _cell(summary: Summary) -> str:
    return f"{summary.ttft['p99']:.2f} ({summary.good:.1%})"


if __name__ == "__main__":
    main()
