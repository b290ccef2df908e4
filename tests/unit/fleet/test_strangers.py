"""What scrapes show of senders that send no shares."""

from dataclasses import replace

from lora_router.fleet.peer_ledgers import PodShare
from lora_router.fleet.pod_peers import PodPeers
from lora_router.fleet.strangers import Strangers
from tests.fleet import make_fleet, make_metrics, state_of

MAX_AGE = 15.0

SERVER = ("10.0.0.1:8000", "")


def test_what_no_ledger_explains_is_a_strangers() -> None:
    peers = PodPeers()
    peers.put("there", PodShare(SERVER, 2, {"theirs": 2}))
    strangers = Strangers()

    active = frozenset({"ours", "ended", "theirs", "strange"})
    strangers.scraped(active, ({"ours": 1}, {"ended"}), 5, peers)

    assert strangers.adapters == {"strange"}
    assert strangers.requests == 3


def test_what_a_peer_reports_after_the_scrape_is_explained() -> None:
    strangers = Strangers()
    strangers.scraped(frozenset({"a", "b"}), (), 2, PodPeers())

    strangers.explain({"a"}, 1)
    assert strangers.adapters == {"b"}
    assert strangers.requests == 1

    strangers.explain({"b"}, -1)
    assert (strangers.adapters, strangers.requests) == (frozenset(), 1)


def test_what_the_scrape_showed_of_a_forgotten_peer_is_a_strangers() -> None:
    peers = PodPeers()
    peers.put("there", PodShare(SERVER, 2, {"theirs": 2}))
    strangers = Strangers()
    strangers.scraped(frozenset({"theirs"}), (), 2, peers)
    assert (strangers.adapters, strangers.requests) == (frozenset(), 0)

    peers.put("there", None)
    strangers.take_over({"theirs"}, peers)

    assert strangers.adapters == {"theirs"}
    assert strangers.requests == 2


def test_what_the_scrape_shows_beyond_the_ledger_is_foreign() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    fleet.ledger.reserve(state, "ours")
    metrics = replace(make_metrics(("ours", "theirs")), running=3.0, waiting=2.0)
    fleet.put_metrics(state, metrics)

    assert state.beliefs.foreign_adapters == {"theirs"}
    assert state.beliefs.foreign_requests == 4
    assert state.beliefs.in_host_memory("theirs")


def test_the_end_of_our_own_request_is_not_treated_as_foreign() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    fleet.ledger.reserve(state, "ours").release()
    fleet.put_metrics(state, replace(make_metrics(("ours",)), running=1.0))
    assert state.beliefs.foreign_adapters == frozenset()

    # If it is still there at the next scrape, it belongs to another sender.
    fleet.put_metrics(state, replace(make_metrics(("ours",)), running=1.0))
    assert state.beliefs.foreign_adapters == {"ours"}


def test_what_only_an_old_scrape_showed_does_not_count() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    metrics = make_metrics(("theirs",), max_lora=4, scraped_at=100.0)
    fleet.put_metrics(state, replace(metrics, running=4.0, waiting=1.0, deferred=1.0))
    assert state.beliefs.free_slots == 0
    fleet.ledger.reserve(state, "ours")
    later = 100.0 + MAX_AGE + 0.1

    fleet.put_scrape_failure(state, later)
    assert state.beliefs.foreign_adapters == frozenset()
    assert state.beliefs.free_slots == 3
