"""The times at which a pod is scraped."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.scrape.schedule import ScrapeSchedule


class Clock:
    """A clock that the test advances."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@given(st.text(), st.floats(0.01, 3600), st.floats(0, 1e7), st.floats(0, 0.001))
def test_a_turn_comes_once_in_each_interval_though_timers_go_off_early(
    pod: str, interval: float, started: float, early: float
) -> None:
    clock = Clock(started)
    turns = ScrapeSchedule(pod, interval, clock)
    times = []
    for _ in range(5):
        times.append(clock.now + turns.wait())
        clock.now = times[-1] - early

    assert started <= times[0] <= started + interval * 1.001
    for earlier, later in pairwise(times):
        assert later - earlier == pytest.approx(interval, rel=1e-3)


def test_a_pod_keeps_its_time_after_a_read_that_took_long() -> None:
    clock = Clock(100.0)
    turns = ScrapeSchedule("a", 1.0, clock)
    first = clock.now + turns.wait()
    clock.now = first + 3.25

    assert turns.wait() == pytest.approx(0.75)


def test_a_thousand_pods_are_spread_over_the_interval() -> None:
    tenths = [0] * 10
    for number in range(1000):
        tenths[
            int(ScrapeSchedule(f"default/vllm-{number}", 1.0, lambda: 0.0).wait() * 10 % 10)
        ] += 1

    assert min(tenths) >= 70
    assert max(tenths) <= 130
