"""Routers tell each other which adapters cannot be loaded."""

import pytest

from lora_router.peering.failed_loads import FailedLoads
from lora_router.peering.limits import FAILED_LOADS_BURST, MAX_FAILED_LOADS
from lora_router.peering.pb.peering_pb2 import FailedLoad, PeerMessage
from tests.fleet import ManualClock
from tests.unit.peering.routers import DELAY, Router, mesh


class Heard:
    def __init__(self) -> None:
        self.failed: list[tuple[str, str, float]] = []

    def heard(self, served: str, detail: str, seconds: float) -> None:
        self.failed.append((served, detail, seconds))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def sharing(clock: ManualClock) -> tuple[FailedLoads, Router, Heard, Router]:
    first, second = mesh(clock, "a", "b")
    heard = Heard()
    FailedLoads(second.hub, heard)
    return FailedLoads(first.hub, Heard()), first, heard, second


def test_a_peer_hears_what_cannot_be_loaded(clock: ManualClock) -> None:
    loads, _, heard, _ = sharing(clock)
    loads.tell("sql@2", "no pod can load it", 8.25)
    loads.tell("chat", "x" * 300, 1e9)
    clock.advance(2 * DELAY)
    assert heard.failed == [("sql@2", "no pod can load it", 8.25), ("chat", "x" * 200, 3600.0)]


@pytest.mark.parametrize(
    "failed",
    [
        [FailedLoad(adapter="a")] * (MAX_FAILED_LOADS + 1),
        [FailedLoad(adapter="a" * 10_000)],
        [FailedLoad(adapter="a", detail="d" * 201)],
    ],
)
def test_what_exceeds_a_bound_is_rejected(clock: ManualClock, failed: list[FailedLoad]) -> None:
    _, first, heard, second = sharing(clock)
    first.hub.send_to_all(PeerMessage(failed_loads=failed).SerializeToString())
    clock.advance(2 * DELAY)
    assert not heard.failed
    assert second.hub.counts.rejected["too-large"] == 1


def test_a_peer_that_tells_too_much_is_not_heard(clock: ManualClock) -> None:
    _, first, heard, _ = sharing(clock)
    message = PeerMessage(failed_loads=[FailedLoad(adapter="a", detail="\n")] * MAX_FAILED_LOADS)
    for _ in range(2 * FAILED_LOADS_BURST // MAX_FAILED_LOADS):
        first.hub.send_to_all(message.SerializeToString())
    clock.advance(2 * DELAY)
    assert 0 < len(heard.failed) < 1.5 * FAILED_LOADS_BURST
    assert heard.failed[0] == ("a", "", 0.0)
