"""Print the routing tables: ``make bench-routing``.

Policies run on scenarios, at shares of what the best policy carries: all of them near the capacity
(85 %), and those that carry most at other loads. Each run is written to a file at once. The command
can be interrupted at any time, and run again with other scenarios or policies: it makes only those
runs that the file lacks. All figures are medians over the seeds.

The load is a share of the scenario's ``capacity``. For a scenario without this key, the highest
rate with a p99 of at most 5 s of a few policies is measured first (seeds: the first three).
"""

import argparse
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.highest_rate import trace_of
from bench.lower_bounds import LowerBounds, lower_bounds
from bench.routing_rates import RateFile, measure_rates, rate_table
from bench.routing_runs import Run, RunFile, make_runs
from bench.routing_settings import Setting, setting_of
from bench.routing_tables import FIGURES, OURS, table
from lora_router.simulator.algorithms import check_known
from lora_router.simulator.scenario import scenarios_of_fixed_fleets
from lora_router.simulator.summary import Summary, median_of

PUBLISHED = (
    "random", "least-request", "power-of-two", "lora-affinity", "four-tier", "lora-residency",
    "shuffle-shard", "prefix-cache", "weighted-scores", "llm-d-default", "sticky-sessions",
    "prefix-cache-preble", "l-metric-local", "toppings", "dynamo-kv", "dynamo-lora", "cost",
    "hold",
)  # fmt: skip
CAPABLE = (OURS, "hold", "lora-affinity", "shuffle-shard", "sticky-sessions")
"""Policies of which one carries the most in each scenario. They decide what the capacity is."""
COLUMNS = (OURS, "hold", "lora-affinity", "shuffle-shard", "weighted-scores")
"""Policies with columns of their own in the tables."""
NEAR = 0.85
"""The load at which all policies run."""
LOADS = (0.6, NEAR, 1.2, 1.8)
SOME = (
    "b-cold", "chats-24", "chats-24-small-cache", "chats-base", "cold-start", "kv-bound",
    "one-slot", "slow-loads", "slow-pod",
)  # fmt: skip
"""The scenarios of ``bench/scenarios`` that run if none is named."""
RECORDED = ("azure", "mooncake")
"""How the names of the scenarios in ``bench/scenarios`` begin that are for recorded requests."""
RATE_SEEDS = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command was asked for."""

    settings: Sequence[Setting]
    policies: Sequence[str] | None
    """``None``: all near the capacity, and those that carry most at other loads."""
    loads: Sequence[float]
    seeds: Sequence[int]
    processes: int
    capacities: Mapping[str, float]
    """Requests per second at 100 %, by the name of the scenario."""

    def policies_at(self, load: float) -> Sequence[str]:
        """Return the policies that run at a share of the capacity."""
        if self.policies is not None:
            return self.policies
        return (OURS, *PUBLISHED) if load == NEAR else CAPABLE

    def runs(self) -> list[Run]:
        """Return all runs.

        Those of the policies that the tables show come first, and of these, those near the
        capacity. So the tables are complete early, apart from the other policies.
        """
        cases = [(policy, load) for load in self.loads for policy in self.policies_at(load)]
        cases.sort(key=lambda case: (case[0] not in (*COLUMNS, *CAPABLE), case[1] != NEAR, case[1]))
        return [
            Run(setting, load, load * self.capacities[setting.name], policy, seed)
            for policy, load in cases
            for setting in self.settings
            for seed in self.seeds
        ]


def main() -> None:
    """Make the runs, and print."""
    parser = _parser()
    arguments = parser.parse_args()
    try:
        check_known([*(arguments.policies or ()), *arguments.columns])
        settings = _settings(arguments)
        rate_seeds = arguments.seeds[:RATE_SEEDS]
        rate_file = RateFile(arguments.runs.with_suffix(".rates.jsonl"), rate_seeds)
        run_file = RunFile(arguments.runs)
        capacities = _capacities(arguments, settings, rate_file, rate_seeds)
    except (LookupError, ValueError, OSError) as error:
        parser.error(str(error))
    wanted = Wanted(
        settings,
        arguments.policies,
        arguments.loads,
        arguments.seeds,
        arguments.processes,
        capacities,
    )
    if arguments.rates:
        policies = arguments.policies or CAPABLE
        rates = measure_rates(rate_file, settings, policies, rate_seeds, arguments.processes)
        print(rate_table(rates, policies, OURS))
    if not arguments.tables_only:
        make_runs(run_file, wanted.runs(), arguments.processes)
    for load in arguments.loads:
        found = _medians(run_file, wanted, load)
        columns = [name for name in arguments.columns if name in wanted.policies_at(load)]
        for name in arguments.figures:
            names = [setting.name for setting in settings]
            print(table(FIGURES[name], load, names, columns, found))
        print(_what_was_run(wanted, load, found))
        if arguments.bounds:
            print(_bound_table(wanted, load, found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "scenarios",
        nargs="*",
        help="names of scenarios or YAML files; default: all that are shipped, and "
        f"{', '.join(SOME)} of bench/scenarios",
    )
    parser.add_argument(
        "--every-scenario",
        action="store_true",
        help="all of bench/scenarios, without those for recorded requests",
    )
    parser.add_argument(
        "--trace",
        action="append",
        default=[],
        metavar="SCENARIO=FILE",
        help="play a file of recorded requests in a scenario; can be repeated",
    )
    parser.add_argument(
        "--capacity",
        action="append",
        default=[],
        metavar="SCENARIO=RATE",
        help="requests per second at 100 %%, in place of the scenario's; can be repeated",
    )
    parser.add_argument(
        "--policies",
        type=_names,
        metavar="NAME,...",
        help=f"default: all at {NEAR:.0%}%, and {', '.join(CAPABLE)} at other loads",
    )
    parser.add_argument(
        "--columns",
        type=_names,
        default=COLUMNS,
        metavar="NAME,...",
        help="policies with columns of their own; ours is compared with all that were run",
    )
    parser.add_argument("--loads", type=_loads, default=list(LOADS), metavar="SHARE,...")
    parser.add_argument("--seeds", type=_seeds, default=[11, 12, 13, 14, 15], metavar="N,...")
    parser.add_argument(
        "--figures",
        type=_figures,
        default=["ttft", "end-to-end", "good", "refused", "worst", "hits"],
        metavar="NAME,...",
        help=f"tables to print: {', '.join(FIGURES)}",
    )
    parser.add_argument(
        "--duration", type=float, metavar="SECONDS", help="length of a trace, or part of a file"
    )
    parser.add_argument(
        "--aside",
        action="store_true",
        help="also run each scenario with loads that do not stall the batch",
    )
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument(
        "--runs", type=Path, default=Path("build/routing-runs.jsonl"), metavar="FILE"
    )
    parser.add_argument(
        "--tables-only", action="store_true", help="print what the file has; run nothing"
    )
    parser.add_argument("--rates", action="store_true", help="also the highest rates (slow)")
    parser.add_argument("--bounds", action="store_true", help="also lower bounds (slow)")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _loads(text: str) -> list[float]:
    loads = [float(each) for each in _names(text)]
    if not all(0.0 < load <= 100.0 for load in loads):
        raise argparse.ArgumentTypeError(f"{text}: must be shares above 0, such as 0.6,0.85")
    return loads


def _seeds(text: str) -> list[int]:
    return [int(each) for each in _names(text)]


def _figures(text: str) -> list[str]:
    names = _names(text)
    for name in names:
        if name not in FIGURES:
            known = ", ".join(FIGURES)
            raise argparse.ArgumentTypeError(f"unknown figure {name!r}; known are {known}")
    return names


def _settings(arguments: argparse.Namespace) -> list[Setting]:
    traces = _assigned("--trace", arguments.trace)
    names = arguments.scenarios
    if not names and not traces:
        names = _default_scenarios(every=arguments.every_scenario)
    pairs: list[tuple[str, Path | None]] = [(name, None) for name in names]
    pairs += [(name, Path(text)) for name, text in traces.items()]
    return [
        setting_of(name, trace=trace, aside=aside, seconds=arguments.duration)
        for aside in ((False, True) if arguments.aside else (False,))
        for name, trace in pairs
    ]


def _default_scenarios(*, every: bool) -> list[str]:
    files = sorted((Path(__file__).parent / "scenarios").glob("*.yaml"))
    own = [
        str(file)
        for file in files
        if file.stem in SOME or (every and not file.name.startswith(RECORDED))
    ]
    return [*scenarios_of_fixed_fleets(), *own]


def _capacities(
    arguments: argparse.Namespace,
    settings: Sequence[Setting],
    rate_file: RateFile,
    seeds: Sequence[int],
) -> dict[str, float]:
    """Return what is 100 % of each setting, in requests per second."""
    given = {
        name: float(text) for name, text in _assigned("--capacity", arguments.capacity).items()
    }
    found: dict[str, float] = {}
    unknown: list[Setting] = []
    for setting in settings:
        capacity = given.get(setting.scenario.name, setting.scenario.keys.capacity)
        if capacity is None:
            unknown.append(setting)
        else:
            found[setting.name] = capacity
    measured = measure_rates(rate_file, unknown, CAPABLE, seeds, arguments.processes)
    return found | {name: max(rates.values()) for name, rates in measured.items()}


def _assigned(flag: str, texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise ValueError(f"{flag} {text}: must be SCENARIO=VALUE")
        found[name] = value
    return found


def _medians(file: RunFile, wanted: Wanted, load: float) -> dict[str, dict[str, Summary]]:
    """Return the medians of the settings and policies of which all seeds were run."""
    runs: dict[tuple[str, str], list[Summary | None]] = {}
    for run in wanted.runs():
        if run.load == load:
            runs.setdefault((run.setting.name, run.policy), []).append(file.get(run))
    found: dict[str, dict[str, Summary]] = {}
    for (setting, policy), summaries in runs.items():
        made = [each for each in summaries if each is not None]
        if len(made) == len(summaries):
            found.setdefault(setting, {})[policy] = median_of(made)
    return found


def _what_was_run(wanted: Wanted, load: float, found: Mapping[str, Mapping[str, Summary]]) -> str:
    """Return a line that says which policies and seeds the tables of a load have."""
    counts = Counter(policy for policies in found.values() for policy in policies)
    names = [
        f"`{name}`" if counts[name] == len(wanted.settings) else f"`{name}` (in {counts[name]})"
        for name in wanted.policies_at(load)
        if counts[name]
    ]
    seeds = ", ".join(map(str, wanted.seeds))
    return f"At {load:.0%} were run, with the seeds {seeds}: {', '.join(names) or 'none'}.\n"


def _bound_table(wanted: Wanted, load: float, found: Mapping[str, Mapping[str, Summary]]) -> str:
    lines = [
        f"### `{OURS}` at {load:.0%}: beside lower bounds",
        "",
        "| scenario | p99 | bound | loads | knowing popularity | knowing the future | held "
        "| waited for a slot | moved |",
        "| --- |" + " ---: |" * 8,
    ]
    for setting in wanted.settings:
        ours = found.get(setting.name, {}).get(OURS)
        if ours is None or setting.trace is not None:
            continue
        bounds = _bounds(setting, load * wanted.capacities[setting.name], wanted.seeds)
        lines.append(
            f"| `{setting.name}` | {ours.ttft['p99']:.2f} | {bounds.p99:.2f} | {ours.loads:.0f} "
            f"| {bounds.loads_knowing_popularity:.0f} | {bounds.loads_knowing_the_future:.0f} "
            f"| {ours.held:.1%} | {ours.slot_waits:.1%} | {ours.moved:.0%} |"
        )
    return "\n".join((*lines, ""))


def _bounds(setting: Setting, rate: float, seeds: Sequence[int]) -> LowerBounds:
    scenario = setting.played()
    found = [asdict(lower_bounds(scenario, trace_of(scenario, rate, seed), seed)) for seed in seeds]
    return LowerBounds(**{key: statistics.median(each[key] for each in found) for key in found[0]})


if __name__ == "__main__":
    main()
