"""``lora-router simulate``: algorithms on the same traces, in simulated time."""

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from lora_router.routing.algorithm import Algorithm, AlgorithmOptions
from lora_router.routing.registry import check_installed, load_algorithms
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.scenario import Scenario, read_scenario
from lora_router.simulator.summary import (
    TTFT_LIMIT_SECONDS,
    Summary,
    median_of,
    summarise,
)
from lora_router.simulator.trace import Arrival, make_trace, read_trace

_LEGEND = (
    "p50, p95, p99: seconds to the first token; end p99: to the last. good: first token within "
    f"{TTFT_LIMIT_SECONDS:g} s.\nwaits, held: requests that waited for a slot on a pod, in the "
    "router. loads: of adapters, for 1,000 requests.\nworst p99: of the adapter that is worst off."
)


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """What to simulate."""

    scenarios: tuple[Path, ...]
    algorithms: tuple[str, ...]
    seeds: tuple[int, ...]
    seconds: float
    """Length of a made trace."""
    rate: float | None = None
    """Requests in a second, in place of the scenario's own."""
    trace: Path | None = None
    """A file of requests, in place of made ones."""
    routers: int = 1
    lora_affinity_threshold: float = 0.999
    as_json: bool = False


def simulate_command(options: SimulateOptions) -> None:
    """Simulate and print.

    Raises:
        ScenarioError, TraceError: A file cannot be used.
        UnknownAlgorithmError: There is no such algorithm.
    """
    check_installed(options.algorithms)
    scenarios = [read_scenario(path) for path in options.scenarios]
    replayed = None if options.trace is None else read_trace(options.trace)
    console = Console(stderr=options.as_json)
    results: dict[str, dict[str, Summary]] = {}
    with Progress(console=console, transient=True) as progress:
        for scenario in scenarios:
            results[scenario.name] = {}
            for algorithm in options.algorithms:
                task = progress.add_task(f"{scenario.name}: {algorithm}", total=1.0)
                results[scenario.name][algorithm] = median_of(
                    _run(scenario, algorithm, seed, options, replayed, progress, task)
                    for seed in options.seeds
                )
                progress.remove_task(task)
    if options.as_json:
        sys.stdout.write(json.dumps(_document(options, results)) + "\n")
        return
    for scenario in scenarios:
        console.print(_table(scenario, options, results[scenario.name]))
    console.print(_LEGEND)


def _run(
    scenario: Scenario,
    name: str,
    seed: int,
    options: SimulateOptions,
    replayed: Sequence[Arrival] | None,
    progress: Progress,
    task: TaskID,
) -> Summary:
    def make_algorithm(rng: random.Random) -> Algorithm:
        known = load_algorithms(
            AlgorithmOptions(lora_affinity_threshold=options.lora_affinity_threshold, rng=rng)
        )
        return known[name]

    seconds = options.seconds if replayed is None else replayed[-1].at
    fleet = scenario.fleet(seconds, options.routers)
    trace = replayed or make_trace(
        scenario.workload, rate=options.rate or scenario.rate, seconds=seconds, seed=seed
    )
    if replayed is not None:
        # Every model of the file that is not the base model is an adapter.
        names = {arrival.model for arrival in replayed} - {"base"}
        fleet = replace(fleet, adapters=tuple(sorted(names)))
    each = 1 / len(options.seeds)
    done = each * options.seeds.index(seed)
    simulation = FleetSimulation(fleet, make_algorithm, seed)
    run = simulation.run(
        trace,
        on_progress=lambda time: progress.update(
            task, completed=done + each * min(1.0, time / seconds)
        ),
    )
    return summarise(run, seconds)


def _document(
    options: SimulateOptions, results: dict[str, dict[str, Summary]]
) -> dict[str, object]:
    return {
        "seeds": options.seeds,
        "seconds": options.seconds,
        "routers": options.routers,
        "scenarios": {
            scenario: {algorithm: asdict(summary) for algorithm, summary in found.items()}
            for scenario, found in results.items()
        },
    }


def _table(scenario: Scenario, options: SimulateOptions, results: dict[str, Summary]) -> Table:
    title = f"{scenario.name}: {scenario.about}, {options.rate or scenario.rate:g} requests/s"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("algorithm", no_wrap=True)
    for heading in (
        "p50 s", "p95", "p99", "end p99", "good", "waits", "held", "loads", "worst p99",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for name, found in results.items():
        table.add_row(
            name,
            *(f"{found.ttft[key]:.2f}" for key in ("p50", "p95", "p99")),
            f"{found.end_to_end['p99']:.1f}",
            f"{found.good:.1%}",
            f"{found.slot_waits:.1%}",
            f"{found.held:.1%}",
            f"{found.loads:.0f}",
            f"{found.worst_adapter_p99:.2f}",
        )
    return table
