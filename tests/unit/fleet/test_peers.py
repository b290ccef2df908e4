"""Shares of peers, and their effect on the beliefs about a pod."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.ledger import Reservation
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from tests.fleet import make_fleet, make_metrics, make_pod, state_of

EVERY = 0.1


def small_fleet() -> Fleet:
    fleet = make_fleet(2, adapters=("a", "b", "c"))
    for state in fleet:
        fleet.put_metrics(state, replace(make_metrics(max_lora=2), running=0.0))
    return fleet


class TwoRouters:
    """Two routers over the same two pods."""

    def __init__(self) -> None:
        self.here, self.there = small_fleet(), small_fleet()
        self.now = 0.0

    def exchange(self, held: dict[str, HeldShare] | None = None) -> LedgerShare:
        self.now += EVERY
        mine = self.here.report_to_peers("here", EVERY, {}, self.now)
        theirs = self.there.report_to_peers("there", EVERY, held or {}, self.now)
        self.here.put_peer(theirs, self.now)
        self.there.put_peer(mine, self.now)
        return theirs

    @property
    def pod(self) -> PodState:
        """The first pod, in this router's fleet."""
        return state_of(self.here, 1)


def test_what_a_peer_has_in_flight_is_foreign_at_once() -> None:
    routers = TwoRouters()
    routers.there.ledger.reserve(state_of(routers.there, 1), "a")
    ended = routers.there.ledger.reserve(state_of(routers.there, 1), None)
    routers.exchange()

    beliefs = routers.pod.beliefs
    assert beliefs.foreign_adapters == {"a"}
    assert beliefs.foreign_requests == 2
    assert beliefs.free_slots == 1
    assert routers.here.index.running("a")

    ended.release()
    routers.exchange()
    assert beliefs.foreign_requests == 1


def test_a_scrape_counts_no_request_twice() -> None:
    routers = TwoRouters()
    routers.here.ledger.reserve(routers.pod, "b")
    routers.there.ledger.reserve(state_of(routers.there, 1), "a")
    routers.exchange()
    # One of ours, one of the peer, and one of a client that calls the pod directly.
    metrics = replace(make_metrics(("a", "b"), max_lora=4, scraped_at=1.0), running=3.0)
    routers.here.put_metrics(routers.pod, metrics)

    assert routers.pod.beliefs.foreign_requests == 2
    assert routers.pod.beliefs.foreign_adapters == {"a"}
    assert routers.pod.beliefs.free_slots == 2


def test_what_a_peer_reports_after_a_scrape_showed_it_is_not_a_strangers() -> None:
    routers = TwoRouters()
    routers.there.ledger.reserve(state_of(routers.there, 1), "a")
    metrics = replace(make_metrics(("a",), max_lora=4, scraped_at=1.0), running=1.0)
    routers.here.put_metrics(routers.pod, metrics)
    assert routers.pod.beliefs.foreign_requests == 1

    routers.exchange()
    assert routers.pod.beliefs.foreign_requests == 1


def test_a_peer_that_sends_no_shares_is_forgotten() -> None:
    routers = TwoRouters()
    routers.there.ledger.reserve(state_of(routers.there, 1), "a")
    routers.exchange()
    routers.here.report_to_peers("here", EVERY, {}, routers.now + 2 * EVERY)
    assert routers.pod.beliefs.foreign_adapters == {"a"}

    routers.here.report_to_peers("here", EVERY, {}, routers.now + 4 * EVERY)
    assert routers.pod.beliefs.foreign_adapters == frozenset()
    assert routers.pod.beliefs.foreign_requests == 0
    assert routers.pod.beliefs.may_take_slot("c")


def test_a_share_that_arrives_after_a_newer_one_is_ignored() -> None:
    routers = TwoRouters()
    routers.exchange()
    old = routers.exchange()
    routers.there.ledger.reserve(state_of(routers.there, 1), "a")
    routers.exchange()
    routers.here.put_peer(old, routers.now)
    assert routers.pod.beliefs.foreign_adapters == {"a"}


def test_a_share_does_not_apply_to_another_server_of_the_same_name() -> None:
    routers = TwoRouters()
    routers.there.ledger.reserve(state_of(routers.there, 1), "a")
    routers.here.upsert(make_pod(1, uid="new"))
    routers.exchange()
    assert routers.pod.beliefs.foreign_adapters == frozenset()


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


