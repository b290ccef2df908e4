"""``lora-router simulate``: runs algorithms on the same traces, in simulated time."""

import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from rich.console import RenderableType
from rich.progress import Progress, TaskID

from lora_router.counted import counted
from lora_router.routing.algorithm import Algorithm, AlgorithmOptions
from lora_router.simulator.algorithms import check_known, make_algorithm
from lora_router.simulator.figures import figures_table, legend
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.fleet_table import LEGEND
from lora_router.simulator.key_kinds import Number, Whole, WrongValueError
from lora_router.simulator.no_value import for_json, shown
from lora_router.simulator.plot_records import SWEPT, THRESHOLDS, PlotRecords, two_to_compare
from lora_router.simulator.plots import check_can_plot, write_plots
from lora_router.simulator.policies.table import POLICIES
from lora_router.simulator.recorded.formats import read_recording
from lora_router.simulator.recorded.recording import Recording
from lora_router.simulator.recorded.session_adapters import SessionAdapters
from lora_router.simulator.router_options import RouterOptions
from lora_router.simulator.scenario import (
    Scenario,
    ScenarioError,
    find_scenario,
    shipped_scenario,
    shipped_scenarios,
)
from lora_router.simulator.summary import Summary, median_of, summarise
from lora_router.simulator.traffic import GeneratedTraffic, ReplayedTraffic, Traffic, replayed
from lora_router.terminal import is_terminal, output_console, print_report, table_or_paragraphs

Value = TypeVar("Value")

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
    load: float | None = None
    """Share of the scenario's ``capacity``, in place of a rate."""
    trace: Path | None = None
    """A file of requests, in place of generated ones."""
    trace_format: str | None = None
    """The format of that file. ``None``: its first line tells."""
    sessions_adapters: int | None = None
    """Adapters of recorded sessions. ``None``: those of the scenario. The same holds for the two
    below."""
    sessions_zipf: float | None = None
    sessions_base_share: float | None = None
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
    _check_names(scenarios)
    recording = (
        None if options.trace is None else read_recording(options.trace, options.trace_format)
    )
    if recording is not None and recording.names_models:
        _check_models_are_named_once(options)
    traffic = {each.name: _traffic(each, options, recording) for each in scenarios}
    console = output_console(stderr=options.as_json)
    results: dict[str, dict[str, Summary]] = {}
    written: list[Path] = []
    # Off a terminal, it would still print an empty line.
    with Progress(console=console, transient=True, disable=not is_terminal(console)) as progress:
        for scenario in scenarios:
            asked = traffic[scenario.name]
            records = None if options.plot is None else _records(scenario, options, asked)
            results[scenario.name] = {
                name: _medians(scenario, name, options, asked, progress, records)
                for name in options.algorithms
            }
            if options.plot is not None and records is not None:
                if SWEPT in options.algorithms:
                    records.sweep = _sweep(scenario, options, asked, progress)
                written += write_plots(options.plot, records)
    for path in written:
        console.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)
    if options.as_json:
        document = for_json(_document(options, scenarios, traffic, results))
        sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
        return
    parts: list[RenderableType] = []
    for scenario in scenarios:
        about = _about(scenario, traffic[scenario.name])
        found = results[scenario.name]
        parts += [figures_table(scenario.name, about, found, console.width), ""]
    legends = dict.fromkeys(legend(scenario.goodput) for scenario in scenarios)
    has_fleet = any(each.fleet for found in results.values() for each in found.values())
    print_report(console, *parts, *legends, *([LEGEND] if has_fleet else []))


