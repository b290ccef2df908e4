"""Several routers over one live fleet: ``make bench-fleet``.

A real Envoy gives each request to the next of one, two or four router processes, and these send it
to simulated pods, which are processes too. The same traces are replayed for each number of routers.
Then a router is killed in the middle of a trace, and another one is added.

The time of an answer is that of the simulated pods as long as the machine keeps up. How late the
load generator was says whether it did.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from bench.live_case import (
    ENOUGH_SLOTS,
    LOADS,
    Case,
    Change,
    Run,
    after_warm_up,
    play,
    play_with_change,
    ttft,
)
from lora_router.demo.load import Outcome
from lora_router.demo.processes import ChildError
from lora_router.demo.stack import envoy_binary

ALGORITHMS = ("lora-placement", "lora-affinity")
GROUPS = ((1, True), (2, True), (4, True), (2, False))
"""Routers, and whether they are peers. The first one is what the others are compared with."""
CHANGED_ROUTERS = 2
_AFTERWARDS_SECONDS = 5.0
Runs = Mapping[Case, Sequence[Run]]


def routers_table(runs: Runs) -> list[str]:
    """Return the table that compares numbers of routers.

    Args:
        runs: For each case, a run for each seed, in the order of the table.
    """
    lines = [
        "| load | algorithm | routers | TTFT p50 | p99 | beside one | adapter loads | beside one "
        "| waited for a slot | errors |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    return [*lines, *(_row(case, runs) for case in runs)]


def _row(case: Case, runs: Runs) -> str:
    alone = replace(case, routers=1, peering=True)
    found, of_one = _figures(runs[case]), _figures(runs.get(alone, ()))
    name = str(case.routers) if case.peering else f"{case.routers}, not peers"
    p50, p99, loads, waits, errors = found
    return (
        f"| {case.load} | `{case.algorithm}` | {name} | {p50:.2f} s | {p99:.2f} s "
        f"| {_ratio(p99, of_one[1])} | {loads:.0f} | {_ratio(loads, of_one[2])} "
        f"| {waits:.0f} | {errors:.0f} |"
    )


def _figures(runs: Sequence[Run]) -> tuple[float, float, float, float, float]:
    """Return p50, p99, and the means of the loads, the waits for a slot and the errors."""
    if not runs:
        return (0.0,) * 5
    seconds = max(outcome.at for run in runs for outcome in run.outcomes)
    warm = after_warm_up(runs, seconds)
    return (
        ttft(warm, 0.5),
        ttft(warm, 0.99),
        fmean(run.loads for run in runs),
        fmean(run.slot_waits for run in runs),
        fmean(sum(each.error is not None for each in run.outcomes) for run in runs),
    )


def _ratio(value: float, one: float) -> str:
    return f"{value / one:.2f} x" if one else "-"


def changes_table(
    changed: Mapping[Case, Sequence[tuple[Run, Change]]], undisturbed: Runs
) -> list[str]:
    """Return the table of a router that is killed and one that is added."""
    lines = [
        "| load | algorithm | requests | lost | p99 before | 5 s after the kill | undisturbed "
        "| 5 s after the addition | undisturbed | forgotten after | ghosts | used after |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case, pairs in changed.items():
        runs, changes = [run for run, _ in pairs], [change for _, change in pairs]
        killed, added = (
            fmean(change.killed_at for change in changes),
            fmean(change.added_at for change in changes),
        )
        outcomes = [outcome for run in runs for outcome in run.outcomes]
        others = [outcome for run in undisturbed.get(case, ()) for outcome in run.outcomes]
        lost = sum(outcome.error is not None for outcome in outcomes)
        windows = (
            _window(outcomes, killed / 3, killed),
            _window(outcomes, killed, killed + _AFTERWARDS_SECONDS),
            _window(others, killed, killed + _AFTERWARDS_SECONDS),
            _window(outcomes, added, added + _AFTERWARDS_SECONDS),
            _window(others, added, added + _AFTERWARDS_SECONDS),
        )
        lines.append(
            f"| {case.load} | `{case.algorithm}` | {len(outcomes):,} | {lost} "
            + "".join(f"| {p99:.2f} s " for p99 in windows)
            + f"| {max(change.forgotten_after for change in changes):.2f} s "
            f"| {max(change.ghosts for change in changes):.0f} "
            f"| {max(change.used_after for change in changes):.1f} s |"
        )
    return lines


def _window(outcomes: Iterable[Outcome], begin: float, end: float) -> float:
    return ttft([each for each in outcomes if begin <= each.at < end], 0.99)


def lateness(runs: Runs) -> float:
    """Return the 99th percentile of how late requests were sent, in seconds."""
    late = sorted(
        outcome.late_seconds for each in runs.values() for run in each for outcome in run.outcomes
    )
    return late[len(late) * 99 // 100] if late else 0.0


def cases(loads: Sequence[str], algorithms: Sequence[str], routers: Sequence[int]) -> list[Case]:
    """Return the cases to compare, in the order of the table."""
    return [
        Case(load, algorithm, count, peering)
        for load in loads
        for algorithm in algorithms
        for count, peering in GROUPS
        if count in routers
    ]


async def measure(chosen: argparse.Namespace) -> list[str]:
    """Measure, and return the tables."""
    envoy_binary()
    compared = cases(chosen.load or LOADS, chosen.algorithm or ALGORITHMS, chosen.routers)
    runs: dict[Case, list[Run]] = {}
    # Seed by seed, so that a machine that becomes slower is not one case's misfortune.
    for seed in chosen.seeds:
        for case in compared:
            _say(f"{case}, seed {seed}")
            runs.setdefault(case, []).append(await play(case, chosen.seconds, seed))
    lines = routers_table(runs)
    changed: dict[Case, list[tuple[Run, Change]]] = {}
    if not chosen.no_change:
        for seed in chosen.seeds:
            for case in compared:
                if case.routers == CHANGED_ROUTERS and case.peering:
                    _say(f"{case}, seed {seed}: one is killed, one is added")
                    pair = await play_with_change(case, chosen.seconds, seed)
                    changed.setdefault(case, []).append(pair)
        lines += [
            "",
            f"{CHANGED_ROUTERS} routers that are peers; one is killed after a third of the time, "
            "and another one is started after two thirds:",
            "",
            *changes_table(changed, runs),
        ]
    seeds = ", ".join(map(str, chosen.seeds))
    lines += [
        "",
        f"{chosen.seconds:g} s for each run, seeds {seeds}. The load generator sent 99 % of the "
        f"requests within {1000 * lateness(runs):.0f} ms of their time.",
    ]
    return lines


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(each) for each in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: must be numbers joined by commas") from None
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be numbers from 1")
    return numbers


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line. Exits with status 2 if it is invalid."""
    known = sorted({count for count, _ in GROUPS})
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a trace")
    parser.add_argument("--seeds", type=_numbers, default=(11, 12, 13))
    parser.add_argument("--routers", type=_numbers, default=tuple(known))
    parser.add_argument("--algorithm", action="append", help="can be repeated")
    parser.add_argument(
        "--load", action="append", choices=LOADS, help=f"default: {ENOUGH_SLOTS} and more"
    )
    parser.add_argument("--no-change", action="store_true", help="kill and add no router")
    chosen = parser.parse_args(arguments)
    if not 3.0 <= chosen.seconds <= 3600.0:
        parser.error(f"--seconds {chosen.seconds:g}: must be from 3 to 3600")
    if unknown := set(chosen.routers) - set(known):
        parser.error(f"--routers {min(unknown)}: must be among {', '.join(map(str, known))}")
    return chosen


def main() -> None:
    """Measure, and print the tables."""
    try:
        lines = asyncio.run(measure(parse()))
    except ChildError as error:
        sys.exit(f"bench-fleet: {error}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
