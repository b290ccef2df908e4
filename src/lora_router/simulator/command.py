"""``lora-router simulate``: runs algorithms on the same traces, in simulated time."""

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.progress import Progress, TaskID
from rich.text import Text

from lora_router.routing.algorithm import Algorithm, AlgorithmOptions
from lora_router.simulator.algorithms import check_known, make_algorithm
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.fleet_table import HEADINGS, LEGEND
from lora_router.simulator.key_kinds import Number, WrongValueError
from lora_router.simulator.plot_records import SWEPT, THRESHOLDS, PlotRecords, two_to_compare
from lora_router.simulator.plots import check_can_plot, write_plots
from lora_router.simulator.policies.table import POLICIES
from lora_router.simulator.router_options import RouterOptions
from lora_router.simulator.scenario import (
    Scenario,
    ScenarioError,
    find_scenario,
    shipped_scenario,
    shipped_scenarios,
)
from lora_router.simulator.summary import (
    TTFT_LIMIT_SECONDS,
    Summary,
    median_of,
    summarise,
)
from lora_router.simulator.trace import BASE_MODEL, Arrival, make_trace, read_trace
from lora_router.terminal import output_console, print_report, split_table, table_or_paragraphs

_HEADINGS = (
    "algorithm", "p50 s", "p95", "p99", "end p99", "good", "waits", "held", "loads", "evicted",
    "busiest", "worst p99", "moved",
)  # fmt: skip
_LEGEND = (
    "p50, p95, p99: seconds to the first token; end p99: to the last token. "
    f"good: requests with a first token within {TTFT_LIMIT_SECONDS:g} s.\n"
    "waits: requests that waited for a slot on a pod. held: requests that waited in the router.\n"
    "loads, evicted: adapters for every 1,000 requests. "
    "busiest: requests of the busiest pod over the average.\n"
    "worst p99: p99 of the adapter with the highest one. "
    "moved: adapters with another busiest pod in the second half."
)


MAX_REQUESTS = 50_000_000
"""Requests of one simulation. A million take about a minute."""


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """The arguments of the command."""

    scenarios: tuple[str, ...]
    """Names of scenarios in this package, or paths of files."""
    algorithms: tuple[str, ...]
    seeds: tuple[int, ...]
    seconds: float | None = None
    """Length of a generated trace. ``None``: the scenario's."""
    rate: float | None = None
    """Requests per second, in place of the scenario's rate."""
    trace: Path | None = None
    """A file of requests, in place of generated ones."""
    routers: RouterOptions = field(default_factory=RouterOptions)
    lora_affinity_threshold: float = 0.999
    as_json: bool = False
    plot: Path | None = None
    """Directory for plots. ``None``: no plots are drawn."""


def simulate_command(options: SimulateOptions) -> None:
    """Simulate and print.

    Raises:
        ScenarioError, TraceError: A file cannot be used.
        WrongValueError: A number is out of its bounds.
        UnknownAlgorithmError: An algorithm does not exist.
        PlotError: Plots are requested and cannot be drawn or written.
    """
    check_known(options.algorithms)
    _check_bounds(options)
    if options.plot is not None:
        check_can_plot(options.plot)
    scenarios = [find_scenario(each) for each in options.scenarios]
    _check_length(options, scenarios)
    _check_names(scenarios)
    replayed = None if options.trace is None else read_trace(options.trace)
    console = output_console(stderr=options.as_json)
    results: dict[str, dict[str, Summary]] = {}
    written: list[Path] = []
    with Progress(console=console, transient=True) as progress:
        for scenario in scenarios:
            records = None if options.plot is None else _records(scenario, options)
            results[scenario.name] = {
                name: _medians(scenario, name, options, replayed, progress, records)
                for name in options.algorithms
            }
            if options.plot is not None and records is not None:
                if SWEPT in options.algorithms:
                    records.sweep = _sweep(scenario, options, replayed, progress)
                written += write_plots(options.plot, records)
    for path in written:
        console.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)
    if options.as_json:
        sys.stdout.write(json.dumps(_document(options, scenarios, results)) + "\n")
        return
    tables = [
        _table(scenario, options, results[scenario.name], console.width) for scenario in scenarios
    ]
    has_fleet = any(each.fleet for found in results.values() for each in found.values())
    print_report(console, *tables, _LEGEND, *([LEGEND] if has_fleet else []))