def test_a_claim_to_the_last_slot_of_a_pod_is_granted_once_the_peer_acknowledged_it() -> None:
    routers = TwoRouters()
    for router in (routers.here, routers.there):
        router.ledger.reserve(state_of(router, 1), "a")
    routers.exchange()
    routers.exchange()
    here, there = (state_of(router, 1).beliefs for router in (routers.here, routers.there))
    assert here.may_take_slot("c")

    routers.exchange({"b": HeldShare(1.0, wanted="pod-1")})
    assert (here.may_take_slot("c"), there.may_take_slot("b")) == (False, False)

    routers.exchange({"b": HeldShare(1.1, wanted="pod-1")})
    assert (here.may_take_slot("c"), there.may_take_slot("b")) == (False, True)


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


def test_listeners_are_called_after_a_new_share() -> None:
    routers = TwoRouters()
    heard: list[int] = []
    routers.here.changes.shared.subscribe(lambda states: heard.append(len(states)))
    ended = routers.there.ledger.reserve(state_of(routers.there, 1), "a")
    routers.exchange()
    heard.clear()
    ended.release()
    routers.exchange()
    assert heard


def test_a_peer_that_stops_is_forgotten_with_all_that_it_told() -> None:
    routers = TwoRouters()
    routers.there.ledger.reserve(state_of(routers.there, 1), "a")
    routers.exchange({"b": HeldShare(1.0, wanted="pod-1")})
    assert routers.pod.beliefs.foreign_requests == 1

    routers.here.forget_peer("there", routers.now)

    assert routers.pod.beliefs.foreign_requests == 0
    assert routers.pod.beliefs.peers.allotment is None
    routers.here.forget_peer("nobody", routers.now)


def test_no_slot_waits_for_a_silent_peer_whose_requests_still_count() -> None:
    here, there = small_fleet(), small_fleet()
    there.ledger.reserve(state_of(there, 1), "a")
    pod = state_of(here, 1)
    allotments = []
    here.report_to_peers("here", EVERY, {}, 0.0)
    here.put_peer(there.report_to_peers("there", 1.0, {}, 0.0), 0.0)
    allotments.append(pod.beliefs.peers.allotment)
    here.report_to_peers("here", EVERY, {}, 5 * EVERY)

    allotments.append(pod.beliefs.peers.allotment)
    foreign = pod.beliefs.foreign_adapters
    here.put_peer(there.report_to_peers("there", 1.0, {}, 6 * EVERY), 6 * EVERY)

    allotments.append(pod.beliefs.peers.allotment)

    assert [each is None for each in allotments] == [False, True, False]
    assert foreign == {"a"}


def test_the_claims_of_a_silent_peer_do_not_count() -> None:
    """One of three routers holds an adapter for the last slot of the fleet, and falls silent."""
    fleets = {name: make_fleet(1, adapters=("a", "b")) for name in ("here", "silent", "third")}
    for fleet in fleets.values():
        fleet.put_metrics(state_of(fleet, 1), replace(make_metrics(max_lora=1), running=0.0))
    pod = state_of(fleets["here"], 1)
    claim = {"b": HeldShare(7.0, wanted="pod-1")}
    may_take = []
    for step in range(8):
        now = step * EVERY
        for name, fleet in fleets.items():
            if name == "silent" and step > 2:
                continue
            held, every = (claim, 1.0) if name == "silent" else ({}, EVERY)
            share = fleet.report_to_peers(name, every, held, now)
            for other, others in fleets.items():
                if other not in (name, "silent"):
                    others.put_peer(share, now)
        may_take.append(pod.beliefs.may_take_slot("a"))

    assert not any(may_take[1:5]), "the slot is claimed"
    assert may_take[-1], "no slot waits for a router that cannot take it"
    assert pod.beliefs.peers.allotment is not None, "the third router still talks"


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
                    other.peers._allotted_states = {}  # Nothing is taken as settled.
                    other.peers._allot({state.pod.name: state for state in states}, now)
                    assert [state.beliefs.peers.allotment for state in states] == before


def test_a_pod_that_is_new_gets_what_peers_reported_of_it() -> None:
    here, there = make_fleet(1, adapters=("a",)), make_fleet(2, adapters=("a",))
    there.ledger.reserve(state_of(there, 2), "a")
    here.put_peer(there.report_to_peers("there", EVERY, {}, 0.0), 0.0)
    here.report_to_peers("here", EVERY, {}, 0.0)

    here.upsert(state_of(there, 2).pod)
    here.report_to_peers("here", EVERY, {}, 0.1)

    assert state_of(here, 2).beliefs.peers.in_flight("a") == 1


