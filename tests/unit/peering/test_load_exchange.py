"""Routers tell each other how long loads of adapters took."""

import pytest

from lora_router.fleet.adapter_beliefs import AWAY, IN_HOST_MEMORY, IN_SLOT
from lora_router.fleet.load_seconds import ASSUMED, HIGHEST_SECONDS
from lora_router.peering.limits import LOAD_TIMES_BURST, MAX_LOAD_TIMES, MAX_NAME_BYTES
from lora_router.peering.load_exchange import MOST_FIRST_BYTES, TELL_SECONDS, LoadExchange
from lora_router.peering.pb.peering_pb2 import LoadTimes, PeerMessage
from tests.fleet import ManualClock, make_metrics, state_of
from tests.unit.peering.routers import DELAY, Router, mesh

BASE = "base"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def sharing(clock: ManualClock) -> tuple[Router, Router]:
    first, second = mesh(clock, "a", "b")
    for router in (first, second):
        LoadExchange(router.hub, router.fleet)
    return first, second


def see(router: Router, place: int, *times: float) -> None:
    """Let a router see loads on its first pod."""
    load_times, pod = router.fleet.ledger.load_times, state_of(router.fleet, 1)
    for _ in range(8):
        load_times.first_byte(pod, 0, 0.05)
    for seconds in times:
        load_times.first_byte(pod, place, 0.05 + seconds)


def listen(router: Router) -> list[float]:
    """Return a list that gets the times of loads that peers tell a router."""
    heard: list[float] = []

    def note(base_model: str, place: int, seconds: float) -> None:
        if place != IN_SLOT:
            heard.append(seconds)

    router.fleet.ledger.load_times.heard = note  # type: ignore[method-assign]
    return heard


def known(router: Router) -> tuple[float, float]:
    """Return what a router knows of loads after the next scrape, on a pod that had none."""
    pod = state_of(router.fleet, 2)
    router.fleet.put_metrics(pod, make_metrics())
    _, host, disk = pod.beliefs.load_seconds
    return host, disk


def test_loads_are_compared_with_first_bytes_that_a_peer_saw(clock: ManualClock) -> None:
    first, second = sharing(clock)
    pod = state_of(second.fleet, 1)
    for _ in range(8):
        see(first, AWAY)
        clock.advance(TELL_SECONDS + 2 * DELAY)
    for _ in range(8):
        second.fleet.ledger.load_times.first_byte(pod, AWAY, 0.05 + 5.0)
    assert known(second)[1] == pytest.approx(5.0, rel=0.1)


def test_few_first_bytes_without_a_load_are_told(clock: ManualClock) -> None:
    first, second = sharing(clock)
    see(first, AWAY)
    clock.advance(TELL_SECONDS + 2 * DELAY)
    pod = state_of(second.fleet, 1)
    for _ in range(8):
        second.fleet.ledger.load_times.first_byte(pod, AWAY, 5.0)
    assert known(second) == ASSUMED[1:], f"{MOST_FIRST_BYTES} are too few"


def test_a_peer_learns_from_loads_that_it_did_not_see(clock: ManualClock) -> None:
    first, second = sharing(clock)
    see(first, AWAY, *[5.0] * 8)
    see(first, IN_HOST_MEMORY, *[0.2] * 8)
    assert known(second) == ASSUMED[1:]
    clock.advance(TELL_SECONDS + 2 * DELAY)
    assert known(second) == pytest.approx((0.2, 5.0), rel=0.1)
    assert state_of(second.fleet, 2).beliefs.knows_disk
    assert known(second) == pytest.approx(known(first), rel=0.01)


def test_what_a_peer_told_is_not_told_on(clock: ManualClock) -> None:
    first, second = sharing(clock)
    heard = {router.hub.name: listen(router) for router in (first, second)}
    see(first, AWAY, 5.0)
    clock.advance(10 * TELL_SECONDS)
    assert heard == {"a": [], "b": [pytest.approx(5.0, abs=0.01)]}


@pytest.mark.parametrize(
    "times",
    [
        [LoadTimes(base_model=BASE, disk=[1] * MAX_LOAD_TIMES, host=[1])],
        [LoadTimes(base_model=BASE)] * (MAX_LOAD_TIMES + 1),
        [LoadTimes(base_model="b" * (MAX_NAME_BYTES + 1), disk=[1])],
    ],
)
def test_what_exceeds_a_bound_is_rejected(clock: ManualClock, times: list[LoadTimes]) -> None:
    first, second = sharing(clock)
    first.hub.send_to_all(PeerMessage(load_times=times).SerializeToString())
    clock.advance(2 * DELAY)
    assert second.hub.counts.rejected["too-large"] == 1
    assert known(second) == ASSUMED[1:]


def test_times_that_nothing_takes_are_taken_for_the_longest(clock: ManualClock) -> None:
    first, second = sharing(clock)
    times = LoadTimes(base_model=BASE, disk=[2**31 - 1] * 32, host=[-(2**31)] * 32)
    first.hub.send_to_all(PeerMessage(load_times=[times]).SerializeToString())
    clock.advance(2 * DELAY)
    assert known(second) == pytest.approx((0.0, HIGHEST_SECONDS), abs=1.0)


def test_base_models_that_no_pod_has_are_ignored(clock: ManualClock) -> None:
    first, second = sharing(clock)
    for number in range(100):
        times = LoadTimes(base_model=f"other-{number}", disk=[5000] * 4)
        first.hub.send_to_all(PeerMessage(load_times=[times]).SerializeToString())
    clock.advance(2 * DELAY)
    assert not second.fleet.ledger.load_times._of_base_model


def test_rows_without_times_count_too(clock: ManualClock) -> None:
    first, second = sharing(clock)
    heard = listen(second)
    empty = PeerMessage(load_times=[LoadTimes(base_model=BASE)] * MAX_LOAD_TIMES)
    for _ in range(LOAD_TIMES_BURST // MAX_LOAD_TIMES):
        first.hub.send_to_all(empty.SerializeToString())
    times = PeerMessage(load_times=[LoadTimes(base_model=BASE, disk=[5000] * MAX_LOAD_TIMES)])
    first.hub.send_to_all(times.SerializeToString())
    clock.advance(2 * DELAY)
    assert not heard


def test_a_peer_that_tells_too_much_is_not_heard(clock: ManualClock) -> None:
    first, second = sharing(clock)
    heard = listen(second)
    times = PeerMessage(load_times=[LoadTimes(base_model=BASE, disk=[5000] * MAX_LOAD_TIMES)])
    for _ in range(2 * LOAD_TIMES_BURST // MAX_LOAD_TIMES):
        first.hub.send_to_all(times.SerializeToString())
    clock.advance(2 * DELAY)
    assert 0 < len(heard) < 1.5 * LOAD_TIMES_BURST


def test_a_router_tells_a_bounded_number_of_loads_and_none_without_peers(
    clock: ManualClock,
) -> None:
    first, second = sharing(clock)
    heard = listen(second)
    see(first, AWAY, *[5.0] * (3 * MAX_LOAD_TIMES))
    clock.advance(TELL_SECONDS + 2 * DELAY)
    assert len(heard) == MAX_LOAD_TIMES - MOST_FIRST_BYTES
    (alone,) = mesh(clock, "alone")
    exchange = LoadExchange(alone.hub, alone.fleet)
    see(alone, AWAY, 5.0)
    assert exchange._rows == 0