def _check_bounds(options: SimulateOptions) -> None:
    """Check what the command line does not: a simulation must end, and fit into memory.

    Raises:
        WrongValueError: A number is out of its bounds.
    """
    for flag, kind, value in (
        ("--duration", Number(1, 1_000_000), options.seconds),
        ("--rate", Number(0.001, 1_000_000), options.rate),
        ("--load", Number(0.001, 1_000), options.load),
        ("--sessions-adapters", Whole(1, 100_000), options.sessions_adapters),
        ("--sessions-zipf", Number(0, 5), options.sessions_zipf),
        ("--sessions-base", Number(0, 1), options.sessions_base_share),
        ("--threshold", Number(0, 1), options.lora_affinity_threshold),
    ):
        try:
            if value is not None:
                kind.read(value)
        except WrongValueError as error:
            raise WrongValueError(f"{flag}: {error}") from None
    if options.rate is not None and options.load is not None:
        raise WrongValueError("--load: cannot be used together with --rate")
    if options.trace is None:
        for flag, given in (
            ("--trace-format", options.trace_format),
            ("--sessions-adapters", options.sessions_adapters),
            ("--sessions-zipf", options.sessions_zipf),
            ("--sessions-base", options.sessions_base_share),
        ):
            if given is not None:
                raise WrongValueError(f"{flag}: has an effect only with --trace")
    options.routers.check()


def _traffic(scenario: Scenario, options: SimulateOptions, recording: Recording | None) -> Traffic:
    """Return the requests of a scenario.

    Raises:
        ScenarioError: The scenario has no capacity, and a load is wanted, or it needs a file.
        TraceError: The recording cannot be played like this.
        WrongValueError: It has more than ``MAX_REQUESTS``. The bounds of their rate and of their
            duration alone allow 10^12.
    """
    rate = options.rate if options.load is None else scenario.rate_at(options.load)
    if recording is not None:
        scenario.check_fits(recording)
        keys = scenario.keys
        sessions = SessionAdapters(
            _given(options.sessions_adapters, keys.adapters),
            _given(options.sessions_zipf, keys.zipf),
            _given(options.sessions_base_share, keys.base_share),
        )
        return replayed(recording, sessions, rate=rate, seconds=options.seconds)
    scenario.check_is_generated()
    seconds = options.seconds or scenario.seconds
    traffic = GeneratedTraffic(scenario.workload, rate or scenario.rate, seconds)
    requests = traffic.workload.drawn(traffic.rate, seconds)
    if requests > MAX_REQUESTS:
        raise WrongValueError(
            f"{scenario.name}: {requests:,.0f} requests (--duration {seconds:,.0f}, "
            f"{traffic.rate:,.0f} requests per second): must be at most {MAX_REQUESTS:,}"
        )
    return traffic


def _given(value: Value | None, default: Value) -> Value:
    return default if value is None else value


def _check_models_are_named_once(options: SimulateOptions) -> None:
    """Check that adapters are not drawn for a file that names them.

    Raises:
        WrongValueError: An option asks for that.
    """
    for flag, value in (
        ("--sessions-adapters", options.sessions_adapters),
        ("--sessions-zipf", options.sessions_zipf),
        ("--sessions-base", options.sessions_base_share),
    ):
        if value is not None:
            raise WrongValueError(f"{flag}: has no effect: {options.trace} names the models")


def _check_names(scenarios: Sequence[Scenario]) -> None:
    """Check that each scenario has a name of its own, by which its figures are reported.

    Raises:
        ScenarioError: Two scenarios have the same name.
    """
    by_name: dict[str, Scenario] = {}
    for each in scenarios:
        other = by_name.setdefault(each.name, each)
        if other != each:
            raise ScenarioError(f"{other.where} and {each.where} have the same name, {each.name}")


def list_command(*, as_json: bool) -> None:
    """Print the scenarios of this package, each with its line, and the published policies."""
    found = {name: shipped_scenario(name) for name in shipped_scenarios()}
    if as_json:
        document = {
            name: {
                "about": scenario.about,
                "rate": scenario.rate,
                "capacity": scenario.keys.capacity,
            }
            for name, scenario in found.items()
        }
        sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
        return
    console = output_console()
    rows = [
        (name, f"{scenario.rate:g}", _capacity(scenario), scenario.about)
        for name, scenario in found.items()
    ]
    headings = ("scenario", "requests/s", "capacity", "description")
    policies = [(name, policy.about.replace("`", "")) for name, policy in sorted(POLICIES.items())]
    print_report(
        console,
        table_or_paragraphs(headings, rows, console.width),
        "capacity: requests/s that the best algorithm carries; --load is a share of it.",
        "\nPublished policies to compare with (--algorithm NAME):",
        table_or_paragraphs(("policy", "picks"), policies, console.width),
    )


