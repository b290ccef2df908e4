"""Which free slots a router may take, as shares of peers arrive."""

from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.ledger import Reservation
from lora_router.fleet.peer_ledgers import HeldShare
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
                    other.peers.allotments._states = {}  # Nothing is taken as settled.
                    other.peers.allotments.renew({state.pod.name: state for state in states}, now)
                    assert [state.beliefs.peers.allotment for state in states] == before
