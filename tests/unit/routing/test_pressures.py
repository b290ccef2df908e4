"""How long requests of each priority would wait, on average of some seconds."""

import random

import pytest

from lora_router.routing.counts_by_priority import CountsByPriority
from lora_router.routing.pressures import MOST_STEPS, Pressures

TAU = 20.0


def noted(*waits: tuple[int, float], seconds: int = 100) -> Pressures:
    """Return the averages after requests of some priorities came in each second."""
    pressures = Pressures()
    for second in range(seconds):
        for priority, wait in waits:
            pressures.note(priority, wait, float(second), TAU)
    return pressures


def test_what_lower_priorities_note_says_nothing_of_higher_ones() -> None:
    pressures = noted((-1, 9.0), (1, 1.5))
    found = [pressures.of(each, 100.0, TAU) for each in (-1, 1, 2)]
    assert found == pytest.approx([8.5, 1.0, 0.0], abs=0.6)


def test_bursts_of_a_high_priority_wait_for_half_as_long_on_average_as_the_last_one() -> None:
    """Bursts every six seconds, each of which is served after three."""
    pressures = Pressures()
    for second in range(180):
        pressures.note(-1, 9.0, float(second), TAU)
        if second % 6 == 0:
            pressures.note(1, 3.0, float(second), TAU)
    assert pressures.of(1, 180.0, TAU) == pytest.approx(0.75, abs=0.15)


def test_a_priority_waits_for_as_long_as_higher_ones_at_least() -> None:
    pressures = noted((0, 6.0))
    assert pressures.of(-1, 100.0, TAU) == pressures.of(0, 100.0, TAU)
    pressures.note(-1, 0.5, 100.0, TAU)
    pressures.note(0, 6.0, 100.0, TAU)
    assert pressures.of(-1, 101.0, TAU) == pytest.approx(pressures.of(0, 101.0, TAU), abs=0.1)


def test_a_priority_that_is_rare_is_known_by_the_higher_ones() -> None:
    pressures = noted((3, 5.0), (1, 5.0))
    assert pressures.of(0, 100.0, TAU) > 4.0


def test_a_priority_that_nobody_has_any_more_is_forgotten() -> None:
    pressures = noted((3, 5.0), (2, 5.0), (1, 5.0))
    pressures.note(3, 5.0, 150.0, TAU)
    assert len(pressures) == 3
    pressures.note(3, 5.0, 160.0, TAU)
    assert len(pressures) == 1
    assert pressures.of(1, 161.0, TAU) == pressures.of(3, 161.0, TAU)


def test_clients_that_choose_any_priority_make_no_more_steps_than_are_kept() -> None:
    """The lower a priority is, the longer its requests wait."""
    pressures, rng = Pressures(), random.Random(1)
    for tenth in range(3000):
        priority = rng.randint(-1000, 1000)
        pressures.note(priority, (1000 - priority) / 200, tenth / 10, TAU)
        assert len(pressures) <= MOST_STEPS
    found = [pressures.of(each, 300.0, TAU) for each in (-900, -400, 100, 600, 1000)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 5.0
    assert found[-1] < 1.0


def test_counts_are_those_of_all_priorities_from_one_on() -> None:
    counts, rng, known = CountsByPriority(), random.Random(1), dict[int, int]()
    for _ in range(500):
        priority = rng.choice([-1000, -999, -7, 0, 1, 2, 500, 999, 1000])
        by = rng.choice([1, 2, -known.get(priority, 0)])
        known[priority] = known.get(priority, 0) + by
        counts.change(priority, by)
        asked = rng.randint(-1000, 1000)
        assert counts.at_least(asked) == sum(n for each, n in known.items() if each >= asked)
        assert counts.of(priority) == known[priority]


def test_priorities_of_objectives_beyond_the_bounds_count_as_the_nearest() -> None:
    counts = CountsByPriority()
    counts.change(2**31, 1)
    counts.change(-(2**31), 1)
    assert [counts.at_least(each) for each in (2**31, 1000, -1000, -(2**31))] == [1, 1, 2, 2]
