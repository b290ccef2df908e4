"""What counts as a failure of a watch, and how soon it is repeated."""

import pytest

from lora_router.discovery.kubernetes_api import ApiError
from lora_router.discovery.watch_pace import (
    FIRST_PAUSE_SECONDS,
    GONE_AGAIN_SECONDS,
    LONGEST_PAUSE_SECONDS,
    SHORT_SECONDS,
    WatchPace,
)

BROKEN, GONE = ApiError("connect", "reset"), ApiError("expired", "status 410: too old")


class _Longest:
    def uniform(self, _low: float, high: float) -> float:
        return high


class Watched:
    """A list and its watches, in the time of a test."""

    def __init__(self, watch_seconds: float = 30.0) -> None:
        self.now = 0.0
        self.pace = WatchPace(watch_seconds, _Longest(), lambda: self.now)  # type: ignore[arg-type]

    def watch(self, seconds: float) -> None:
        """A watch whose response takes so long."""
        self.pace.asked()
        self.now += 5.0
        self.pace.began()
        self.now += seconds
        self.pace.ended()

    def pauses(self, number: int, error: ApiError = BROKEN) -> list[float]:
        return [self.pace.pause_after(error) for _ in range(number)]


def test_pauses_grow_to_a_limit_and_begin_anew_after_a_watch_that_lasted() -> None:
    watched, first = Watched(), FIRST_PAUSE_SECONDS
    assert watched.pauses(4) == [first, 2 * first, 4 * first, 8 * first]
    assert watched.pauses(20)[-1] == LONGEST_PAUSE_SECONDS
    watched.watch(SHORT_SECONDS)
    assert watched.pauses(2) == [first, 2 * first]


def test_a_watch_that_ends_within_a_second_is_a_failure_and_no_success() -> None:
    watched = Watched()
    watched.pauses(3)
    for _ in range(2):
        watched.watch(SHORT_SECONDS - 0.1)
        with pytest.raises(ApiError, match="ended the watch immediately"):
            watched.pace.check_end()
    assert watched.pauses(1) == [8 * FIRST_PAUSE_SECONDS]


def test_a_watch_that_the_server_ends_in_time_is_no_failure_however_short_the_setting() -> None:
    watched = Watched(watch_seconds=1)
    watched.pauses(3)
    watched.watch(0.99)
    watched.pace.check_end()
    assert watched.pauses(1) == [FIRST_PAUSE_SECONDS]


def test_a_request_without_a_response_has_not_lasted_however_long_it_took() -> None:
    watched = Watched()
    watched.pauses(2)
    watched.pace.asked()
    watched.now += 60.0
    watched.pace.ended()
    assert watched.pauses(1) == [4 * FIRST_PAUSE_SECONDS]


def test_a_version_that_grew_too_old_leads_to_a_list_at_once() -> None:
    watched = Watched()
    watched.pace.listed()
    watched.watch(600.0)
    watched.pauses(5)
    # The API server was away. The watch that continues is refused at once.
    watched.pace.asked()
    watched.pace.ended()
    assert watched.pace.may_list_again()


def test_a_version_that_is_too_old_right_after_its_list_is_a_failure() -> None:
    watched = Watched()
    for expected in (1, 2, 4):
        watched.pace.listed()
        watched.watch(0.1)
        assert not watched.pace.may_list_again()
        assert watched.pauses(1, GONE) == [expected * FIRST_PAUSE_SECONDS]
        watched.now += 60.0


def test_versions_that_are_too_old_again_and_again_are_failures_that_grow() -> None:
    watched = Watched()
    found = []
    for _ in range(4):
        watched.pace.listed()
        watched.watch(2.0)
        found.append(watched.pace.may_list_again() or watched.pauses(1, GONE)[0])
    first = FIRST_PAUSE_SECONDS
    assert found == [True, first, 2 * first, 4 * first]

    watched.now += GONE_AGAIN_SECONDS
    assert watched.pace.may_list_again()
