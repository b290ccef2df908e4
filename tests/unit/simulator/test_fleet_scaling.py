"""A fleet grows with its load, and shrinks when the load falls."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_router.cli.commands import app
from lora_router.fleet.load_seconds import DISK_SECONDS
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.routing.waiting_near import NEAR_LOADS
from lora_router.simulator.fleet_options import FleetOptions
from lora_router.simulator.fleet_simulation import FleetRun, FleetSimulation
from lora_router.simulator.fleet_table import ROWS, FleetRow, fleet_rows, median_rows
from lora_router.simulator.scenario import Scenario, ScenarioError, read_scenario, shipped_scenario
from lora_router.simulator.trace import make_trace

SMALL = """
about: a small fleet that grows
pods: 1
slots: [2]
adapters: 12
rate: 1
seconds: 200
load: [{at: 0.1, times: 1}, {at: 0.3, times: 8}, {at: 0.5, times: 8}, {at: 0.6, times: 1}]
router: {overload: hold}
autoscaler:
  {min_pods: 1, max_pods: 5, slots_per_pod: 1.5, startup_seconds: 10, down_window_seconds: 30}
"""


def placement(rng: random.Random) -> LoraPlacement:
    return LoraPlacement(AlgorithmOptions(rng=rng))


def play(scenario: Scenario, fleet: FleetOptions | None = None) -> tuple[FleetSimulation, FleetRun]:
    seconds = scenario.seconds
    simulation = FleetSimulation(fleet or scenario.fleet(seconds), placement, seed=1)
    trace = make_trace(scenario.workload, rate=scenario.rate, seconds=seconds, seed=1)
    return simulation, simulation.run(trace)


def small(directory: Path, text: str = SMALL) -> Scenario:
    file = directory / "mine.yaml"
    file.write_text(text)
    return read_scenario(file)


@pytest.fixture(scope="module")
def rows() -> tuple[FleetRow, ...]:
    """The scenario of docs/autoscaling.md over time."""
    scenario = shipped_scenario("rise-and-fall")
    _, run = play(scenario)
    return fleet_rows(run, scenario.seconds)


@pytest.mark.slow
class TestTheShippedScenario:
    def test_the_fleet_grows_until_nothing_is_held_for_long(
        self, rows: tuple[FleetRow, ...]
    ) -> None:
        assert max(row.longest_hold for row in rows) > 2.0, "the load is no challenge"
        peak = [row for row in rows if row.start >= 900]
        assert max(row.pods for row in rows) >= 4 * rows[0].pods
        # Adapters wait for a slot near them while new pods load others, though slots are free.
        assert max(row.longest_hold for row in peak) < NEAR_LOADS * DISK_SECONDS
        assert max(row.ttft_p99 for row in peak) < DISK_SECONDS
        assert {row.lacking for row in peak} == {0}

    def test_the_fleet_shrinks_when_the_load_has_fallen(self, rows: tuple[FleetRow, ...]) -> None:
        assert rows[-1].pods <= max(row.pods for row in rows) / 3

    def test_the_fleet_does_not_flap(self, rows: tuple[FleetRow, ...]) -> None:
        pods = [row.pods for row in rows]
        top = pods.index(max(pods))
        assert pods[: top + 1] == sorted(pods[: top + 1])
        # Chance may ask for a pod more or less than before.
        for before, after in zip(pods[top:], pods[top + 1 :], strict=False):
            assert after <= before + 1


@pytest.mark.slow
def test_no_request_is_lost_when_pods_come_and_go(tmp_path: Path) -> None:
    scenario = small(tmp_path)
    simulation, run = play(scenario)

    trace = make_trace(scenario.workload, rate=scenario.rate, seconds=200.0, seed=1)
    assert len(run.requests) == len(list(trace))
    [router] = simulation.routers
    assert router.fleet.ledger.total == 0
    ready = [moment.ready for moment in run.moments]
    assert (ready[0], max(ready)) == (1, 5)
    assert len(router.fleet) < 5, "pods that were removed are gone"
    assert max(moment.draining for moment in run.moments) > 0


@pytest.mark.slow
def test_the_same_seed_gives_the_same_fleet(tmp_path: Path) -> None:
    scenario = small(tmp_path)
    assert play(scenario)[1].moments == play(scenario)[1].moments


@pytest.mark.slow
def test_a_pod_takes_requests_after_its_startup_time(tmp_path: Path) -> None:
    scenario = small(tmp_path)
    fleet = scenario.fleet(200.0)
    assert fleet.autoscaler is not None
    slow = replace(fleet, autoscaler=replace(fleet.autoscaler, startup_seconds=500.0))
    _, run = play(scenario, slow)
    # The run lasts until its last request has ended.
    assert {moment.ready for moment in run.moments if moment.time < 200.0} == {1}
    assert max(moment.starting for moment in run.moments) == 4


@pytest.mark.slow
def test_several_routers_agree_on_the_slots_wanted(tmp_path: Path) -> None:
    scenario = small(tmp_path)
    _, run = play(scenario, scenario.fleet(200.0, routers=3))
    ready = [moment.ready for moment in run.moments]
    assert max(ready) == 5
    assert ready[-1] < 5


@pytest.mark.slow
def test_the_command_prints_the_fleet_over_time(tmp_path: Path) -> None:
    small(tmp_path)
    arguments = ["simulate", str(tmp_path / "mine.yaml"), "--algorithm", "lora-placement"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    title = lines.index("mine: the fleet over time with lora-placement")
    assert lines[title + 1].split()[:3] == ["from", "s", "requests/s"]
    assert [line.split()[0] for line in lines[title + 2 : title + 2 + ROWS]] == [
        f"{number * 12.5:.0f}" for number in range(ROWS)
    ]

    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert document["seconds"] == 200
    found = document["scenarios"]["mine"]["lora-placement"]["fleet"]
    assert len(found) == ROWS
    assert max(row["pods"] for row in found) == 5


def test_a_fleet_of_fixed_size_has_no_rows() -> None:
    scenario = shipped_scenario("a-uniform")
    trace = make_trace(scenario.workload, rate=1.0, seconds=5.0, seed=1)
    run = FleetSimulation(scenario.fleet(5.0), placement, seed=1).run(trace)
    assert fleet_rows(run, 5.0) == ()


def test_medians_of_rows_are_figure_by_figure() -> None:
    row = FleetRow(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    assert median_rows([[row], [replace(row, pods=9.0)], [replace(row, pods=8.0)]]) == (
        replace(row, pods=8.0),
    )


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("at: 0.3", "at: 0.1"), "load[1].at: must be above 0.1, that of the item before, not 0.1"),
        (("max_pods: 5", "max_pods: 0"), "autoscaler.max_pods: must be a whole number from 1"),
        (("min_pods: 1", "min_pods: 6"), "max_pods: must be at least min_pods (6), not 5"),
        (("rate: 1", "rate: 1\noutages: [{pod: 0, at: 0, lasts: 1}]"), "outages: cannot be used"),
    ],
)
def test_wrong_keys_are_named(tmp_path: Path, change: tuple[str, str], error: str) -> None:
    with pytest.raises(ScenarioError) as found:
        small(tmp_path, SMALL.replace(*change))
    assert error in str(found.value)


@pytest.mark.slow
def test_the_load_changes_evenly_between_its_points(tmp_path: Path) -> None:
    workload = small(tmp_path).workload
    shares = (0.0, 0.1, 0.2, 0.3, 0.4, 0.55, 0.6, 1.0)
    loads = [workload.load_at(share) for share in shares]
    assert loads == pytest.approx([1.0, 1.0, 4.5, 8.0, 8.0, 4.5, 1.0, 1.0])

    arrivals = list(make_trace(workload, rate=20.0, seconds=200.0, seed=1))
    # In the first and the last 20 s, and at the peak.
    rates = [sum(at <= each.at < at + 20.0 for each in arrivals) / 20 for at in (0, 70, 180)]
    assert rates == pytest.approx([20.0, 160.0, 20.0], rel=0.2)