def _check_bounds(options: SimulateOptions) -> None:
    """Check what the command line does not: a simulation must end, and fit into memory.

    Raises:
        WrongValueError: A number is out of its bounds.
    """
    for flag, kind, value in (
        ("--duration", Number(1, 1_000_000), options.seconds),
        ("--rate", Number(0.001, 1_000_000), options.rate),
        ("--threshold", Number(0, 1), options.lora_affinity_threshold),
    ):
        try:
            if value is not None:
                kind.read(value)
        except WrongValueError as error:
            raise WrongValueError(f"{flag}: {error}") from None
    options.routers.check()


def _check_length(options: SimulateOptions, scenarios: Sequence[Scenario]) -> None:
    """Check that a simulation has a bounded number of requests. Their bounds alone allow 10^12.

    Raises:
        WrongValueError: It has more than ``MAX_REQUESTS``.
    """
    if options.trace is not None:
        return
    for scenario in scenarios:
        rate = options.rate or scenario.rate
        seconds = options.seconds or scenario.seconds
        requests = seconds * rate * scenario.workload.highest_load
        if requests > MAX_REQUESTS:
            raise WrongValueError(
                f"{scenario.name}: {requests:,.0f} requests (--duration {seconds:,.0f}, "
                f"{rate:,.0f} requests per second): must be at most {MAX_REQUESTS:,}"
            )


def _check_names(scenarios: Sequence[Scenario]) -> None:
    """Check that each scenario has a name of its own, by which its figures are reported.

    Raises:
        ScenarioError: Two scenarios have the same name.
    """
    by_name: dict[str, Scenario] = {}
    for each in scenarios:
        other = by_name.setdefault(each.name, each)
        if other != each:
            raise ScenarioError(f"{each.where}: {other.where} has the same name, {each.name}")


def list_command(*, as_json: bool) -> None:
    """Print the scenarios of this package, each with its line, and the published policies."""
    found = {name: shipped_scenario(name) for name in shipped_scenarios()}
    if as_json:
        document = {
            name: {"about": scenario.about, "rate": scenario.rate}
            for name, scenario in found.items()
        }
        sys.stdout.write(json.dumps(document) + "\n")
        return
    console = output_console()
    rows = [(name, f"{scenario.rate:g}", scenario.about) for name, scenario in found.items()]
    headings = ("scenario", "requests/s", "description")
    policies = [(name, policy.about.replace("`", "")) for name, policy in sorted(POLICIES.items())]
    print_report(
        console,
        table_or_paragraphs(headings, rows, console.width),
        "\nPublished policies to compare with (--algorithm NAME):",
        table_or_paragraphs(("policy", "picks"), policies, console.width),
    )


def _medians(
    scenario: Scenario,
    name: str,
    options: SimulateOptions,
    replayed: Sequence[Arrival] | None,
    progress: Progress,
    records: PlotRecords | None = None,
) -> Summary:
    task = progress.add_task(f"{scenario.name}: {name}", total=1.0)
    found = median_of(
        _run(scenario, name, seed, options, replayed, progress, task, records)
        for seed in options.seeds
    )
    progress.remove_task(task)
    return found


def _sweep(
    scenario: Scenario,
    options: SimulateOptions,
    replayed: Sequence[Arrival] | None,
    progress: Progress,
) -> dict[float, Summary]:
    """Return the figures of each threshold on the same traces."""
    return {
        threshold: _medians(
            scenario,
            SWEPT,
            replace(options, lora_affinity_threshold=threshold),
            replayed,
            progress,
        )
        for threshold in {*THRESHOLDS, options.lora_affinity_threshold}
    }


