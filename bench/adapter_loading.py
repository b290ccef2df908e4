"""Print what it is worth that adapters are loaded where they belong.

``make bench-adapter-loading`` writes the table of docs/adapters.md.

Each row plays the same requests three times: each pod lists all adapters and loads one when it is
asked for it; the loader has time before the first request; the loader begins with the first one.
Figures are medians over the seeds. What the loader could reach at best is that of a fleet that
wastes no slot (``perfect_slots``), with everything in host memory.

Whether somebody loses is not told by the p99 of single adapters: of 100 requests, one or two are
above it, so that it is chance. So there are two figures, of all seeds together, for the loader that
has time before. Adapters of different seeds count as the same if they are equally popular there,
because each seed deals the names anew:

- *worst group*: adapters that follow each other in popularity, with 1,000 requests together, so
  that ten are above their p99. The largest quotient of the p99 of such a group, and its seconds
  with the loader.
- *worst adapter*: the largest quotient of the mean of the slowest tenth of one adapter's requests,
  of those with 100 requests or more.
"""

import argparse
import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from bench.highest_rate import maker
from bench.perfect_slots import PerfectSlots
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.loader_keys import LoaderKeys
from lora_router.simulator.percentile import percentile
from lora_router.simulator.scenario import Scenario, find_scenario
from lora_router.simulator.scenario_keys import UNLIMITED
from lora_router.simulator.summary import WARM_UP
from lora_router.simulator.trace import BASE_MODEL
from lora_router.simulator.traffic import GeneratedTraffic

