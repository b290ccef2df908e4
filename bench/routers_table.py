"""Write the tables of docs/routing.md on several routers: ``make bench-routers``.

Each scenario that comes with lora-router is played at its rate for 150 simulated seconds, with the
seeds 11 to 13. The part ``overload`` plays some of them above their capacity. The requests of all
seeds count together: the p99 of one seed in the few seconds of a partition is one or two requests,
which differ more between seeds than between variants.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from bench.highest_rate import maker
from lora_router.simulator.fleet_options import FleetOptions, RouterEvent, RouterTrouble
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.knowledge import NOTHING, PEERING, SCRAPES, Knowledge
from lora_router.simulator.network import WireOptions
from lora_router.simulator.percentile import percentile
from lora_router.simulator.scenario import (
    Scenario,
    scenarios_of_fixed_fleets,
    shipped_scenario,
)
from lora_router.simulator.summary import WARM_UP
from lora_router.simulator.trace import make_trace

OURS = "lora-placement"
SECONDS = 150.0
"""Length of a trace."""
OVERLOADED = ("b-zipf", "c-slot-bound", "e-hot-shift")
OVER = 1.2
"""Their load, as a share of the capacity."""
PARTITION_SECONDS, PARTITION_EVERY_SECONDS, FIRST_PARTITION = 5.0, 15.0, 20.0
SETTLED_SECONDS = 1.0
"""After a partition, figures are as before from this time on."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Routers, and what they know of each other."""

    routers: int = 1
    knowledge: Knowledge = PEERING
    algorithm: str = OURS
    wire: WireOptions = WireOptions()  # noqa: RUF009 -- it is frozen
    is_parted: bool = False
    """Whether all routers are parted from each other, again and again."""
    scrape_seconds: float = 0.25
    """As by default."""
    load: float | None = None
    """Share of the scenario's capacity. ``None``: its rate."""

    def rate(self, scenario: Scenario) -> float:
        """Return the requests per second in a scenario."""
        return scenario.rate if self.load is None else scenario.rate_at(self.load)

    def fleet(self, name: str) -> FleetOptions:
        """Return the fleet of a scenario."""
        return replace(
            shipped_scenario(name).fleet(SECONDS, self.routers),
            knowledge=self.knowledge,
            wire=self.wire,
            scrape_seconds=self.scrape_seconds,
            router_events=tuple(
                RouterEvent(RouterTrouble.PARTED, router, at, PARTITION_SECONDS)
                for at in partitions()
                for router in range(self.routers)
                if self.is_parted
            ),
        )


@dataclass(frozen=True, slots=True)
class Played:
    """The outcome of one variant, with all seeds."""

    times: Sequence[tuple[float, float]]
    """For each request, when it arrived, and the time to its first token, in seconds."""
    loads: int
    good: int = 0
    """Requests within the limits of the scenario, without the warm-up."""
    refused: int = 0
    """Requests that were refused, without the warm-up."""

    @property
    def asked(self) -> int:
        """All requests without the warm-up."""
        return self.refused + sum(arrived >= WARM_UP * SECONDS for arrived, _ in self.times)

    def p99(self, counts: Callable[[float], bool]) -> float:
        """Return the p99 of the time to first token of the requests whose arrivals count."""
        return percentile(sorted(time for arrived, time in self.times if counts(arrived)), 0.99)


Figure = Callable[[Played], str]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    variant: Variant
    figure: Figure


def partitions() -> list[float]:
    """Return when partitions begin: not at the moment at which a scenario's pod fails."""
    times = [FIRST_PARTITION]
    while times[-1] + 2 * PARTITION_EVERY_SECONDS <= SECONDS:
        times.append(times[-1] + PARTITION_EVERY_SECONDS)
    return times


# Figures


def p99(played: Played) -> str:
    """Return the p99 of the time to first token, without the warm-up."""
    return f"{played.p99(lambda at: at >= WARM_UP * SECONDS):.2f}"


