"""Distributions of lengths."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.simulator.lengths import Even, Lengths, Lognormal, Mixed


def drawn(lengths: Lengths, count: int = 20_000) -> list[int]:
    rng = random.Random(1)
    return [lengths.draw(rng) for _ in range(count)]


@pytest.mark.slow
def test_a_lognormal_length_has_its_median_and_a_heavy_tail() -> None:
    found = drawn(Lognormal(200, 1.0, 1_000_000))

    assert statistics.median(found) == pytest.approx(200, rel=0.03)
    logs = [math.log(length) for length in found]
    assert statistics.stdev(logs) == pytest.approx(1.0, rel=0.03)
    assert Lognormal(200, 1.0, 1_000_000).mean == pytest.approx(statistics.fmean(found), rel=0.05)


def test_it_is_cut_off_and_has_no_heap_of_lengths_at_the_cut() -> None:
    found = drawn(Lognormal(200, 1.0, 400))

    assert max(found) <= 400
    assert found.count(400) < 0.01 * len(found)


def test_some_lengths_can_be_of_another_kind() -> None:
    mixed = Mixed(Even(50, 450), Even(20_000, 30_000), 0.1)
    found = drawn(mixed)

    assert sum(length >= 20_000 for length in found) == pytest.approx(2_000, rel=0.1)
    assert all(50 <= length <= 450 or 20_000 <= length <= 30_000 for length in found)
    assert mixed.mean == pytest.approx(statistics.fmean(found), rel=0.05)


@given(
    median=st.floats(1, 1e6),
    sigma=st.floats(0, 5),
    most=st.integers(1, 1_000_000),
    seed=st.integers(),
)
def test_every_length_is_within_its_bounds(
    median: float, sigma: float, most: int, seed: int
) -> None:
    assert 1 <= Lognormal(median, sigma, most).draw(random.Random(seed)) <= most