def test_of_a_forgotten_peer_what_the_last_scrape_showed_is_known_until_the_next_one() -> None:
    routers = TwoRouters()
    for adapter in ("a", "b"):
        routers.there.ledger.reserve(state_of(routers.there, 1), adapter)
    routers.exchange()
    shown = replace(make_metrics(("a",), max_lora=4, scraped_at=0.5), running=1.0)
    routers.here.put_metrics(routers.pod, shown)

    routers.here.forget_peer("there", 1.0)

    beliefs = routers.pod.beliefs
    assert beliefs.foreign_adapters == {"a"}, "not b, which only the peer knew of"
    assert beliefs.foreign_requests == 1
    assert beliefs.free_slots == 3
    routers.here.put_metrics(routers.pod, replace(make_metrics(max_lora=4), running=0.0))
    assert (beliefs.foreign_adapters, beliefs.foreign_requests) == (frozenset(), 0)


def test_the_scrape_after_a_peer_was_forgotten_is_right_about_its_adapters() -> None:
    """An adapter that a peer no longer reports has ended, but not if the peer is forgotten."""
    routers = TwoRouters()
    routers.there.ledger.reserve(state_of(routers.there, 1), "a")
    routers.exchange()
    shown = replace(make_metrics(("a",), max_lora=2), running=1.0)
    routers.here.put_metrics(routers.pod, replace(shown, scraped_at=0.9))
    routers.here.forget_peer("there", 1.0)

    routers.here.put_metrics(routers.pod, replace(shown, scraped_at=1.15))

    assert routers.pod.beliefs.foreign_adapters == {"a"}
    assert routers.pod.beliefs.free_slots == 1


class QuietPeer:
    """A router whose peer has adapter ``a`` on the first pod, and was last heard at 0 s."""

    def __init__(self) -> None:
        self.here, self.there = small_fleet(), small_fleet()
        self.reservation = self.there.ledger.reserve(state_of(self.there, 1), "a")
        self.here.report_to_peers("here", EVERY, {}, 0.0)
        self.hear(0.0)

    def hear(self, now: float) -> None:
        self.here.put_peer(self.there.report_to_peers("there", 1 / 3, {}, now), now)

    def foreign_at(self, now: float, scrape: PodMetrics | None = None) -> frozenset[str]:
        """Return the adapters of others on the first pod when this router reports."""
        pod = state_of(self.here, 1)
        if scrape is not None:
            self.here.put_metrics(pod, scrape)
        self.here.report_to_peers("here", EVERY, {}, now)
        return pod.beliefs.foreign_adapters


def test_a_scrape_of_a_pod_replaces_what_a_quiet_peer_reported_of_it() -> None:
    routers = QuietPeer()
    empty = replace(make_metrics(max_lora=2), running=0.0)
    other = replace(make_metrics(("b",), max_lora=2, scraped_at=0.55), running=1.0)

    assert routers.foreign_at(0.3, replace(empty, scraped_at=0.25)) == {"a"}, "heard lately"
    assert routers.foreign_at(0.5) == {"a"}, "the scrape may be older than its requests"
    assert routers.foreign_at(0.6, other) == {"b"}


def test_a_quiet_peer_that_is_heard_again_counts_with_all_that_it_has() -> None:
    routers = QuietPeer()
    empty = replace(make_metrics(max_lora=2, scraped_at=0.55), running=0.0)
    assert routers.foreign_at(0.6, empty) == frozenset()

    routers.hear(0.7)  # Its share has the same requests as the one before.
    assert routers.foreign_at(0.7) == {"a"}

    routers.foreign_at(1.2, replace(empty, scraped_at=1.2))
    routers.reservation.release()
    routers.hear(1.3)
    assert routers.foreign_at(1.3) == frozenset()


def test_own_requests_are_not_a_strangers_when_a_peer_is_forgotten() -> None:
    routers = TwoRouters()
    for fleet in (routers.here, routers.there):
        fleet.ledger.reserve(state_of(fleet, 1), "a")
    routers.exchange()
    both = replace(make_metrics(("a",), max_lora=4, scraped_at=0.5), running=2.0)
    routers.here.put_metrics(routers.pod, both)

    routers.here.forget_peer("there", 1.0)

    assert routers.pod.beliefs.foreign_adapters == frozenset()
    assert routers.pod.beliefs.foreign_requests == 1
    assert routers.pod.beliefs.free_slots == 3