def p99_during(played: Played) -> str:
    """Return the p99 of the requests that arrived during the partitions."""
    return f"{played.p99(lambda at: 0 <= _since_partition(at) < PARTITION_SECONDS):.2f}"


def p99_after(played: Played) -> str:
    """Return the p99 of the requests that arrived between the partitions, once it has settled."""
    settled = PARTITION_SECONDS + SETTLED_SECONDS
    return f"{played.p99(lambda at: _since_partition(at) >= settled):.2f}"


def loads(played: Played) -> str:
    """Return the adapter loads for every 1,000 requests."""
    return f"{1000 * played.loads / (len(played.times) or 1):.0f}"


def good(played: Played) -> str:
    """Return the share of the requests that were within the limits of TTFT and TPOT."""
    return f"{played.good / played.asked:.1%}"


def refused(played: Played) -> str:
    """Return the share of the requests that were refused."""
    return f"{played.refused / played.asked:.1%}"


def _since_partition(at: float) -> float:
    """Return the seconds since the last partition began; negative before the first one."""
    last = max((one for one in partitions() if one <= at), default=SECONDS)
    return at - last


# Tables

_LOSSY = WireOptions(loss=0.05)
_ONE = Variant(1, SCRAPES)


def _peers() -> Iterable[Column]:
    yield Column("one", _ONE, p99)
    for routers in (2, 4):
        for knowledge in (NOTHING, SCRAPES, PEERING):
            yield Column(f"{routers}, {knowledge}", Variant(routers, knowledge), p99)
    yield Column("8, peering", Variant(8), p99)
    for algorithm in ("lora-affinity", "shuffle-shard"):
        yield Column(f"4, scrapes, `{algorithm}`", Variant(4, SCRAPES, algorithm), p99)


def _loads() -> Iterable[Column]:
    yield Column("one", _ONE, loads)
    for routers, knowledge in ((4, SCRAPES), (2, PEERING), (4, PEERING), (8, PEERING)):
        yield Column(f"{routers}, {knowledge}", Variant(routers, knowledge), loads)


def _wire() -> Iterable[Column]:
    yield Column("one", _ONE, p99)
    yield Column("4, 5 to 10 ms", Variant(4), p99)
    yield Column("50 to 60 ms", Variant(4, wire=WireOptions(0.05, 0.01)), p99)
    yield Column("5 % late", Variant(4, wire=WireOptions(late=0.05)), p99)
    yield Column("5 % lost", Variant(4, wire=_LOSSY), p99)
    yield Column("2, 5 % lost", Variant(2, wire=_LOSSY), p99)
    yield Column("loads, one", _ONE, loads)
    yield Column("loads, 4, 5 % lost", Variant(4, wire=_LOSSY), loads)


def _partition() -> Iterable[Column]:
    for routers in (2, 4):
        parted = Variant(routers, is_parted=True)
        yield Column(f"{routers}, scrapes, during", Variant(routers, SCRAPES), p99_during)
        yield Column(f"{routers}, parted, during", parted, p99_during)
        yield Column(f"{routers}, never parted, after", Variant(routers), p99_after)
        yield Column(f"{routers}, parted, after", parted, p99_after)


def _intervals() -> Iterable[Column]:
    for title, routers, knowledge in (
        ("one", 1, SCRAPES),
        ("2, scrapes", 2, SCRAPES),
        ("2, peering", 2, PEERING),
    ):
        for interval in (1.0, 0.5, 0.25, 0.1):
            variant = Variant(routers, knowledge, scrape_seconds=interval)
            yield Column(f"{title}, {1000 * interval:.0f} ms", variant, p99)


def _overloaded(figure: Figure) -> Callable[[], Iterable[Column]]:
    def columns() -> Iterable[Column]:
        for title, routers in (("one", 1), ("2", 2), ("4", 4), ("8", 8)):
            yield Column(title, Variant(routers, load=OVER), figure)

    return columns


