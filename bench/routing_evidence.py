"""Print the tables of docs/routing.md: ``make bench-routing``.

For each scenario that comes with lora-router, once with loads that stall the batch and once with
loads that do not, the tables show the highest rate that each algorithm carries. Then, at 60 % and
at 85 % of the highest of these rates, they show what each algorithm makes of the same traces, and
lower bounds. All figures are medians of five seeds.
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.highest_rate import LIMIT_SECONDS, highest_rate, play, trace_of, with_loads
from bench.lower_bounds import LowerBounds, lower_bounds
from lora_router.simulator.scenario import Scenario, scenarios_of_fixed_fleets, shipped_scenario
from lora_router.simulator.summary import Summary, median_of

PUBLISHED = (
    "random", "least-request", "power-of-two", "lora-affinity", "four-tier", "lora-residency",
    "shuffle-shard",
)  # fmt: skip
OURS = "lora-placement"
SHARES = (0.6, 0.85)


@dataclass(frozen=True, slots=True)
class Setting:
    """A scenario, with loads that stall the batch or with loads that do not."""

    scenario: Scenario
    block: bool

    @property
    def name(self) -> str:
        """The name in the JSON file."""
        return self.scenario.name + ("" if self.block else ", loads aside")


@dataclass(frozen=True, slots=True)
class Found:
    """The figures of one setting at one share of the highest load."""

    rate: float
    summaries: Mapping[str, Summary]
    bounds: LowerBounds

    @property
    def best_published(self) -> str:
        """The published algorithm with the lowest p99 of the time to first token."""
        return min(PUBLISHED, key=lambda name: self.summaries[name].ttft["p99"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", help="names of scenarios; default: all")
    parser.add_argument("--seeds", default="11,12,13,14,15")
    parser.add_argument(
        "--rate-seeds", type=int, default=3, help="number of seeds for the highest rates"
    )
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    names = arguments.scenarios or scenarios_of_fixed_fleets()
    settings = [
        Setting(with_loads(shipped_scenario(name), block=block), block)
        for block in (True, False)
        for name in names
    ]
    with ProcessPoolExecutor() as workers:
        rates = _rates(workers, settings, seeds[: arguments.rate_seeds])
        print(_rate_table(settings, rates))
        for share in SHARES:
            found = _at_share(workers, settings, rates, share, seeds)
            print(_time_table(settings, found, share))
            print(_bound_table(settings, found, share))
            if arguments.json is not None:
                _write(arguments.json.with_stem(f"{arguments.json.stem}-{share:.2f}"), found)


def _rates(
    workers: ProcessPoolExecutor, settings: Sequence[Setting], seeds: Sequence[int]
) -> dict[str, dict[str, float]]:
    keys = [(setting, name) for setting in settings for name in (*PUBLISHED, OURS)]
    found = workers.map(
        highest_rate,
        (setting.scenario for setting, _ in keys),
        (name for _, name in keys),
        (seeds for _ in keys),
    )
    rates: dict[str, dict[str, float]] = {setting.name: {} for setting in settings}
    for (setting, name), rate in zip(keys, found, strict=True):
        rates[setting.name][name] = rate
    return rates


def _at_share(
    workers: ProcessPoolExecutor,
    settings: Sequence[Setting],
    rates: Mapping[str, Mapping[str, float]],
    share: float,
    seeds: Sequence[int],
) -> dict[str, Found]:
    keys = [
        (setting, name, share * max(rates[setting.name].values()), seed)
        for setting in settings
        for name in (*PUBLISHED, OURS)
        for seed in seeds
    ]
    columns = zip(*((key[0].scenario, *key[1:]) for key in keys), strict=True)
    played: dict[tuple[str, str], list[Summary]] = {}
    for key, summary in zip(keys, workers.map(play, *columns, chunksize=4), strict=True):
        played.setdefault((key[0].name, key[1]), []).append(summary)
    return {
        setting.name: Found(
            rate := share * max(rates[setting.name].values()),
            {name: median_of(played[setting.name, name]) for name in (*PUBLISHED, OURS)},
            _bounds(setting.scenario, rate, seeds),
        )
        for setting in settings
    }


def _bounds(scenario: Scenario, rate: float, seeds: Sequence[int]) -> LowerBounds:
    found = [asdict(lower_bounds(scenario, trace_of(scenario, rate, seed), seed)) for seed in seeds]
    return LowerBounds(**{key: statistics.median(each[key] for each in found) for key in found[0]})


# Tables


def _rate_table(settings: Iterable[Setting], rates: Mapping[str, Mapping[str, float]]) -> str:
    lines = [
        f"### Highest load with a p99 of at most {LIMIT_SECONDS:g} s, requests per second",
        "",
        f"| scenario | {' | '.join(f'`{name}`' for name in PUBLISHED)} | `{OURS}` "
        "| ratio to next best |",
        "| --- |" + " ---: |" * (len(PUBLISHED) + 2),
    ]
    for setting in settings:
        found = rates[setting.name]
        best = max(found[name] for name in PUBLISHED)
        figures = _bold([found[name] for name in (*PUBLISHED, OURS)], max(found.values()), 1)
        ratio = f"{found[OURS] / best:.2f}"
        lines.append(f"| `{setting.scenario.name}`{_aside(setting)} | {figures} | {ratio} |")
    return "\n".join((*lines, ""))


def _time_table(settings: Iterable[Setting], found: Mapping[str, Found], share: float) -> str:
    lines = [
        f"### p99 of the time to first token at {share:.0%} of the highest load, seconds",
        "",
        f"| scenario | {' | '.join(f'`{name}`' for name in PUBLISHED)} | `{OURS}` "
        "| ratio to next best | bound |",
        "| --- |" + " ---: |" * (len(PUBLISHED) + 3),
    ]
    for setting in settings:
        here = found[setting.name]
        p99 = {name: summary.ttft["p99"] for name, summary in here.summaries.items()}
        figures = _bold([p99[name] for name in (*PUBLISHED, OURS)], min(p99.values()), 2)
        ratio = p99[OURS] / p99[here.best_published]
        lines.append(
            f"| `{setting.scenario.name}`{_aside(setting)} | {figures} | {ratio:.2f} "
            f"| {here.bounds.p99:.2f} |"
        )
    return "\n".join((*lines, ""))


def _bound_table(settings: Iterable[Setting], found: Mapping[str, Found], share: float) -> str:
    lines = [
        f"### `{OURS}` at {share:.0%}: loads per 1,000 requests, and fairness",
        "",
        "| scenario | loads | `lora-affinity` | knowing popularity | knowing the future "
        "| held | waited for a slot | worst adapter's p99 | median adapter's | moved |",
        "| --- |" + " ---: |" * 9,
    ]
    for setting in settings:
        here = found[setting.name]
        ours, bounds = here.summaries[OURS], here.bounds
        lines.append(
            f"| `{setting.scenario.name}`{_aside(setting)} | {ours.loads:.0f} "
            f"| {here.summaries['lora-affinity'].loads:.0f} "
            f"| {bounds.loads_knowing_popularity:.0f} | {bounds.loads_knowing_the_future:.0f} "
            f"| {ours.held:.1%} | {ours.slot_waits:.1%} | {ours.worst_adapter_p99:.2f} "
            f"| {ours.median_adapter_p99:.2f} | {ours.moved:.0%} |"
        )
    return "\n".join((*lines, ""))


def _aside(setting: Setting) -> str:
    return "" if setting.block else " *"


def _bold(figures: Sequence[float], best: float, digits: int) -> str:
    shown = [f"{figure:.{digits}f}" for figure in figures]
    return " | ".join(f"**{text}**" if text == f"{best:.{digits}f}" else text for text in shown)


def _write(path: Path, found: Mapping[str, Found]) -> None:
    path.write_text(json.dumps({name: asdict(each) for name, each in found.items()}, indent=1))


if __name__ == "__main__":
    main()
