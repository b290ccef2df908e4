"""Log lines of the same kind: the first at once, then few, with the number of those left out."""

import logging

import pytest

from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.test")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def warn(limit: LogLimit, key: str) -> None:
    limit.log(log, logging.WARNING, key, "algorithm %s failed", key)


def test_the_first_line_is_written_and_the_next_ones_are_counted(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limit = LogLimit(10.0, clock=clock)

    for _ in range(3):
        warn(limit, "a")
    clock.now += 9.9
    warn(limit, "a")
    clock.now += 0.1
    warn(limit, "a")
    clock.now += 10.0
    warn(limit, "a")

    assert caplog.messages == [
        "algorithm a failed",
        "algorithm a failed (3 similar lines suppressed)",
        "algorithm a failed",
    ]


def test_a_burst_is_so_many_lines_in_an_interval(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limit = LogLimit(10.0, burst=2, clock=clock)

    for _ in range(5):
        warn(limit, "a")
        clock.now += 1.0
    clock.now += 5.0
    for _ in range(3):
        warn(limit, "a")

    assert caplog.messages == [
        "algorithm a failed",
        "algorithm a failed",
        "algorithm a failed (3 similar lines suppressed)",
        "algorithm a failed",
    ]


def test_each_key_has_its_own_interval(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    limit = LogLimit(10.0, clock=clock)

    for key in "abab":
        warn(limit, key)

    assert caplog.messages == ["algorithm a failed", "algorithm b failed"]


def test_an_endless_variety_of_keys_shares_one_interval(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limit = LogLimit(10.0, max_keys=2, clock=clock)

    for number in range(1000):
        warn(limit, f"k{number}")

    assert caplog.messages == [
        "algorithm k0 failed",
        "algorithm k1 failed",
        "algorithm k2 failed",
    ]

    clock.now += 10.0
    warn(limit, "new")
    warn(limit, "other")
    warn(limit, "third")
    assert caplog.messages[3:] == [
        "algorithm new failed",
        "algorithm other failed",
        "algorithm third failed (997 similar lines suppressed)",
    ]


def test_a_level_that_is_off_takes_no_turn(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "lora_router.test")
    limit = LogLimit(10.0, clock=clock)

    assert not limit.log(log, logging.WARNING, "a", "not shown")
    assert limit.log(log, logging.ERROR, "a", "shown")


def test_the_cause_is_logged_with_the_line(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    limit = LogLimit(10.0, clock=clock)

    limit.log(log, logging.ERROR, "a", "it failed", exc_info=KeyError("x"))

    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


def test_other_words_can_be_used_for_the_number(clock: Clock) -> None:
    limit = LogLimit(10.0, clock=clock)

    assert limit.allow("a") == 0
    assert limit.allow("a") is None
    clock.now += 10.0
    assert limit.allow("a") == 1
