"""The load score, and its sum with another score."""

import random

import pytest

from lora_router.routing.load_score import highest_sum, load_scores
from tests.fleet import make_fleet
from tests.unit.routing.choices import in_flight


@pytest.mark.parametrize(
    ("counts", "scores"),
    [
        ([7], [1.0]),
        ([3, 3, 3], [1.0, 1.0, 1.0]),
        ([0, 4, 1], [1.0, 0.0, 0.75]),
        ([10, 12], [1.0, 0.0]),
    ],
)
def test_the_fewest_in_flight_score_one_and_the_most_nothing(
    counts: list[int], scores: list[float]
) -> None:
    fleet = make_fleet(len(counts))
    for number, count in enumerate(counts, 1):
        in_flight(fleet, number, None, count)

    assert load_scores(fleet.ready()) == scores


def test_the_highest_sum_wins() -> None:
    assert highest_sum([0.0, 0.8, 1.0], [1.0, 0.9, 0.0], random.Random(1)) == 1


def test_equal_sums_win_equally_often() -> None:
    rng = random.Random(1)

    won = [highest_sum([1.0, 0.8, 0.0], [0.0, 0.1, 1.0], rng) for _ in range(1000)]

    assert set(won) == {0, 2}
    assert 400 < won.count(0) < 600