def _records(scenario: Scenario, options: SimulateOptions) -> PlotRecords:
    return PlotRecords(
        scenario.name,
        _about(scenario, options),
        options.lora_affinity_threshold,
        two_to_compare(options.algorithms),
    )


def _run(
    scenario: Scenario,
    name: str,
    seed: int,
    options: SimulateOptions,
    replayed: Sequence[Arrival] | None,
    progress: Progress,
    task: TaskID,
    records: PlotRecords | None,
) -> Summary:
    def make(rng: random.Random) -> Algorithm:
        threshold = options.lora_affinity_threshold
        made = AlgorithmOptions(lora_affinity_threshold=threshold, rng=rng)
        return make_algorithm(name, made, fleet.engine(0))

    seconds = replayed[-1].at if replayed else options.seconds or scenario.seconds
    # Every model of a replayed file that is not the base model is an adapter.
    adapters = (
        None if replayed is None else sorted({arrival.model for arrival in replayed} - {BASE_MODEL})
    )
    fleet = options.routers.applied_to(
        scenario.fleet(seconds, options.routers.routers, adapters), seconds
    )
    trace = replayed or make_trace(
        scenario.workload, rate=options.rate or scenario.rate, seconds=seconds, seed=seed
    )
    each = 1 / len(options.seeds)
    done = each * options.seeds.index(seed)
    simulation = FleetSimulation(fleet, make, seed)
    timeline = None if records is None else records.watch(name, simulation, seconds)
    run = simulation.run(
        trace,
        on_progress=lambda time: progress.update(
            task, completed=done + each * min(1.0, time / seconds)
        ),
    )
    summary = summarise(run, seconds)
    if records is not None:
        records.add(name, run, summary, seconds=seconds, timeline=timeline)
    return summary


def _seconds(scenarios: Sequence[Scenario]) -> float | None:
    """Return the duration of all scenarios, or ``None`` if they differ."""
    durations = {scenario.seconds for scenario in scenarios}
    return durations.pop() if len(durations) == 1 else None


def _document(
    options: SimulateOptions,
    scenarios: Sequence[Scenario],
    results: dict[str, dict[str, Summary]],
) -> dict[str, object]:
    return {
        "seeds": options.seeds,
        "seconds": options.seconds or _seconds(scenarios),
        "routers": options.routers.routers,
        "peers": options.routers.knowledge,
        "scenarios": {
            scenario: {algorithm: asdict(summary) for algorithm, summary in found.items()}
            for scenario, found in results.items()
        },
    }


def _about(scenario: Scenario, options: SimulateOptions) -> str:
    return f"{scenario.about}, {options.rate or scenario.rate:g} requests/s"


def _table(
    scenario: Scenario, options: SimulateOptions, results: dict[str, Summary], width: int
) -> RenderableType:
    rows = [
        (
            name,
            *(f"{found.ttft[key]:.2f}" for key in ("p50", "p95", "p99")),
            f"{found.end_to_end['p99']:.1f}",
            f"{found.good:.1%}",
            f"{found.slot_waits:.1%}",
            f"{found.held:.1%}",
            f"{found.loads:.0f}",
            f"{found.evictions:.0f}",
            f"{found.imbalance:.2f}",
            f"{found.worst_adapter_p99:.2f}",
            f"{found.moved:.0%}",
        )
        for name, found in results.items()
    ]
    title = f"{scenario.name}: {_about(scenario, options)}"
    parts: list[RenderableType] = [
        Text(title, style="italic"),
        split_table(_HEADINGS, rows, width),
    ]
    for name, found in results.items():
        if found.fleet:
            title = f"{scenario.name}: the fleet over time with {name}"
            cells = [row.cells() for row in found.fleet]
            parts += ["", Text(title, style="italic"), split_table(HEADINGS, cells, width)]
    return Group(*parts)
