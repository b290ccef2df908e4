"""Print what each setting of a fleet and of the router is worth: ``make bench-tuning``.

Each table varies one thing, and plays the same requests. All figures are medians over the seeds.
The runs are kept in a file, so that an interrupted command goes on where it was.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.routing_runs import Run, RunFile, make_runs
from bench.routing_settings import Setting
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.lora_affinity import LoraAffinity
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.scenario import find_scenario
from lora_router.simulator.summary import Summary, median_of, summarise
from lora_router.simulator.trace import make_trace

LOAD = 0.85
"""Share of the scenario's ``rate`` at which slots, host memory and thresholds are compared."""
OURS = "lora-placement"
HOST_MEMORY: Sequence[tuple[str, dict[str, Any]]] = (
    ("as many as slots (vLLM without the flag)", {"max_cpu_loras": ("slots",), "preload": "none"}),
    ("16", {"max_cpu_loras": (16,), "preload": "none"}),
    ("all", {"max_cpu_loras": ("unlimited",), "preload": "none"}),
    ("all, preloaded", {"max_cpu_loras": ("unlimited",), "preload": "all"}),
)
SLOT_BOUND = ("b-zipf", "c-slot-bound", "e-hot-shift")
SLOTS = (2, 4, 8, 16)
THRESHOLDS = (1.0, 0.999, 0.99, 0.95, 0.9, 0.5)


@dataclass(frozen=True, slots=True)
class Variation:
    """One row of a table: a scenario with some keys changed."""

    scenario: str
    label: str
    setting: Setting

    def runs(self, seeds: Sequence[int]) -> list[Run]:
        """Return its runs."""
        rate = LOAD * self.setting.scenario.rate
        return [Run(self.setting, LOAD, rate, OURS, seed) for seed in seeds]


def host_memory_variations() -> Iterator[Variation]:
    """Yield the sizes of host memory, cold and preloaded. The router knows each of them."""
    for scenario in SLOT_BOUND:
        for label, keys in HOST_MEMORY:
            yield _varied(scenario, label, {**keys, "host_memory_told": True})


def slot_variations() -> Iterator[Variation]:
    """Yield the numbers of slots of a pod."""
    for scenario in SLOT_BOUND:
        for slots in SLOTS:
            yield _varied(scenario, str(slots), {"slots": (slots,)})


def _varied(scenario: str, label: str, keys: dict[str, Any]) -> Variation:
    found = find_scenario(scenario)
    changed = replace(found, keys=replace(found.keys, **keys))
    return Variation(scenario, label, Setting(changed))


def main() -> None:
    """Make the runs, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("build/tuning-runs.jsonl"))
    arguments = parser.parse_args()
    seeds, file = arguments.seeds, RunFile(arguments.runs)
    memory, slots = list(host_memory_variations()), list(slot_variations())
    wanted = [run for variation in (*memory, *slots) for run in variation.runs(seeds)]
    make_runs(file, wanted, arguments.processes)
    print("### Adapters that fit in host memory (`max_cpu_loras`)\n")
    print(table("in host memory", memory, file, seeds))
    print("### Adapter slots of a pod (`max_loras`)\n")
    print(table("slots", slots, file, seeds))
    print("### The threshold of `lora-affinity` (`AIBRIX_LORA_AFFINITY_THRESHOLD`)\n")
    print(threshold_table(seeds))
    print(f"Seeds {', '.join(map(str, seeds))}, at {LOAD:.0%} of each scenario's rate.")


def table(head: str, variations: Sequence[Variation], file: RunFile, seeds: Sequence[int]) -> str:
    """Return a table with a row for each variation, each beside the first one of its scenario."""
    lines = [
        f"| scenario | {head} | p50 s | p99 s | beside the first | good | loads per 1,000 |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    first: dict[str, float] = {}
    for variation in variations:
        found = [file.get(run) for run in variation.runs(seeds)]
        summary = median_of([each for each in found if each is not None])
        p99 = summary.ttft["p99"]
        beside = p99 / first.setdefault(variation.scenario, p99)
        lines.append(
            f"| `{variation.scenario}` | {variation.label} | {summary.ttft['p50']:.2f} "
            f"| {p99:.2f} | {beside:.2f} | {summary.good:.1%} | {summary.loads:.0f} |"
        )
    return "\n".join((*lines, ""))


def threshold_table(seeds: Sequence[int]) -> str:
    """Return the p99 of ``lora-affinity`` by its threshold."""
    names = ("b-zipf", "flash-crowd")
    lines = [
        "| threshold | " + " | ".join(f"`{name}`, p99 s" for name in names) + " |",
        "| --- |" + " ---: |" * len(names),
    ]
    for threshold in THRESHOLDS:
        p99s = (
            statistics.median(_with_threshold(name, threshold, seed).ttft["p99"] for seed in seeds)
            for name in names
        )
        lines.append(f"| {threshold:g} | {' | '.join(f'{p99:.2f}' for p99 in p99s)} |")
    return "\n".join((*lines, ""))


def _with_threshold(name: str, threshold: float, seed: int) -> Summary:
    scenario = find_scenario(name)
    seconds, rate = scenario.seconds, LOAD * scenario.rate
    simulation = FleetSimulation(
        scenario.fleet(seconds),
        lambda rng: LoraAffinity(AlgorithmOptions(rng=rng, lora_affinity_threshold=threshold)),
        seed,
    )
    trace = make_trace(scenario.workload, rate=rate, seconds=seconds, seed=seed)
    return summarise(simulation.run(trace), seconds, scenario.goodput)


if __name__ == "__main__":
    main()
