"""Routers tell each other which adapters are about to be unloaded."""

from collections.abc import Collection

import pytest

from lora_router.fleet.pod_state import PodState
from lora_router.peering.limits import MAX_WITHDRAWALS
from lora_router.peering.pb.peering_pb2 import PeerMessage, Withdrawal
from lora_router.peering.withdrawals import SECONDS, Withdrawals
from tests.fleet import ManualClock, state_of
from tests.unit.peering.routers import DELAY, Router, mesh


class Lists:
    """What is taken out of the lists of a router's fleet."""

    def __init__(self) -> None:
        self.out: set[tuple[str, str]] = set()

    def take_out(self, state: PodState, names: Collection[str]) -> None:
        self.out |= {(state.pod.name, name) for name in names}

    def put_back(self, state: PodState, names: Collection[str]) -> None:
        self.out -= {(state.pod.name, name) for name in names}


class Here:
    """Two routers: the first one loads."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.first, self.second = mesh(self.clock, "a", "b")
        self.lists = Lists()
        self.withdrawals = Withdrawals(self.first.hub, self.first.fleet, Lists())
        Withdrawals(self.second.hub, self.second.fleet, self.lists)

    def state(self, router: Router) -> PodState:
        return state_of(router.fleet, 1)

    def tell(self, *names: str, ends: bool = False) -> None:
        self.withdrawals.tell(self.state(self.first), names, ends=ends)
        self.clock.advance(2 * DELAY)


def test_a_peer_sends_no_requests_to_what_is_about_to_be_unloaded() -> None:
    here = Here()

    here.tell("a", "b")

    assert here.lists.out == {("pod-1", "a"), ("pod-1", "b")}


def test_what_is_withdrawn_no_longer_returns_at_once() -> None:
    here = Here()
    here.tell("a", "b")

    here.tell("a", "unknown", ends=True)

    assert here.lists.out == {("pod-1", "b")}


def test_everything_returns_after_a_while_since_the_router_that_loads_may_have_died() -> None:
    here = Here()
    here.tell("a")
    here.clock.advance(SECONDS / 2)
    here.tell("a", "b")

    here.clock.advance(SECONDS / 2 + 1)
    assert here.lists.out == {("pod-1", "a"), ("pod-1", "b")}

    here.clock.advance(SECONDS / 2)
    assert here.lists.out == set()


def test_pods_that_are_unknown_are_ignored() -> None:
    here = Here()
    message = PeerMessage(withdrawals=[Withdrawal(pod=5, adapter="a", milliseconds=1000)])
    here.first.hub.send_to_all(message.SerializeToString())
    here.clock.advance(2 * DELAY)

    assert here.lists.out == set()
    assert not any(here.second.hub.counts.rejected.values())


@pytest.mark.parametrize(
    "rows", [[Withdrawal(adapter="a")] * (MAX_WITHDRAWALS + 1), [Withdrawal(adapter="a" * 10_000)]]
)
def test_what_exceeds_a_bound_is_rejected(rows: list[Withdrawal]) -> None:
    here = Here()
    here.first.hub.send_to_all(PeerMessage(withdrawals=rows).SerializeToString())
    here.clock.advance(2 * DELAY)

    assert here.second.hub.counts.rejected["too-large"] == 1
