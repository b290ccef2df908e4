"""Print the table of docs/autoscaling.md: ``make autoscaling-table``. It takes some seconds."""

import sys

from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.fleet_table import HEADINGS, fleet_rows
from lora_router.simulator.scenario import shipped_scenario
from lora_router.simulator.trace import make_trace

SCENARIO = "rise-and-fall"


def table() -> str:
    """Run the scenario; return its rows as a table, and what it took in total."""
    scenario = shipped_scenario(SCENARIO)
    seconds = scenario.seconds
    simulation = FleetSimulation(
        scenario.fleet(seconds), lambda rng: LoraPlacement(AlgorithmOptions(rng=rng)), seed=1
    )
    trace = make_trace(scenario.workload, rate=scenario.rate, seconds=seconds, seed=1)
    run = simulation.run(trace)
    lines = [HEADINGS, tuple("---:" for _ in HEADINGS)]
    lines += [row.cells() for row in fleet_rows(run, seconds)]
    pods = [moment.ready for moment in run.moments]
    short = sum(request.sent - request.arrived <= 2.0 for request in run.requests)
    return (
        "".join(f"| {' | '.join(line)} |\n" for line in lines)
        + f"\nOn average {sum(pods) / len(pods):.1f} pods took requests, at most {max(pods)}. "
        f"{short / len(run.requests):.1%} of {len(run.requests):,} requests\nwere held for at most "
        "2 s.\n"
    )


if __name__ == "__main__":
    sys.stdout.write(table())
