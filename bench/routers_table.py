"""Print the table of several routers over one fleet: ``make bench-routers``.

Figures are the p99 of the time to first token in seconds, at the rates of the scenarios, as medians
of the seeds 11 to 15. One router is compared with two and four routers, which know nothing of each
other, or what scrapes show, or the ledgers that the others send each second or ten times a second.
"""

import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from bench.highest_rate import SECONDS, maker, trace_of
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.knowledge import NOTHING, SCRAPES, Knowledge
from lora_router.simulator.scenario import shipped_scenario
from lora_router.simulator.summary import summarise

NAMES = (
    "a-uniform", "b-zipf", "c-slot-bound", "d-many-adapters", "e-hot-shift", "f-half-base",
    "flash-crowd",
)  # fmt: skip
SEEDS = (11, 12, 13, 14, 15)
OURS = "lora-placement"
COLUMNS: tuple[tuple[str, str, int, Knowledge], ...] = (
    ("one", OURS, 1, SCRAPES),
    *(
        (f"{routers}, {title}", OURS, routers, knowledge)
        for routers in (2, 4)
        for title, knowledge in (
            ("nothing", NOTHING),
            ("scrapes", SCRAPES),
            ("1 s", Knowledge(exchange_seconds=1.0)),
            ("0.1 s", Knowledge(exchange_seconds=0.1)),
        )
    ),
    ("4, scrapes, `lora-affinity`", "lora-affinity", 4, SCRAPES),
    ("4, scrapes, `shuffle-shard`", "shuffle-shard", 4, SCRAPES),
)


def main() -> None:
    """Simulate and print."""
    keys = [(name, *column[1:], seed) for name in NAMES for column in COLUMNS for seed in SEEDS]
    with ProcessPoolExecutor() as workers:
        found = dict(zip(keys, workers.map(_p99, *zip(*keys, strict=True)), strict=True))
    print(f"| scenario | {' | '.join(title for title, *_ in COLUMNS)} |")
    print("| --- |" + " ---: |" * len(COLUMNS))
    for name in NAMES:
        cells = [
            f"{statistics.median(found[name, *column[1:], seed] for seed in SEEDS):.2f}"
            for column in COLUMNS
        ]
        print(f"| `{name}` | {' | '.join(cells)} |")


def _p99(name: str, algorithm: str, routers: int, knowledge: Knowledge, seed: int) -> float:
    scenario = shipped_scenario(name)
    fleet = replace(scenario.fleet(SECONDS, routers), knowledge=knowledge)
    simulation = FleetSimulation(fleet, maker(algorithm), seed)
    return summarise(simulation.run(trace_of(scenario, scenario.rate, seed)), SECONDS).ttft["p99"]


if __name__ == "__main__":
    main()