def _capacity(scenario: Scenario) -> str:
    capacity = scenario.keys.capacity
    return "-" if capacity is None else f"{capacity:g}"


def _medians(
    scenario: Scenario,
    name: str,
    options: SimulateOptions,
    traffic: Traffic,
    progress: Progress,
    records: PlotRecords | None = None,
) -> Summary:
    task = progress.add_task(f"{scenario.name}: {name}", total=1.0)
    found = median_of(
        _run(scenario, name, seed, options, traffic, progress, task, records)
        for seed in options.seeds
    )
    progress.remove_task(task)
    return found


def _sweep(
    scenario: Scenario,
    options: SimulateOptions,
    traffic: Traffic,
    progress: Progress,
) -> dict[float, Summary]:
    """Return the figures of each threshold on the same traces."""
    return {
        threshold: _medians(
            scenario,
            SWEPT,
            replace(options, lora_affinity_threshold=threshold),
            traffic,
            progress,
        )
        for threshold in {*THRESHOLDS, options.lora_affinity_threshold}
    }


def _records(scenario: Scenario, options: SimulateOptions, traffic: Traffic) -> PlotRecords:
    return PlotRecords(
        scenario.name,
        _about(scenario, traffic),
        options.lora_affinity_threshold,
        two_to_compare(options.algorithms),
    )


def _run(
    scenario: Scenario,
    name: str,
    seed: int,
    options: SimulateOptions,
    traffic: Traffic,
    progress: Progress,
    task: TaskID,
    records: PlotRecords | None,
) -> Summary:
    def make(rng: random.Random) -> Algorithm:
        threshold = options.lora_affinity_threshold
        made = AlgorithmOptions(lora_affinity_threshold=threshold, rng=rng)
        return make_algorithm(name, made, fleet.engine(0))

    seconds = traffic.seconds
    fleet = options.routers.applied_to(
        scenario.fleet(seconds, options.routers.routers, traffic.adapters), seconds
    )
    each = 1 / len(options.seeds)
    done = each * options.seeds.index(seed)
    simulation = FleetSimulation(fleet, make, seed)
    timeline = None if records is None else records.watch(name, simulation, seconds)
    run = simulation.run(
        traffic.requests(seed),
        on_progress=lambda time: progress.update(
            task, completed=done + each * min(1.0, time / (seconds or 1.0))
        ),
    )
    summary = summarise(run, seconds, scenario.goodput)
    if records is not None:
        records.add(name, run, summary, seconds=seconds, timeline=timeline)
    return summary


def _document(
    options: SimulateOptions,
    scenarios: Sequence[Scenario],
    traffic: Mapping[str, Traffic],
    results: dict[str, dict[str, Summary]],
) -> dict[str, object]:
    durations = {each.seconds for each in traffic.values()}
    return {
        "seeds": options.seeds,
        # Null if the scenarios differ.
        "seconds": durations.pop() if len(durations) == 1 else None,
        "rates": {each.name: traffic[each.name].rate for each in scenarios},
        "goodput": {each.name: asdict(each.goodput) for each in scenarios},
        "routers": options.routers.routers,
        "peers": options.routers.knowledge,
        "scenarios": {
            scenario: {algorithm: asdict(summary) for algorithm, summary in found.items()}
            for scenario, found in results.items()
        },
    }


def _about(scenario: Scenario, traffic: Traffic) -> str:
    rate = shown(float(f"{traffic.rate:.4g}"), ",g", " requests/s")
    if not isinstance(traffic, ReplayedTraffic):
        return f"{scenario.about}, {rate}"
    adapters = counted(len(traffic.adapters), "adapter")
    return f"{scenario.about}; replayed: {traffic.recording.path.name}, {adapters}, {rate}"
