"""The fleet without a free slot, in which held requests are measured."""

import sys
from collections import Counter
from types import FrameType

import pytest

from bench.held import A_SLOT, LATER, NO_SLOT, PATIENCE_SECONDS, FullFleet, measure, row_name
from bench.report import tables
from bench.results import Results, goals


def test_only_the_end_of_an_adapters_last_request_gives_a_held_one_its_slot() -> None:
    full = FullFleet(pods=2, held=3, joined=1)

    full.release_no_slot()
    assert full.director.held == 3

    alone = FullFleet(pods=2, held=3)
    alone.release_a_slot()
    assert alone.director.held == 2
    alone.refill()
    assert alone.director.held == 3


@pytest.mark.parametrize("seconds", [0.0, PATIENCE_SECONDS])
def test_no_held_request_goes_after_a_scrape_or_an_event_of_another_pod(
    seconds: float,
) -> None:
    full = FullFleet(pods=2, held=3)
    full.let_pass(seconds)

    for _ in range(4):
        full.scrape()
        full.pod_event()

    assert full.director.held == 3


def calls_of_release(held: int) -> tuple[int, int]:
    """Return how often functions are called in a release, and how often the algorithm is asked."""
    full = FullFleet(pods=8, held=held)
    full.let_pass(PATIENCE_SECONDS)
    functions: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _argument: object) -> None:
        functions[frame.f_code.co_qualname] += event == "call"

    for _ in range(2):  # The first one does what is due once.
        functions.clear()
        sys.setprofile(count)
        full.release_a_slot()
        sys.setprofile(None)
    return functions.total(), functions["LoraPlacement.pick"]


@pytest.mark.slow
def test_a_release_costs_the_same_however_many_requests_are_held() -> None:
    few, asked = calls_of_release(40)
    many, as_often = calls_of_release(400)

    assert asked == as_often <= 3
    assert many <= 1.1 * few
    assert many < 400


@pytest.mark.slow
def test_figures_have_a_table_and_the_goals_their_rows() -> None:
    found = measure([(2, 12)], rounds=1)
    assert found[row_name(NO_SLOT, 2, 12)] > 0

    parts = {row_name(what, 872, 32): 7.0 for what in (NO_SLOT, A_SLOT)}
    parts |= {row_name(NO_SLOT + LATER, 872, 32): 123.0}
    results = Results({}, 1.0, ("builtin",), (), (), (), (), parts)
    [goal] = [goal for goal in goals(results) if goal.what.startswith("release")]
    assert (goal.what, goal.reached, goal.met) == (
        "release, 872 held on 32 pods: slowest kind", "123 µs", False,
    )  # fmt: skip

    results = Results({}, 1.0, ("builtin",), (), (), (), (), found)
    [table] = [table for table in tables(results) if table.title == "Requests held, CPU µs"]
    assert [line[0] for line in table.lines] == ["2 held on 12 pods"]
    assert len(table.head) == len(table.lines[0]) == 10
