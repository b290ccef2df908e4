"""The tables of several routers over a live fleet, from runs that did not take place."""

import pytest

from bench.live_case import ENOUGH_SLOTS, HALF_BASE, LOADS, Case, Change, Run, plan_of, trace_of
from bench.live_routers import ALGORITHMS, cases, changes_table, lateness, parse, routers_table
from lora_router.demo.load import Outcome


def run(seconds: float, *, loads: int = 12, lost: int = 0, late: float = 0.001) -> Run:
    """Return a run of 20 s in which each request takes as long."""
    outcomes = [
        Outcome(
            "a",
            "status 503" if number < lost else None,
            first_token_seconds=seconds,
            at=number / 10,
            late_seconds=late,
        )
        for number in range(200)
    ]
    return Run(tuple(outcomes), loads=loads, slot_waits=0)


ONE = Case(ENOUGH_SLOTS, "lora-placement")
TWO = Case(ENOUGH_SLOTS, "lora-placement", routers=2)
ALONE = Case(ENOUGH_SLOTS, "lora-placement", routers=2, peering=False)


def test_numbers_of_routers_are_compared_with_one() -> None:
    runs = {ONE: [run(0.1)], TWO: [run(0.11, loads=15)], ALONE: [run(0.4, loads=24, lost=2)]}

    _head, _rule, one, two, alone = routers_table(runs)

    assert one.endswith("| 1 | 0.10 s | 0.10 s | 1.00 x | 12 | 1.00 x | 0 | 0 |")
    assert two.endswith("| 2 | 0.11 s | 0.11 s | 1.10 x | 15 | 1.25 x | 0 | 0 |")
    assert alone.endswith("| 2, not peers | 0.40 s | 0.40 s | 4.00 x | 24 | 2.00 x | 0 | 2 |")


def test_without_a_run_of_one_router_nothing_is_compared() -> None:
    *_, two = routers_table({TWO: [run(0.11)]})

    assert two.count("| - |") == 2


def test_a_killed_router_is_told_with_what_was_lost_and_the_longest_time_to_forget() -> None:
    changes = [
        Change(7.0, forgotten_after=seconds, ghosts=0, added_at=14.0, used_after=2.0)
        for seconds in (1.01, 1.04)
    ]
    changed = {TWO: [(run(0.2, lost=1), changes[0]), (run(0.2), changes[1])]}

    *_, row = changes_table(changed, {TWO: [run(0.1)]})

    assert row.endswith(
        "| 400 | 1 | 0.20 s | 0.20 s | 0.10 s | 0.20 s | 0.10 s | 1.04 s | 0 | 2.0 s |"
    )


def test_a_late_load_generator_shows() -> None:
    assert lateness({ONE: [run(0.1)], TWO: [run(0.1, late=0.05)]}) == 0.05
    assert lateness({}) == 0.0


def test_every_load_and_algorithm_is_run_with_one_two_and_four_routers() -> None:
    found = cases(LOADS, ALGORITHMS, (1, 2, 4))

    assert len(found) == len(LOADS) * len(ALGORITHMS) * 4
    assert [each.routers for each in cases((ENOUGH_SLOTS,), ALGORITHMS[:1], (2,))] == [2, 2]


@pytest.mark.parametrize("load", LOADS)
def test_a_load_is_the_same_for_each_number_of_routers_and_names_what_pods_serve(
    load: str,
) -> None:
    one, four = plan_of(Case(load, "random")), plan_of(Case(load, "random", routers=4))
    trace = trace_of(load, 20, seed=3)

    assert one.pods == four.pods
    assert trace == trace_of(load, 20, seed=3)
    served = {one.pods[0].base, *one.pods[0].adapters}
    assert {arrival.model for arrival in trace} <= served


@pytest.mark.slow
def test_half_of_the_scenario_has_half_of_its_pods_adapters_and_rate() -> None:
    plan = plan_of(Case(HALF_BASE, "random"))

    assert (len(plan.pods), len(plan.pods[0].adapters)) == (4, 16)
    assert len(trace_of(HALF_BASE, 1000, seed=1)) == pytest.approx(25_000, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seconds", "1"], "--seconds 1: must be from 3 to 3600"),
        (["--routers", "3"], "--routers 3: must be among 1, 2, 4"),
        (["--seeds", "a"], "'a': must be numbers joined by commas"),
        (["--seeds", "0"], "'0': must be numbers from 1"),
        (["--load", "other"], "--load"),
    ],
)
def test_a_wrong_argument_is_named(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)

    assert ended.value.code == 2
    assert said in capsys.readouterr().err
