"""What happens to packets between simulated routers."""

import random

import pytest

from lora_router.simulator.events import EventQueue
from lora_router.simulator.network import RESEND_SECONDS, Network, Place, WireOptions

HERE, THERE = Place(), Place()


def arrivals(
    options: WireOptions, packets: int = 1, *, here: Place = HERE, there: Place = THERE
) -> list[float]:
    """Return when packets arrive that are sent at once."""
    events = EventQueue()
    network = Network(options, events, random.Random(1))
    times: list[float] = []
    for _ in range(packets):
        network.carry(here, there, lambda: times.append(events.time))
    events.run(lambda: False)
    return times


def test_a_packet_takes_the_delay_and_up_to_the_jitter_more() -> None:
    times = arrivals(WireOptions(0.1, 0.05), 1000)
    assert min(times) == pytest.approx(0.1, abs=0.001)
    assert max(times) == pytest.approx(0.15, abs=0.001)


def test_late_packets_are_sent_again_after_times_that_double() -> None:
    times = arrivals(WireOptions(0.0, 0.0, late=0.5), 1000)

    assert sorted(set(times))[:4] == pytest.approx([0.0, 0.2, 0.6, 1.4])
    assert len(times) == 1000
    assert times.count(0.0) == pytest.approx(500, abs=60)


@pytest.mark.parametrize("parted", ["here", "there"])
def test_no_packet_passes_a_partition_until_it_is_sent_again_afterwards(parted: str) -> None:
    places = {"here": Place(), "there": Place()}
    places[parted].parted_until = 1.0
    times = arrivals(WireOptions(0.0, 0.0), here=places["here"], there=places["there"])
    assert times == pytest.approx([(1 + 2 + 4) * RESEND_SECONDS])


def test_as_many_messages_are_lost_as_the_options_say() -> None:
    lossy = Network(WireOptions(loss=0.05), EventQueue(), random.Random(1))
    assert sum(lossy.loses() for _ in range(10_000)) == pytest.approx(500, abs=80)
    sound = Network(WireOptions(), EventQueue(), random.Random(1))
    assert not any(sound.loses() for _ in range(100))
