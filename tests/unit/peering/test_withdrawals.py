"""Routers tell each other which adapters are about to be unloaded."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from lora_router.fleet.pod_state import PodState
from lora_router.peering.limits import MAX_MESSAGE_BYTES, MAX_WITHDRAWALS
from lora_router.peering.pb.peering_pb2 import PeerMessage, Withdrawal
from lora_router.peering.withdrawals import AGAIN_AT_ONCE, SECONDS, Withdrawals
from tests.fleet import ManualClock, state_of
from tests.unit.peering.routers import DELAY, Router, mesh


class Lists:
    """What is taken out of the lists of a router's fleet."""

    def __init__(self) -> None:
        self.out: set[tuple[str, str]] = set()
        self.changes = 0

    def take_out(self, state: PodState, names: Collection[str]) -> None:
        self.changes += 1
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
        self.of_second = Withdrawals(self.second.hub, self.second.fleet, self.lists)

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


def test_what_is_withdrawn_for_long_is_told_again_until_it_is_unloaded() -> None:
    here = Here()
    here.tell("a", "b")

    for _ in range(20):
        here.clock.advance(3.0)
        assert here.lists.out == {("pod-1", "a"), ("pod-1", "b")}
    assert here.lists.changes == 1, "what is out already is not taken out again"

    here.withdrawals.unloaded(here.state(here.first), "a")
    here.clock.advance(SECONDS - 1)
    assert here.lists.out == {("pod-1", "a"), ("pod-1", "b")}, "a list may be older than the unload"
    here.clock.advance(2.0)
    assert here.lists.out == {("pod-1", "b")}

    here.tell("b", ends=True)
    here.clock.advance(SECONDS)
    assert here.lists.out == set()


def test_everything_returns_after_a_while_if_the_router_that_loads_dies() -> None:
    here = Here()
    here.tell("a")
    here.clock.advance(20.0)
    here.first.hub.leave()

    here.clock.advance(SECONDS / 2)
    assert here.lists.out == {("pod-1", "a")}

    here.clock.advance(SECONDS / 2 + 1)
    assert here.lists.out == set()


def test_a_peer_that_joins_later_learns_what_is_withdrawn() -> None:
    here = Here()
    here.tell("a")
    third, lists = Router("c", here.clock), Lists()
    Withdrawals(third.hub, third.fleet, lists)
    third.connect(here.first)

    here.clock.advance(4.0)

    assert lists.out == {("pod-1", "a")}


def test_a_pod_that_is_not_ready_is_told_of_no_more() -> None:
    """The lists forget what was withdrawn there, so what returns is not told of either."""
    here = Here()
    here.tell("a")
    pod = here.state(here.first).pod
    for router in (here.first, here.second):
        router.fleet.upsert(replace(pod, ready=False))
        router.fleet.upsert(pod)
    here.lists.out.clear()

    here.clock.advance(SECONDS)
    assert here.lists.out == set()

    here.tell("a")
    assert here.lists.out == {("pod-1", "a")}


def test_what_is_told_again_is_bounded_and_takes_turns() -> None:
    here = Here()
    names = {f"lora-{number}" for number in range(2 * AGAIN_AT_ONCE)}
    here.tell(*names)

    here.clock.advance(60.0)

    assert {name for _, name in here.lists.out} == names
    assert not any(here.second.hub.counts.rejected.values())
    here.lists.out.clear()
    here.tell(*names, ends=True)
    here.clock.advance(2 * SECONDS)
    assert here.lists.out == set()


def test_long_names_are_told_in_messages_that_peers_accept() -> None:
    here = Here()
    names = {f"{number:0300}" for number in range(MAX_WITHDRAWALS)}
    assert sum(map(len, names)) > MAX_MESSAGE_BYTES

    here.tell(*names)

    assert {name for _, name in here.lists.out} == names
    assert here.first.peers() == ["b"]


def test_what_two_routers_withdraw_is_out_until_both_have_ended_it() -> None:
    """For a moment, two routers may load."""
    here = Here()
    here.tell("a")
    here.of_second.tell(here.state(here.second), ["a"], ends=False)
    here.tell("a", ends=True)
    assert here.lists.out == {("pod-1", "a")}, "the second router decides for itself"

    here.tell("a")
    here.of_second.tell(here.state(here.second), ["a"], ends=True)
    here.lists.out.clear()  # So does what calls it.
    here.clock.advance(4.0)
    assert here.lists.out == {("pod-1", "a")}


def test_what_a_peer_has_withdrawn_returns_when_this_router_has_loaded_it() -> None:
    here = Here()
    here.tell("a")
    here.first.hub.leave()

    here.of_second.tell(here.state(here.second), ["a"], ends=True)

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
