"""Declared adapters on a fleet of simulated pods behind a real Envoy: how fast, and what fails.

``python -m bench.adapters`` loads 200 adapters on 8 pods from nothing, and then, under load,
declares new adapters, kills a pod, adds one, and changes sources. It prints how long each took, and
how many requests failed. ``--seconds`` is the time that the load lasts after each change.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.adapter_fleet import AdapterFleet, FleetPlan, Outcomes, adapter_fleet, until

CHANGED = 20
"""Adapters whose source changes."""


@dataclass
class Figures:
    """What was measured. Times in seconds."""

    all_loaded: float = 0.0
    """From the start of the router to the last of the declared adapters."""
    new_served: list[float] = field(default_factory=list)
    """From the declaration of an adapter to the first answer of a pod that serves it."""
    pod_replaced: float = 0.0
    """From the death of a pod until its adapters were served again by others."""
    pod_filled: float = 0.0
    """From the start of a pod to its first adapter."""
    sources_changed: float = 0.0
    """From a change of sources until all were loaded from the new ones."""
    old_unloaded: float = 0.0
    """From then until no pod had one of the old ones."""
    outcomes: Outcomes = field(default_factory=Outcomes)
    loads: int = 0
    unloads: int = 0

    @property
    def passed(self) -> bool:
        """Whether no request failed, and each new adapter was served within 2 s."""
        return not self.outcomes.failed and max(self.new_served) <= 2.0

    def lines(self) -> Sequence[str]:
        """Return a table."""
        outcomes, requests = self.outcomes, sorted(self.outcomes.seconds)
        new = ", ".join(f"{seconds:.2f}" for seconds in self.new_served)
        return (
            "| | |",
            "| --- | ---: |",
            f"| all adapters loaded from nothing | {self.all_loaded:.1f} s |",
            f"| a new adapter serves after its declaration | {new} s |",
            f"| the adapters of a killed pod are served by others | {self.pod_replaced:.1f} s |",
            f"| a new pod has its first adapter | {self.pod_filled:.1f} s |",
            f"| {CHANGED} changed sources are loaded | {self.sources_changed:.1f} s |",
            f"| the old ones are unloaded | {self.old_unloaded:.1f} s |",
            f"| loads, unloads | {self.loads}, {self.unloads} |",
            f"| requests | {len(requests)} |",
            f"| of them failed | {len(outcomes.failed)} |",
            f"| lost with the only pod of their adapter | {outcomes.cut} |",
            f"| median, p99 | {_at(requests, 0.5):.3f} s, {_at(requests, 0.99):.3f} s |",
        )


async def measure(plan: FleetPlan, folder: Path, seconds: float) -> Figures:
    """Run all changes.

    Args:
        plan: The fleet.
        folder: For files.
        seconds: How long the load lasts after each change.
    """
    figures = Figures()
    names = [f"a{number}" for number in range(plan.adapters)]
    changed, rest = names[:CHANGED], names[CHANGED:]
    # A version that belongs on one pod moves as soon as one has it.
    async with adapter_fleet(plan, folder, rest, changed) as fleet:
        figures.all_loaded = await until(lambda: fleet.loaded() >= set(names))
        served = [*names]
        async with fleet.under_load(lambda: served):
            await asyncio.sleep(seconds)
            for number in range(3):
                fleet.declare([f"new-{number}"])
                figures.new_served.append(await fleet.until_served(f"new-{number}"))
                served.append(f"new-{number}")
            await asyncio.sleep(seconds)
            await change_pods(fleet, figures)
            await asyncio.sleep(seconds)
            await change_sources(fleet, changed, figures)
            await asyncio.sleep(seconds)
        figures.outcomes = fleet.outcomes
        loader = fleet.app.loader
        assert loader is not None
        calls = loader.loader.tally.calls
        figures.loads, figures.unloads = calls["load", "done"], calls["unload", "done"]
    return figures


async def change_pods(fleet: AdapterFleet, figures: Figures) -> None:
    """Kill a pod, and add another one."""
    await fleet.kill_pod("pod-0")
    figures.pod_replaced = await until(lambda: fleet.loaded() >= fleet.declared.keys())
    await fleet.add_pod("pod-new")
    figures.pod_filled = await until(lambda: bool(fleet.pods["pod-new"].adapters.roots))


async def change_sources(
    fleet: AdapterFleet, names: Sequence[str], figures: Figures, to: str = "/adapters/v2/{name}"
) -> None:
    """Give some adapters other sources."""
    old = {str(fleet.declared[name]["source"]) for name in names}
    new = {to.format(name=name) for name in names}
    fleet.declare(names, to, pods=1)
    figures.sources_changed = await until(lambda: fleet.sources() >= new)
    figures.old_unloaded = await until(lambda: fleet.sources().isdisjoint(old))


def _at(values: Sequence[float], share: float) -> float:
    return values[int(share * (len(values) - 1))] if values else 0.0


def main() -> int:
    """Measure, print, and return 1 if a request failed or a new adapter took longer than 2 s."""
    plan = FleetPlan()
    parser = argparse.ArgumentParser(
        prog="python -m bench.adapters", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=plan.pods)
    parser.add_argument("--adapters", type=int, default=plan.adapters)
    parser.add_argument("--rate", type=float, default=plan.rate, help="requests per second")
    parser.add_argument(
        "--load-seconds", type=float, default=plan.load_seconds, help="duration of a load"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="load after each change")
    given = parser.parse_args()
    plan = FleetPlan(
        pods=given.pods,
        adapters=given.adapters,
        host_memory=max(8, 2 * given.adapters // given.pods),
        load_seconds=given.load_seconds,
        rate=given.rate,
    )
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="lora-router-bench-") as folder:
        figures = asyncio.run(measure(plan, Path(folder), given.seconds))
    print("\n".join(figures.lines()))
    for failed in figures.outcomes.failed[:10]:
        print(failed)
    return 0 if figures.passed else 1


if __name__ == "__main__":
    sys.exit(main())
