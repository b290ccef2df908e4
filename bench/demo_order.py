"""Compare the simulator with the demo: ``make bench-demo``.

For each algorithm, the load of the demo goes to a live fleet (real Envoy, pods over HTTP) and to a
simulated one. The command prints the time to first token of both, and whether both put the
algorithms in the same order. Figures within a tenth of each other, or within the duration of a
step, count as equal. Algorithms draw random numbers, and the p99 is that of two or three requests.
So each one is simulated several times, and two of them have an order only if all these runs agree.
"""

import argparse
import json
import statistics
import subprocess
import sys
from itertools import permutations

from lora_router.demo.chats import FIRST_TOKENS, TURN_TOKENS
from lora_router.demo.load import ADAPTERS, BASE, make_trace
from lora_router.demo.load import Arrival as DemoArrival
from lora_router.demo.plan import STEP_MS, demo_plan
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.registry import load_algorithms
from lora_router.simulator.fleet_options import FleetOptions
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.percentile import percentile
from lora_router.simulator.trace import BASE_MODEL, Arrival

ALGORITHMS = ("random", "least-request", "shuffle-shard", "lora-affinity", "lora-placement")
PROMPT_TOKENS = 10
"""Of a request that is no part of a chat."""
BLOCK_TOKENS = 16
DRAWS = 8
"""Simulated runs of each algorithm on each load."""


def main() -> None:
    """Run both and print. Exits with status 1 if the orders differ in a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1, help="of the load of the first run")
    parser.add_argument("--runs", type=int, default=1, help="how many, each with the next seed")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.runs)
    # All of them, also if the first one fails.
    same = [_is_same_order(arguments.duration, seed) for seed in seeds]
    print(f"the orders are the same in {sum(same)} of {len(same)} runs")
    sys.exit(0 if all(same) else 1)


def _is_same_order(seconds: float, seed: int) -> bool:
    live = _live(seconds, seed)
    simulated = {
        name: [simulated_first_tokens(name, seconds, seed, draw) for draw in range(DRAWS)]
        for name in ALGORITHMS
    }
    p99 = {name: sorted(p99 for _, p99 in runs) for name, runs in simulated.items()}
    print(f"load of seed {seed}, {seconds:g} s")
    print()
    print("| algorithm | live p50 s | p99 | simulated p50 s | p99 |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in ALGORITHMS:
        p50 = statistics.median(p50 for p50, _ in simulated[name])
        print(
            f"| `{name}` | {live[name][0]:.2f} | {live[name][1]:.2f} "
            f"| {p50:.2f} | {p99[name][0]:.2f} to {p99[name][-1]:.2f} |"
        )
    wrong = [
        (better, worse)
        for better, worse in permutations(ALGORITHMS, 2)
        if _clearly_less(p99[better][-1], p99[worse][0])
        and _clearly_less(live[worse][1], live[better][1])
    ]
    print()
    if wrong:
        print("the orders by p99 differ:", ", ".join(f"{a} and {b}" for a, b in wrong))
    else:
        print("the orders by p99 are the same")
    print(f"the lowest p99 of the live fleet has {min(live, key=lambda name: live[name][1])}")
    print()
    return not wrong


def _clearly_less(one: float, other: float) -> bool:
    return one < 0.9 * other and other - one > STEP_MS / 1000


def _live(seconds: float, seed: int) -> dict[str, tuple[float, float]]:
    command = [sys.executable, "-m", "lora_router", "demo", "--json", "--seed", str(seed)]
    command += ["--duration", str(seconds)]
    for name in ALGORITHMS:
        command += ["--algorithm", name]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    found = json.loads(printed)["algorithms"]
    return {
        name: (found[name]["ttft_ms"]["p50"] / 1000, found[name]["ttft_ms"]["p99"] / 1000)
        for name in ALGORITHMS
    }


def simulated_first_tokens(name: str, seconds: float, seed: int, draw: int) -> tuple[float, float]:
    """Return the median and p99 of the time to first token, in seconds.

    Args:
        name: The algorithm.
        seconds: Length of the load.
        seed: Of the load.
        draw: Seed of the algorithm.
    """
    fleet = FleetOptions(tuple(pod.engine for pod in demo_plan().pods), ADAPTERS, preloaded=())
    simulation = FleetSimulation(
        fleet, lambda rng: load_algorithms(AlgorithmOptions(rng=rng))[name], draw
    )
    run = simulation.run(map(_simulated_arrival, make_trace(seed, seconds)))
    times = sorted(request.first_token - request.arrived for request in run.requests)
    return percentile(times, 0.5), percentile(times, 0.99)


def _simulated_arrival(arrival: DemoArrival) -> Arrival:
    model = BASE_MODEL if arrival.model == BASE else arrival.model
    turn = arrival.turn
    if turn is None:
        return Arrival(arrival.at, model, PROMPT_TOKENS, arrival.output_tokens)
    tokens = FIRST_TOKENS + turn.number * TURN_TOKENS
    # The beginnings of two chats differ. What is equal in all of them is short.
    blocks = tuple(hash((turn.chat, block)) for block in range(tokens // BLOCK_TOKENS))
    return Arrival(arrival.at, model, tokens, arrival.output_tokens, blocks, BLOCK_TOKENS)


if __name__ == "__main__":
    main()
