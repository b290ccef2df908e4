"""Histograms of durations: classic and native buckets from one list of counts."""

import random
from bisect import bisect_left

import pytest

from lora_router.telemetry.times import REQUEST_EDGES, Edges, Exemplar, Times


def times_of(*durations: float) -> Times:
    times = Times()
    for seconds in durations:
        times.observe(seconds)
    return times


def test_classic_buckets_are_exact() -> None:
    rng = random.Random(1)
    durations = [rng.lognormvariate(0.0, 3.0) for _ in range(2000)]

    counts = REQUEST_EDGES.cumulative(times_of(*durations).counts)

    assert counts == [
        sum(seconds <= bound for seconds in durations) for bound in REQUEST_EDGES.classic_bounds
    ]


def test_a_duration_at_a_bound_is_below_it() -> None:
    edges = Edges((0.5, 1.0))
    times = Times(edges)
    times.observe(0.5)
    times.observe(1.0)

    assert edges.cumulative(times.counts) == [1, 2, 2]


def test_native_buckets_are_exact() -> None:
    rng = random.Random(2)
    durations = [rng.uniform(0.01, 500.0) for _ in range(1000)]

    buckets = REQUEST_EDGES.native(times_of(*durations).counts)

    # The bucket with the index i ends at 2^(i/8).
    expected: dict[int, int] = {}
    for seconds in durations:
        index = bisect_left(range(-100, 100), True, key=lambda i: 2.0 ** (i / 8) >= seconds) - 100
        expected[index] = expected.get(index, 0) + 1
    assert dict(buckets) == expected


def test_native_buckets_end_somewhere() -> None:
    times = times_of(0.0, 0.001, 5000.0)

    assert times.counts[0] == 2
    assert dict(REQUEST_EDGES.native(times.counts)) == {REQUEST_EDGES.last + 1: 1}


@pytest.mark.parametrize("q", [0.01, 0.5, 0.9, 0.99])
def test_a_quantile_is_within_nine_percent(q: float) -> None:
    rng = random.Random(3)
    durations = sorted(rng.lognormvariate(0.0, 1.0) for _ in range(5000))

    assert times_of(*durations).quantile(q) == pytest.approx(
        durations[int(q * len(durations))], rel=0.1
    )


def test_without_durations_there_is_no_quantile() -> None:
    assert Times().quantile(0.5) is None


def test_a_quantile_beyond_the_buckets_is_the_last_bound() -> None:
    assert times_of(10_000.0).quantile(0.99) == 1024.0


def test_each_classic_bucket_keeps_its_last_exemplar() -> None:
    times = times_of(0.02, 0.021, 3.0)
    for name, seconds in (("a", 0.02), ("b", 0.021), ("c", 3.0)):
        times.exemplify(Exemplar(name, seconds, 0.0))

    assert [exemplar.trace_id for exemplar in times.exemplars.values()] == ["b", "c"]