PARTS: dict[str, tuple[tuple[str, Callable[[], Iterable[Column]]], ...]] = {
    "peers": (
        ("p99 of the time to first token, seconds", _peers),
        ("Loads for every 1,000 requests", _loads),
    ),
    "wire": (("p99 of the time to first token, seconds, and loads", _wire),),
    "partition": (("p99 of the time to first token, seconds", _partition),),
    "scrapes": (("p99 of the time to first token, seconds", _intervals),),
    "overload": (
        ("p99 of the time to first token, seconds", _overloaded(p99)),
        ("Goodput: share of the requests within the limits", _overloaded(good)),
        ("Share of the requests that were refused", _overloaded(refused)),
    ),
}


def main() -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--scenarios", help="names, separated by commas; default: all")
    parser.add_argument("--seeds", default="11,12,13")
    parser.add_argument(
        "--into", type=Path, default=Path("build"), help="the directory for routers-PART.md"
    )
    arguments = parser.parse_args()
    parts = arguments.parts or list(PARTS)
    unknown = sorted(set(parts) - PARTS.keys())
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    arguments.into.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, Variant], Played] = {}
    with ProcessPoolExecutor() as workers:
        for part in parts:
            names = OVERLOADED if part == "overload" else scenarios_of_fixed_fleets()
            if arguments.scenarios:
                names = arguments.scenarios.split(",")
            tables = [(title, list(columns())) for title, columns in PARTS[part]]
            variants = dict.fromkeys(each.variant for _, columns in tables for each in columns)
            wanted = [(name, each) for name in names for each in variants]
            _play(workers, [each for each in wanted if each not in found], seeds, found)
            text = "".join(_table(title, names, columns, found) for title, columns in tables)
            what = "Seeds" if len(seeds) > 1 else "Seed"
            text += f"{what} {', '.join(map(str, seeds))}, {SECONDS:g} simulated seconds each.\n"
            (arguments.into / f"routers-{part}.md").write_text(text)
            print(text, flush=True)


def _play(
    workers: ProcessPoolExecutor,
    wanted: Sequence[tuple[str, Variant]],
    seeds: Sequence[int],
    found: dict[tuple[str, Variant], Played],
) -> None:
    keys = [(name, variant, seed) for name, variant in wanted for seed in seeds]
    for number, (key, played) in enumerate(
        zip(keys, workers.map(_play_one, *zip(*keys, strict=True)), strict=True), 1
    ):
        before = found.get(key[:2], Played((), 0))
        found[key[:2]] = Played(
            [*before.times, *played.times],
            before.loads + played.loads,
            before.good + played.good,
            before.refused + played.refused,
        )
        if number % 20 == 0:
            print(f"{number} of {len(keys)} runs", file=sys.stderr, flush=True)


def _play_one(name: str, variant: Variant, seed: int) -> Played:
    scenario = shipped_scenario(name)
    rate = variant.rate(scenario)
    trace = make_trace(scenario.workload, rate=rate, seconds=SECONDS, seed=seed)
    fleet = variant.fleet(name)
    run = FleetSimulation(fleet, maker(variant.algorithm, fleet), seed).run(trace)
    times = [(each.arrived, each.first_token - each.arrived) for each in run.requests]
    since = WARM_UP * SECONDS
    return Played(
        times,
        sum(pod.loads for pod in run.pods),
        sum(scenario.goodput.is_good(each) for each in run.requests if each.arrived >= since),
        sum(each.arrived >= since for each in run.turned_away),
    )


def _table(
    title: str,
    names: Iterable[str],
    columns: Sequence[Column],
    found: Mapping[tuple[str, Variant], Played],
) -> str:
    lines = [f"{title}:", "", f"| scenario | {' | '.join(each.title for each in columns)} |"]
    lines.append("| --- |" + " ---: |" * len(columns))
    for name in names:
        cells = (each.figure(found[name, each.variant]) for each in columns)
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join((*lines, "", ""))


if __name__ == "__main__":
    main()
