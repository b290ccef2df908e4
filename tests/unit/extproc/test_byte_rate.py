"""A limit on how fast bytes leave."""

from lora_router.extproc.byte_rate import ByteRate
from tests.fleet import ManualClock


def test_a_burst_leaves_at_once_and_the_rest_waits() -> None:
    clock = ManualClock()
    rate = ByteRate(100, 10, clock.now)

    rate.take(100)
    no_wait = rate.seconds_until_room()
    rate.take(50)

    assert no_wait == 0
    assert rate.seconds_until_room() == 5
    clock.advance(4)
    assert rate.seconds_until_room() == 1


def test_idle_time_saves_no_more_than_a_burst() -> None:
    clock = ManualClock()
    rate = ByteRate(100, 10, clock.now)

    clock.advance(1_000)
    rate.seconds_until_room()
    rate.take(110)

    assert rate.seconds_until_room() == 1
