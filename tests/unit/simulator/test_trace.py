"""Traces: generated from a seed with the requested load."""

import itertools
import statistics
from collections import Counter
from dataclasses import replace

import pytest

from lora_router.simulator.trace import (
    CROWD_ADAPTER,
    Arrival,
    Bursts,
    Crowd,
    Workload,
    make_trace,
)


def trace(workload: Workload, *, rate: float = 50.0, seconds: float = 200.0) -> list[Arrival]:
    return list(make_trace(workload, rate=rate, seconds=seconds, seed=1))


@pytest.mark.slow
def test_a_seed_gives_the_same_trace_again() -> None:
    workload = Workload(8, zipf=1.0, base_share=0.2, shuffle_seconds=10)
    assert trace(workload) == trace(workload)
    other = list(make_trace(workload, rate=50, seconds=200, seed=2))
    assert other != trace(workload)


def test_rate_popularity_and_lengths_are_as_requested() -> None:
    made = trace(Workload(10, zipf=1.0, base_share=0.5))
    models = Counter(arrival.model for arrival in made)

    assert len(made) == pytest.approx(10_000, rel=0.05)
    assert models.pop("base") / len(made) == pytest.approx(0.5, abs=0.02)
    ordered = [count for _, count in models.most_common()]
    assert ordered[0] / ordered[-1] == pytest.approx(10, rel=0.3)
    assert min(arrival.output_tokens for arrival in made) >= 50
    assert max(arrival.output_tokens for arrival in made) <= 250
    assert sorted(arrival.at for arrival in made) == [arrival.at for arrival in made]


@pytest.mark.parametrize("burstiness", [1.0, 8.0])
@pytest.mark.slow
def test_bursts_change_the_variation_and_not_the_rate(burstiness: float) -> None:
    made = trace(Workload(4, burstiness=burstiness), rate=100, seconds=400)
    gaps = [after.at - before.at for before, after in itertools.pairwise(made)]

    mean = statistics.fmean(gaps)
    assert mean == pytest.approx(0.01, rel=0.1)
    assert statistics.pvariance(gaps) / mean**2 == pytest.approx(burstiness, rel=0.2)


@pytest.mark.slow
def test_a_crowd_comes_and_goes() -> None:
    made = trace(Workload(4, crowd=Crowd(at=0.5, lasts=0.1, share=0.5)))
    crowd = [arrival.at for arrival in made if arrival.model == CROWD_ADAPTER]

    assert 100 <= min(crowd) < max(crowd) < 120
    assert len(crowd) == pytest.approx(500, rel=0.2)


@pytest.mark.slow
def test_bursts_come_again_and_again_each_for_one_adapter() -> None:
    quiet = Workload(24)
    made = trace(replace(quiet, bursts=Bursts(50.0, requests=100, within_seconds=2.0)))
    usual = Counter(trace(quiet))
    extra = [arrival for arrival in made if arrival not in usual]

    assert len(extra) == 300  # After 50, 100 and 150 s of 200.
    assert [arrival.at for arrival in made] == sorted(arrival.at for arrival in made)
    for start in (50, 100, 150):
        burst = [arrival for arrival in extra if start <= arrival.at < start + 2]
        assert len(burst) == 100
        assert len({arrival.model for arrival in burst}) == 1


def test_popularity_is_dealt_again() -> None:
    made = trace(Workload(8, zipf=2.0, shuffle_seconds=50))
    favourites = {
        Counter(a.model for a in made if start <= a.at < start + 50).most_common(1)[0][0]
        for start in (0, 50, 100, 150)
    }
    assert len(favourites) > 1
