"""Which free slots a router may take, as shares of peers arrive."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.free_slots import FreeSlots
from lora_router.fleet.ledger import Reservation
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare, PodShare
from lora_router.fleet.pod_allotments import REST_SECONDS
from lora_router.steps import all_at_once
from tests.fleet import make_fleet, make_metrics, state_of
from tests.unit.fleet.two_routers import EVERY, TwoRouters, small_fleet


def test_a_slot_that_a_peer_waits_for_takes_no_other_request() -> None:
    routers = TwoRouters()
    routers.here.ledger.reserve(routers.pod, "a")
    routers.exchange({"c": HeldShare(7.0, closed=("pod-1", "a"))})
    assert routers.pod.beliefs.peers.closed == {"a"}
    routers.exchange()
    assert routers.pod.beliefs.peers.closed == frozenset()


def test_the_last_slot_of_a_pod_is_allotted_to_one_router() -> None:
    routers = TwoRouters()
    for router in (routers.here, routers.there):
        router.ledger.reserve(state_of(router, 1), "a")
    routers.exchange()
    routers.exchange()
    takers = [
        state_of(router, 1).beliefs.may_take_slot("c") for router in (routers.here, routers.there)
    ]
    assert sorted(takers) == [False, True]


def test_an_adapter_that_is_loaded_may_take_one_of_several_slots_outside_the_allotment() -> None:
    routers = TwoRouters()
    routers.there.ledger.reserve(state_of(routers.there, 2), "b").release()
    routers.exchange()
    routers.exchange()
    # Each router is allotted one of the two free slots.
    for router in (routers.here, routers.there):
        router.ledger.reserve(state_of(router, 2), "a")
        assert not state_of(router, 2).beliefs.may_take_slot("c")
        # Both know that it is loaded: the one that used it has reported that.
        assert state_of(router, 2).beliefs.may_take_slot("b")


def test_a_lone_router_may_take_every_free_slot() -> None:
    fleet = small_fleet()
    fleet.report_to_peers("alone", EVERY, {}, 1.0)
    assert all(state.beliefs.may_take_slot("c") for state in fleet)


def test_no_slot_waits_for_a_silent_peer_whose_requests_still_count() -> None:
    here, there = small_fleet(), small_fleet()
    there.ledger.reserve(state_of(there, 1), "a")
    pod = state_of(here, 1)
    allotments = []
    here.report_to_peers("here", EVERY, {}, 0.0)
    here.put_peer(there.report_to_peers("there", 1.0, {}, 0.0), 0.0)
    allotments.append(pod.beliefs.peers.allotment)
    for number in range(1, 6):
        here.report_to_peers("here", EVERY, {}, number * EVERY)

    allotments.append(pod.beliefs.peers.allotment)
    foreign = pod.beliefs.foreign_adapters
    here.put_peer(there.report_to_peers("there", 1.0, {}, 6 * EVERY), 6 * EVERY)

    allotments.append(pod.beliefs.peers.allotment)

    assert [each is None for each in allotments] == [False, True, False]
    assert foreign == {"a"}


def test_any_router_may_use_slots_whose_number_is_unknown() -> None:
    routers = TwoRouters()
    routers.here, routers.there = make_fleet(2, adapters=("a",)), make_fleet(2, adapters=("a",))

    routers.exchange()
    routers.exchange()

    assert routers.pod.beliefs.peers.allotment is not None
    assert all(state.beliefs.may_take_slot("a") for state in routers.here)
    assert all(state.beliefs.may_take_slot("a") for state in routers.there)


_steps = st.lists(
    st.tuples(
        st.sampled_from(["here", "there", "third"]),
        st.sampled_from(["reserve", "release", "exchange"]),
        st.integers(1, 4),
        st.sampled_from("abc"),
    ),
    max_size=30,
)


@given(_steps)
def test_what_a_share_changes_is_what_a_new_allotment_of_all_slots_would_give(
    steps: list[tuple[str, str, int, str]],
) -> None:
    fleets = {}
    for name in ("here", "there", "third"):
        fleets[name] = make_fleet(4, adapters=("a", "b", "c"))
        for state in fleets[name]:
            fleets[name].put_metrics(state, make_metrics(max_lora=2))
    reservations: dict[str, list[Reservation]] = {name: [] for name in fleets}
    now = 0.0
    for name, what, number, adapter in steps:
        fleet = fleets[name]
        if what == "reserve":
            state = state_of(fleet, number)
            reservations[name].append(fleet.ledger.reserve(state, adapter))
        elif what == "release" and reservations[name]:
            reservations[name].pop().release()
        elif what == "exchange":
            now += 0.1
            share = fleet.report_to_peers(name, EVERY, {}, now)
            for other_name, other in fleets.items():
                if other_name != name:
                    other.put_peer(share, now)
                    states = list(other)
                    before = [state.beliefs.peers.allotment for state in states]
                    other.peers.allotments._positions.put({})  # Nothing is taken as settled.
                    other.peers.allotments.renew({state.pod.name: state for state in states}, now)
                    assert [state.beliefs.peers.allotment for state in states] == before


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["here", "there", "third"]),
            st.sampled_from(["reserve", "release", "exchange", "hold", "list"]),
            st.integers(1, 4),
            st.sampled_from("abcde"),
        ),
        max_size=40,
    )
)
def test_what_was_computed_before_is_used_only_where_it_is_still_right(
    steps: list[tuple[str, str, int, str]],
) -> None:
    """While adapters are held, so that claims may change every pod."""
    fleets = {}
    for name in ("here", "there", "third"):
        fleets[name] = make_fleet(4, adapters=tuple("abcde"))
        for state in fleets[name]:
            fleets[name].put_metrics(state, make_metrics(max_lora=2))
    reservations: dict[str, list[Reservation]] = {name: [] for name in fleets}
    held: dict[str, dict[str, float]] = {name: {} for name in fleets}
    now = 0.0
    for name, what, number, adapter in steps:
        fleet = fleets[name]
        if what == "reserve":
            reservations[name].append(fleet.ledger.reserve(state_of(fleet, number), adapter))
        elif what == "release" and reservations[name]:
            reservations[name].pop().release()
        elif what == "hold" and held[name].pop(adapter, None) is None:
            held[name][adapter] = now
        elif what == "list":
            for each in fleets.values():
                listed = [ServedModel("base"), ServedModel(adapter, "base")]
                each.put_models(state_of(each, number), listed)
        elif what == "exchange":
            now += EVERY * number
            claims = {
                each: HeldShare(now - since, wanted=f"pod-{number}")
                for each, since in held[name].items()
            }
            share = fleet.report_to_peers(name, EVERY, claims, now)
            for other_name, other in fleets.items():
                if other_name != name:
                    other.put_peer(share, now)
                    allotments, states = other.peers.allotments, list(other)
                    before = [(x.beliefs.peers.allotment, x.beliefs.peers.closed) for x in states]
                    allotments._positions.put({})
                    allotments._free = FreeSlots()
                    allotments._outcomes = {}
                    allotments.renew({state.pod.name: state for state in states}, now)
                    after = [(x.beliefs.peers.allotment, x.beliefs.peers.closed) for x in states]
                    assert after == before


class Claimed:
    """A router of which a peer holds an adapter, while shares arrive one after the other."""

    def __init__(self) -> None:
        self.fleet = make_fleet(40, adapters=("a", "b", "c"))
        for state in self.fleet:
            self.fleet.put_metrics(state, replace(make_metrics(max_lora=2), running=0.0))
        self.waits: list[float] = []
        self.fleet.peers.on_due = self.waits.append
        self.numbers = {"there": 0, "third": 0}
        self.fleet.report_to_peers("here", EVERY, {}, 0.0)
        for router in self.numbers:
            self.hear(router, 0.0)
        self.fleet.report_to_peers("here", EVERY, {}, 0.1)

    def hear(self, router: str, now: float, **adapters: str) -> None:
        """Let a share arrive that has an adapter in flight on each of some pods."""
        self.numbers[router] += 1
        pods = {}
        for name, adapter in adapters.items():
            pod = state_of(self.fleet, int(name.removeprefix("pod"))).pod
            pods[pod.name] = PodShare((pod.address, pod.uid), 1, {adapter: 1})
        held = {"c": HeldShare(5.0 + now)}
        share = LedgerShare(router, self.numbers[router], 1.0, pods, held, {"here": 1})
        all_at_once(self.fleet.take_share(share, now))

    def slots(self, number: int) -> int:
        """Return how many slots of a pod this router may take."""
        allotment = state_of(self.fleet, number).beliefs.peers.allotment
        assert allotment is not None
        return allotment.slots


def test_shares_that_follow_each_other_closely_have_all_pods_computed_once() -> None:
    """Otherwise the work would grow with the square of the peers."""
    routers = Claimed()
    routers.hear("there", 0.2)
    assert routers.waits == []
    for number in range(1, 8):
        routers.hear("third", 0.2 + number / 10_000)
    assert routers.waits == [pytest.approx(42 * REST_SECONDS - 0.0001)], "40 pods and 2 claims"
    assert routers.fleet.peers.allotments._renewed_at == 0.2
    routers.fleet.peers.renew(0.22)
    assert routers.fleet.peers.allotments._renewed_at == 0.22
    routers.fleet.peers.renew(0.23)
    assert routers.fleet.peers.allotments._renewed_at == 0.22, "nothing was put off"


def test_a_slot_that_a_peer_took_is_allotted_to_nobody_although_the_rest_is_put_off() -> None:
    routers = Claimed()
    routers.hear("there", 0.2)
    pod = next(number for number in range(1, 41) if routers.slots(number) == 1)
    routers.hear("third", 0.2001, **{f"pod{pod}": "a"})
    routers.hear("there", 0.2002, **{f"pod{pod}": "b"})
    assert routers.waits
    assert routers.slots(pod) == 0


def test_a_slot_that_became_free_may_be_that_of_a_claim_until_all_pods_are_computed() -> None:
    routers = Claimed()
    taken = {f"pod{number}": "a" for number in range(1, 41)}
    routers.hear("third", 0.2, **taken)
    routers.hear("there", 0.23, **dict.fromkeys(taken, "b"))
    routers.fleet.report_to_peers("here", EVERY, {}, 0.25)
    assert not any(routers.slots(number) for number in range(1, 41))
    routers.hear("third", 0.2501)
    assert not any(routers.slots(number) for number in range(1, 41))
    routers.fleet.peers.renew(0.27)
    assert any(routers.slots(number) for number in range(1, 41))


def test_with_its_own_share_a_router_computes_all_pods_whenever_that_was_done_before() -> None:
    """With it, peers are told that their claims are known, and take the slots."""
    routers = Claimed()
    routers.hear("there", 0.2)
    routers.hear("third", 0.2001)
    routers.fleet.report_to_peers("here", EVERY, {}, 0.2002)
    assert routers.fleet.peers.allotments._renewed_at == 0.2002


def test_with_many_claims_all_pods_are_computed_less_often() -> None:
    routers = Claimed()
    routers.fleet.peers.allotments._claims.rows = 4_960
    routers.hear("there", 0.15)
    assert routers.waits == [pytest.approx(0.05)]