POLICY = "lora-placement"
SCENARIOS = ("b-zipf", "c-slot-bound", "e-hot-shift", "mixed-slots")
"""Those in which adapters are many and slots are few."""
WARM = ("a-uniform", "f-half-base")
"""Those in which everything is in host memory at the start, so that there is little to gain."""
ALL, QUARTER = "all", "a quarter"
MEMORIES: Mapping[str, Sequence[str]] = {"a-uniform": (ALL,)}
"""For how many adapters there is host memory, where it is not both."""
BEFORE_SECONDS = 150.0
FEWEST_IN_GROUP = 1000
"""Requests that adapters of about the same popularity must have together for a p99: ten are above
it."""
FEWEST = 100
"""Requests that a single adapter must have for its slowest tenth to mean anything."""
_LOADERS: Mapping[str, LoaderKeys | None] = {
    "without": None,
    "before": LoaderKeys(before_seconds=BEFORE_SECONDS),
    "from the start": LoaderKeys(),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One run."""

    scenario: str
    memory: str
    loader: str
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The times to first token of one run, in seconds, without the warm-up."""

    times: Sequence[float]
    """Sorted."""
    by_adapter: Mapping[str, Sequence[float]]


def scenario_of(case: Case) -> Scenario:
    """Return the scenario of a run: its host memory, what is in it, and what loads."""
    found = find_scenario(case.scenario)
    keys = found.keys
    room: int | str = UNLIMITED
    if case.memory == QUARTER:
        room = max(*keys.slots, keys.adapters // 4)
    warm = case.scenario in WARM and case.memory == ALL
    changed = replace(
        keys,
        max_cpu_loras=(room,),
        preload="all" if warm else "none",
        host_memory_told=True,
        loader=_LOADERS[case.loader],
    )
    return replace(found, keys=changed)


def play(case: Case, load: float) -> Outcome:
    """Make a run.

    Args:
        case: What is played.
        load: Share of the scenario's ``rate``.
    """
    scenario = scenario_of(case)
    traffic = GeneratedTraffic(scenario.workload, load * scenario.rate, scenario.seconds)
    fleet = scenario.fleet(scenario.seconds, adapters=traffic.adapters)
    make = maker(POLICY, fleet)
    simulation = FleetSimulation(fleet, lambda rng: make(random.Random(rng.random())), case.seed)
    run = simulation.run(traffic.requests(case.seed))
    by_adapter: dict[str, list[float]] = defaultdict(list)
    for request in run.requests:
        if request.arrived >= WARM_UP * scenario.seconds:
            name = request.adapter or BASE_MODEL
            by_adapter[name].append(request.first_token - request.arrived)
    times = sorted(time for each in by_adapter.values() for time in each)
    return Outcome(times, by_adapter)


def perfect_p99(case: Case, load: float) -> float:
    """Return the p99 of the same requests in a fleet that wastes no slot. See ``perfect_slots``.

    Args:
        case: What is played. All adapters are in host memory, whatever it says.
        load: Share of the scenario's ``rate``.
    """
    scenario = scenario_of(case)
    engines = scenario.fleet(scenario.seconds).engines
    slots = PerfectSlots(engines[0], sum(engine.max_loras for engine in engines))
    traffic = GeneratedTraffic(scenario.workload, load * scenario.rate, scenario.seconds)
    slots.play(traffic.requests(case.seed))
    since = WARM_UP * scenario.seconds
    return percentile(sorted(each for at, each in slots.times if at >= since), 0.99)


def table(outcomes: Mapping[Case, Outcome], perfect: Mapping[Case, float]) -> str:
    """Return a table with a row for each scenario and size of host memory.

    Args:
        outcomes: The runs.
        perfect: The p99 of a fleet that wastes no slot, for each of them with everything in host
            memory.
    """
    lines = [
        "| scenario | host memory for | without | before | | from the start | | slots alone | "
        "| worst group | worst adapter |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    rows = dict.fromkeys((case.scenario, case.memory) for case in outcomes)
    for scenario, memory in rows:
        cases = [case for case in outcomes if (case.scenario, case.memory) == (scenario, memory)]
        runs = {
            loader: [outcomes[case] for case in cases if case.loader == loader]
            for loader in _LOADERS
        }
        without = _p99(runs["without"])
        figures = [f"{without:.2f}"]
        for loader in ("before", "from the start"):
            p99 = _p99(runs[loader])
            figures += [f"{p99:.2f}", f"{p99 / without:.2f}"]
        bounds = [perfect[case] for case in cases if case in perfect]
        bound = statistics.median(bounds) if bounds else None
        figures += [_shown(bound), _shown(None if bound is None else bound / without)]
        group = worst_group(runs["without"], runs["before"])
        figures.append("-" if group is None else f"{group.quotient:.2f} ({group.after:.2f})")
        figures.append(_shown(worst_adapter(runs["without"], runs["before"])))
        at_start = f"{memory}, loaded" if scenario in WARM and memory == ALL else memory
        lines.append(" | ".join((f"| `{scenario}`", at_start, *figures)) + " |")
    return "\n".join((*lines, ""))


def _shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.2f}"


class Change(NamedTuple):
    """A p99 before a change and after it, in seconds."""

    before: float
    after: float

    @property
    def quotient(self) -> float:
        """How many times as long it is after the change."""
        return self.after / self.before


def worst_group(before: Sequence[Outcome], after: Sequence[Outcome]) -> Change | None:
    """Return how the p99 changed of the group of about equally popular adapters that loses most.

    Args:
        before: The outcomes before a change, one for each seed.
        after: Those after it, of the same seeds.

    Returns:
        ``None``: there are too few requests.
    """
    groups: list[tuple[list[float], list[float]]] = []
    is_full = True
    for old, new in _by_rank(before, after):
        if is_full:
            groups.append(([], []))
        groups[-1][0].extend(old)
        groups[-1][1].extend(new)
        is_full = len(groups[-1][0]) >= FEWEST_IN_GROUP
    if not is_full and len(groups) > 1:
        # The rarest are too few for a group of their own.
        for whole, rest in zip(groups[-2], groups.pop(), strict=True):
            whole.extend(rest)
    changes = [
        Change(*(percentile(sorted(times), 0.99) for times in group))
        for group in groups
        if len(group[0]) >= FEWEST_IN_GROUP
    ]
    return max(changes, key=lambda each: each.quotient, default=None)


def worst_adapter(before: Sequence[Outcome], after: Sequence[Outcome]) -> float | None:
    """Return the largest quotient of what the slowest tenth of an adapter's requests take.

    The arguments are those of ``worst_group``. ``None``: no adapter has enough requests.
    """
    return max(
        (
            _slowest_tenth(new) / _slowest_tenth(old)
            for old, new in _by_rank(before, after)
            if len(old) >= FEWEST
        ),
        default=None,
    )


def _by_rank(
    before: Sequence[Outcome], after: Sequence[Outcome]
) -> list[tuple[list[float], list[float]]]:
    """Return the times of the nth most popular adapter of each seed, for all n, and the base's."""
    found: dict[int, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for one, other in zip(before, after, strict=True):
        old, new = one.by_adapter, other.by_adapter
        names = sorted(old, key=lambda name: (name != BASE_MODEL, -len(old[name]), name))
        first = 0 if names[:1] == [BASE_MODEL] else 1
        for rank, name in enumerate(names, first):
            found[rank][0].extend(old[name])
            found[rank][1].extend(new[name])
    return [found[rank] for rank in sorted(found)]


def _slowest_tenth(times: Sequence[float]) -> float:
    return statistics.fmean(sorted(times)[-max(1, len(times) // 10) :])


def _p99(outcomes: Iterable[Outcome]) -> float:
    return statistics.median(percentile(outcome.times, 0.99) for outcome in outcomes)


def main() -> None:
    """Make the runs, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", default=(*SCENARIOS, *WARM))
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--load", type=float, default=0.85, help="share of a scenario's rate")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    cases = [
        Case(scenario, memory, loader, seed)
        for scenario in arguments.scenarios
        for memory in MEMORIES.get(scenario, (ALL, QUARTER))
        for loader in _LOADERS
        for seed in arguments.seeds
    ]
    for_all = [case for case in cases if case.memory == ALL and case.loader == "before"]
    with ProcessPoolExecutor(arguments.processes) as workers:
        found = workers.map(partial(play, load=arguments.load), cases)
        bounds = workers.map(partial(perfect_p99, load=arguments.load), for_all)
        perfect = dict(zip(for_all, bounds, strict=True))
        print(table(dict(zip(cases, found, strict=True)), perfect))
    seeds = ", ".join(map(str, arguments.seeds))
    print(f"Seeds {seeds}, at {arguments.load:.0%} of each scenario's rate. Seconds.")


if __name__ == "__main__":
    main()
