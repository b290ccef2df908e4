"""Print tables of docs/routing.md on several routers: ``make bench-routers``.

Each scenario that comes with lora-router is played at its rate, with seeds 11 to 13 for 300
simulated seconds. Figures are medians of the seeds.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

from bench.highest_rate import SECONDS, maker, trace_of
from lora_router.simulator.fleet_options import FleetOptions, RouterEvent, RouterTrouble
from lora_router.simulator.fleet_simulation import FleetRun, FleetSimulation
from lora_router.simulator.knowledge import NOTHING, PEERING, SCRAPES, Knowledge
from lora_router.simulator.network import WireOptions
from lora_router.simulator.percentile import percentile
from lora_router.simulator.scenario import shipped_scenario, shipped_scenarios
from lora_router.simulator.summary import WARM_UP

OURS = "lora-placement"
PARTITION_SECONDS, PARTITION_EVERY_SECONDS, FIRST_PARTITION = 5.0, 30.0, 60.0
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
    scrape_seconds: float | None = None
    """``None``: the default."""

    def fleet(self, name: str) -> FleetOptions:
        """Return the fleet of a scenario."""
        fleet = replace(
            shipped_scenario(name).fleet(SECONDS, self.routers),
            knowledge=self.knowledge,
            wire=self.wire,
            router_events=tuple(
                RouterEvent(RouterTrouble.PARTED, router, at, PARTITION_SECONDS)
                for at in partitions()
                for router in range(self.routers)
                if self.is_parted
            ),
        )
        if self.scrape_seconds is not None:
            fleet = replace(fleet, scrape_seconds=self.scrape_seconds)
        return fleet


Figure = Callable[[FleetRun], float]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    variant: Variant
    figure: Figure
    digits: int = 2


def partitions() -> list[float]:
    """Return when partitions begin."""
    times = [FIRST_PARTITION]
    while times[-1] + 2 * PARTITION_EVERY_SECONDS <= SECONDS:
        times.append(times[-1] + PARTITION_EVERY_SECONDS)
    return times


# Figures


def p99(run: FleetRun) -> float:
    """Return the p99 of the time to first token, without the warm-up."""
    return _p99_of(run, lambda at: at >= WARM_UP * SECONDS)


def p99_during(run: FleetRun) -> float:
    """Return the p99 of the requests that arrived during the partitions."""
    return _p99_of(run, lambda at: any(0 <= at - one < PARTITION_SECONDS for one in partitions()))


def p99_after(run: FleetRun) -> float:
    """Return the p99 of the requests that arrived between the partitions, once it has settled."""
    least = PARTITION_SECONDS + SETTLED_SECONDS
    return _p99_of(
        run, lambda at: any(least <= at - one < PARTITION_EVERY_SECONDS for one in partitions())
    )


def loads(run: FleetRun) -> float:
    """Return the adapter loads for every 1,000 requests."""
    return 1000 * sum(pod.loads for pod in run.pods) / (len(run.requests) or 1)


def _p99_of(run: FleetRun, counts: Callable[[float], bool]) -> float:
    times = [each.first_token - each.arrived for each in run.requests if counts(each.arrived)]
    return percentile(sorted(times), 0.99)


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
    yield Column("one", _ONE, loads, 0)
    for routers, knowledge in ((4, SCRAPES), (2, PEERING), (4, PEERING), (8, PEERING)):
        yield Column(f"{routers}, {knowledge}", Variant(routers, knowledge), loads, 0)


def _wire() -> Iterable[Column]:
    yield Column("one", _ONE, p99)
    yield Column("4, 5 to 10 ms", Variant(4), p99)
    yield Column("50 to 60 ms", Variant(4, wire=WireOptions(0.05, 0.01)), p99)
    yield Column("5 % late", Variant(4, wire=WireOptions(late=0.05)), p99)
    yield Column("5 % lost", Variant(4, wire=_LOSSY), p99)
    yield Column("2, 5 % lost", Variant(2, wire=_LOSSY), p99)
    yield Column("loads, one", _ONE, loads, 0)
    yield Column("loads, 4, 5 % lost", Variant(4, wire=_LOSSY), loads, 0)


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


PARTS: dict[str, tuple[tuple[str, Callable[[], Iterable[Column]]], ...]] = {
    "peers": (
        ("p99 of the time to first token, seconds", _peers),
        ("Loads for every 1,000 requests", _loads),
    ),
    "wire": (("p99 of the time to first token, seconds, and loads", _wire),),
    "partition": (("p99 of the time to first token, seconds", _partition),),
    "scrapes": (("p99 of the time to first token, seconds", _intervals),),
}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS, help="the tables")
    parser.add_argument("scenarios", nargs="*", help="names of scenarios; default: all")
    parser.add_argument("--seeds", default="11,12,13")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    tables = [(title, list(columns())) for title, columns in PARTS[arguments.part]]
    everything = [column for _, columns in tables for column in columns]
    rows: dict[str, list[str]] = {}
    with ProcessPoolExecutor() as workers:
        for name in arguments.scenarios or shipped_scenarios():
            rows[name] = list(_cells(workers, name, everything, seeds))
    first = 0
    for title, columns in tables:
        print(f"{title}:\n\n| scenario | {' | '.join(column.title for column in columns)} |")
        print("| --- |" + " ---: |" * len(columns))
        for name, cells in rows.items():
            print(f"| `{name}` | {' | '.join(cells[first : first + len(columns)])} |")
        print()
        first += len(columns)
    what = "Medians of the seeds" if len(seeds) > 1 else "The seed is"
    print(f"{what} {', '.join(map(str, seeds))}, with {SECONDS:g} simulated seconds.")


def _cells(
    workers: ProcessPoolExecutor, name: str, columns: Sequence[Column], seeds: Sequence[int]
) -> Iterable[str]:
    variants = list(dict.fromkeys(column.variant for column in columns))
    keys = [(variant, seed) for variant in variants for seed in seeds]
    futures = {
        key: workers.submit(
            _figures, name, *key, [each.figure for each in columns if each.variant == key[0]]
        )
        for key in keys
    }
    found: dict[tuple[Variant, int, Figure], float] = {}
    for (variant, seed), future in futures.items():
        for figure, value in zip(
            (each.figure for each in columns if each.variant == variant),
            future.result(),
            strict=True,
        ):
            found[variant, seed, figure] = value
    for column in columns:
        median = statistics.median(found[column.variant, seed, column.figure] for seed in seeds)
        yield f"{median:.{column.digits}f}"


def _figures(name: str, variant: Variant, seed: int, figures: Sequence[Figure]) -> list[float]:
    scenario = shipped_scenario(name)
    simulation = FleetSimulation(variant.fleet(name), maker(variant.algorithm), seed)
    run = simulation.run(trace_of(scenario, scenario.rate, seed))
    return [figure(run) for figure in figures]


if __name__ == "__main__":
    main()
