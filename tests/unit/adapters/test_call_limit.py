"""How many calls the loader makes at the same time."""

import pytest

from lora_router.adapters.call_limit import SLOW_SECONDS, CallsLeft, limit_of


@pytest.mark.parametrize(("pods", "limit"), [(1, 8), (32, 8), (100, 25), (1000, 250)])
def test_without_a_setting_every_fourth_pod_may_load_and_at_least_eight(
    pods: int, limit: int
) -> None:
    assert limit_of(None, pods) == limit


def test_a_setting_counts_whatever_the_size_of_the_fleet() -> None:
    assert limit_of(2, 1000) == 2


def taken(left: CallsLeft, *, is_waited_for: bool) -> int:
    """Return how many calls of a kind may begin."""
    count = 0
    while left.take(is_waited_for=is_waited_for):
        count += 1
    return count


def test_so_many_calls_begin_as_are_allowed() -> None:
    left = CallsLeft(4, [100.0], 101.0)
    assert taken(left, is_waited_for=False) == 3
    assert not left.for_others


def test_adapters_for_which_requests_wait_are_loaded_beside_them() -> None:
    left = CallsLeft(4, [100.0] * 4, 101.0)
    assert not left.for_others
    assert taken(left, is_waited_for=True) == 8


def test_calls_that_take_long_make_room_for_as_many_others() -> None:
    now = 100.0 + SLOW_SECONDS
    assert taken(CallsLeft(4, [100.0] * 4, now), is_waited_for=False) == 4
    assert taken(CallsLeft(4, [100.0] * 8, now), is_waited_for=False) == 0
    assert taken(CallsLeft(4, [100.0] * 8, now), is_waited_for=True) == 4
