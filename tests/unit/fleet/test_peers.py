"""Shares of peers, and their effect on the beliefs about a pod."""

from dataclasses import replace

import pytest

from lora_router.fleet.load_seconds import DISK_SECONDS
from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_work import TOKENS_A_SECOND
from tests.fleet import make_fleet, make_metrics, make_pod, state_of
from tests.unit.fleet.two_routers import EVERY, TwoRouters, small_fleet


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


def test_a_pod_loads_what_a_peer_brought_there() -> None:
    routers = TwoRouters()
    there = state_of(routers.there, 1)
    routers.there.ledger.reserve(there, "a")
    routers.exchange()
    # It may have been there for long: this is the first share.
    assert routers.pod.work.loads_end <= routers.now

    routers.exchange()
    assert routers.pod.work.loads_end <= routers.now
    routers.there.ledger.reserve(there, "b")
    routers.exchange()
    assert routers.pod.work.loads_end == routers.now + DISK_SECONDS


def test_a_pod_loads_nothing_that_a_peer_brought_to_the_server_before_it() -> None:
    routers = TwoRouters()
    routers.exchange()
    routers.here.upsert(make_pod(1, uid="another"))
    pod = state_of(routers.here, 1)
    routers.there.ledger.reserve(state_of(routers.there, 1), "a")
    routers.exchange()
    assert pod.work.loads_end <= routers.now


def test_a_pod_loads_nothing_that_this_router_or_another_one_brought_before() -> None:
    routers = TwoRouters()
    routers.exchange()
    routers.here.ledger.reserve(routers.pod, "a")
    routers.here.ledger.reserve(routers.pod, "b").release()
    for name in ("a", "b"):
        routers.there.ledger.reserve(state_of(routers.there, 1), name)
    routers.exchange()
    assert routers.pod.work.loads_end <= routers.now


def test_a_pod_processes_the_prompts_that_a_peer_sent_there() -> None:
    routers = TwoRouters()
    routers.there.ledger.now = lambda: routers.now
    routers.exchange()
    routers.there.ledger.reserve(state_of(routers.there, 1), None, tokens=3 * TOKENS_A_SECOND)

    share = routers.exchange()

    left = pytest.approx(3.0 - EVERY)
    assert share.sent["pod-1"].seconds == left
    assert routers.pod.work.pending_seconds(routers.now) == left
    assert not routers.exchange().sent, "it was told"
    assert routers.pod.work.pending_seconds(routers.now) == pytest.approx(3.0 - 2 * EVERY)


def test_what_a_peer_told_of_prompts_is_not_told_on() -> None:
    routers = TwoRouters()
    routers.there.ledger.now = lambda: routers.now
    routers.here.ledger.reserve(routers.pod, None)
    routers.there.ledger.reserve(state_of(routers.there, 1), None, tokens=3 * TOKENS_A_SECOND)
    routers.exchange()
    assert not routers.here.report_to_peers("here", EVERY, {}, routers.now).sent


def test_prompts_that_a_peer_sent_to_the_server_before_delay_nothing() -> None:
    routers = TwoRouters()
    routers.there.ledger.now = lambda: routers.now
    routers.here.upsert(make_pod(1, uid="new"))
    routers.there.ledger.reserve(state_of(routers.there, 1), None, tokens=3 * TOKENS_A_SECOND)
    assert routers.exchange().sent
    assert routers.pod.work.pending_seconds(routers.now) == 0.0


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
        self.now = 0.0
        self.here.report_to_peers("here", EVERY, {}, 0.0)
        self.hear(0.0)

    def hear(self, now: float) -> None:
        self.here.put_peer(self.there.report_to_peers("there", 20.0, {}, now), now)

    def foreign_at(self, now: float, scrape: PodMetrics | None = None) -> frozenset[str]:
        """Report until then; return the adapters of others on the first pod."""
        while now - self.now > 1.5 * EVERY:
            self.now += EVERY
            self.here.report_to_peers("here", EVERY, {}, self.now)
        return self.foreign_after_stall(now, scrape)

    def foreign_after_stall(self, now: float, scrape: PodMetrics | None = None) -> frozenset[str]:
        """Report once, then; return the adapters of others on the first pod."""
        self.now, pod = now, state_of(self.here, 1)
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


def test_a_peer_is_not_quiet_because_this_router_stalled() -> None:
    routers = QuietPeer()
    empty = replace(make_metrics(max_lora=2, scraped_at=2.9), running=0.0)

    assert routers.foreign_after_stall(3.0, empty) == {"a"}, "its reports are still unread"
    assert routers.foreign_at(3.3, replace(empty, scraped_at=3.25)) == {"a"}
    assert routers.foreign_at(3.5, replace(empty, scraped_at=3.45)) == frozenset()


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
