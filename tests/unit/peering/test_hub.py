"""Peers meet, tell each other what they know, and are forgotten."""

from dataclasses import replace

import pytest

from lora_router.fleet.health import EJECTED, HEALTHY, SUSPECT
from lora_router.fleet.idle_adapters import idle_on
from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.grpc_server.status import FAILED_PRECONDITION, RESOURCE_EXHAUSTED, UNAVAILABLE
from lora_router.peering import limits, report_reader
from lora_router.peering import mesh as mesh_module
from lora_router.peering.hub import (
    COMPLETE_SECONDS,
    INTERVAL_SECONDS,
    SHORTEST_SECONDS,
    SILENCE_SECONDS,
)
from lora_router.peering.pb.peering_pb2 import Greeting, PeerMessage, Pod, Report, Used
from tests.fleet import ManualClock, make_metrics, state_of
from tests.unit.peering.routers import DELAY, MemoryLink, Router, mesh

SOON = SHORTEST_SECONDS + 2 * DELAY


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def in_flight(router: Router, adapter: str = "a", pod: int = 1) -> int:
    return state_of(router.fleet, pod).beliefs.peers.in_flight(adapter)


class Stranger:
    """Something that speaks to a router, and not as a router would."""

    def __init__(self, router: Router, name: str | None = "stranger") -> None:
        self.link = router.link()
        refusal = router.mesh.refusal()
        assert refusal is None
        self.conversation = router.mesh.accept(self.link)
        self.clock = router.clock
        self.number = 0
        if name is not None:
            self.send(greeting=Greeting(router=name, version=1, oldest_version=1))

    def send(self, **fields: object) -> None:
        self.send_bytes(PeerMessage(**fields).SerializeToString())  # type: ignore[arg-type]

    def send_bytes(self, data: bytes) -> None:
        if self.link.ending is None:
            ending = self.conversation.receive(data)
            if ending is not None and self.link.ending is None:
                self.conversation.ended()
                self.link.close(ending)

    def report(self, **fields: object) -> None:
        base, self.number = self.number, self.number + 1
        self.send(report=Report(number=self.number, base=base, **fields))  # type: ignore[arg-type]

    @property
    def code(self) -> int | None:
        return None if self.link.ending is None else self.link.ending.code


# Meeting


def cut(router: Router) -> None:
    """Let nothing arrive any more that a router sends."""
    for peer in router.peers():
        for conversation in router.mesh.streams_of(peer):
            assert isinstance(conversation.link, MemoryLink)
            conversation.link.cut = True


def test_routers_that_meet_know_at_once_what_the_other_has_in_flight(clock: ManualClock) -> None:
    here, there = Router("here", clock), Router("there", clock)
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")

    here.connect(there)
    clock.advance(4 * DELAY)

    assert (here.peers(), there.peers()) == (["there"], ["here"])
    assert in_flight(here) == 1


def test_a_router_that_joins_knows_which_idle_adapters_are_loaded(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")
    here.fleet.ledger.reserve(state_of(here.fleet, 1), "a").release()
    clock.advance(COMPLETE_SECONDS)
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "b").release()
    clock.advance(INTERVAL_SECONDS + DELAY)

    third = Router("third", clock)
    third.connect(there)
    clock.advance(4 * DELAY)

    beliefs = state_of(third.fleet, 1).beliefs
    assert third.peers() == ["there"]
    assert list(idle_on(beliefs, 0.0)) == ["a", "b"], "also what a router knows from another one"


@pytest.mark.slow
def test_what_routers_tell_each_other_of_idle_adapters_does_not_go_in_circles(
    clock: ManualClock,
) -> None:
    routers = mesh(clock, "one", "two", "three")
    beliefs = [state_of(router.fleet, 1).beliefs for router in routers]
    routers[0].fleet.ledger.reserve(state_of(routers[0].fleet, 1), "a").release()
    used_at = clock.time

    clock.advance(10 * COMPLETE_SECONDS)

    for each in beliefs:
        assert list(idle_on(each, 0.0)) == ["a"]
        age = idle_on(each, clock.time)["a"]
        assert 0 <= clock.time - age - used_at <= 3 * INTERVAL_SECONDS


def test_one_stream_is_enough_and_carries_reports_both_ways(clock: ManualClock) -> None:
    here, there = Router("here", clock), Router("there", clock)
    here.connect(there)
    clock.advance(1)
    here.fleet.ledger.reserve(state_of(here.fleet, 1), "a")
    there.fleet.ledger.reserve(state_of(there.fleet, 2), "b")

    clock.advance(INTERVAL_SECONDS + DELAY)

    assert in_flight(there, "a", 1) == in_flight(here, "b", 2) == 1


def test_reports_are_more_frequent_while_adapters_run_on_pods_of_unknown_slots(
    clock: ManualClock,
) -> None:
    here, _ = mesh(clock, "here", "there")
    before = here.hub.counts.reports_sent
    here.fleet.ledger.reserve(state_of(here.fleet, 1), "a")

    clock.advance(3 * INTERVAL_SECONDS)
    assert here.hub.counts.reports_sent - before > 6

    here.fleet.put_metrics(state_of(here.fleet, 1), make_metrics("a", max_lora=2))
    clock.advance(INTERVAL_SECONDS)
    before = here.hub.counts.reports_sent
    clock.advance(1)
    assert here.hub.counts.reports_sent - before == 10


def test_with_a_stream_from_each_side_every_report_is_sent_once(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")
    before = here.hub.counts.reports_sent, there.hub.counts.reports_received

    clock.advance(1)

    sent = here.hub.counts.reports_sent - before[0]
    assert sent == there.hub.counts.reports_received - before[1] == 10


def test_a_router_that_meets_itself_ends_the_stream_and_is_no_peer(clock: ManualClock) -> None:
    here = Router("here", clock)

    link = here.connect(here)
    clock.advance(1)

    assert here.peers() == []
    assert link.conversation is not None
    assert link.conversation.is_itself
    assert link.ending is not None
    assert sum(here.hub.counts.rejected.values()) == 0


def test_a_second_address_of_a_peer_is_recognized(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")

    second = here.connect(there)
    clock.advance(1)

    assert second.conversation is not None
    assert second.conversation.is_redundant
    assert here.peers() == ["there"]
    here.fleet.ledger.reserve(state_of(here.fleet, 1), "a")
    clock.advance(0.2)
    assert in_flight(there) == 1


def test_a_newer_stream_from_a_peer_replaces_the_older_one(clock: ManualClock) -> None:
    here = Router("here", clock)
    first, second = Stranger(here), Stranger(here)

    assert (first.code, second.code) == (UNAVAILABLE, None)
    assert here.peers() == ["stranger"]


def test_versions_are_negotiated_downwards(clock: ManualClock) -> None:
    here = Router("here", clock)
    newer = Stranger(here, None)
    newer.send(greeting=Greeting(router="newer", version=9, oldest_version=1))
    too_new = Stranger(here, None)
    too_new.send(greeting=Greeting(router="too-new", version=9, oldest_version=2))
    too_old = Stranger(here, None)
    too_old.send(greeting=Greeting(router="too-old", version=0))

    assert (newer.code, too_new.code, too_old.code) == (
        None,
        FAILED_PRECONDITION,
        FAILED_PRECONDITION,
    )
    assert here.peers() == ["newer"]
    assert here.hub.counts.rejected["version"] == 2


def test_fields_of_later_versions_are_ignored(clock: ManualClock) -> None:
    here = Router("here", clock)
    there = Stranger(here)
    later = b"\xba\x3e\x03abc"  # field 999, a string

    there.send_bytes(PeerMessage(report=Report(number=1)).SerializeToString() + later)

    assert there.code is None
    assert here.hub.counts.reports_received == 1


# Reports


def test_an_idle_mesh_sends_ten_short_reports_a_second(clock: ManualClock) -> None:
    here, _there, _third = mesh(clock, "here", "there", "third")
    before = here.hub.counts.bytes_sent

    clock.advance(1)

    assert here.hub.counts.bytes_sent - before < 2 * 10 * 40


@pytest.mark.slow
def test_complete_reports_go_out_now_and_then(clock: ManualClock) -> None:
    here, _there = mesh(clock, "here", "there")
    link = here.mesh.stream_to(here.peers()[0])
    assert link is not None
    sent = link.link
    assert isinstance(sent, MemoryLink)
    sent.sent.clear()

    clock.advance(2 * COMPLETE_SECONDS)

    complete = [m for m in sent.sent if not PeerMessage.FromString(m).report.base]
    assert len(complete) == 2
    assert len(sent.sent) == round(2 * COMPLETE_SECONDS / INTERVAL_SECONDS)


def test_a_held_request_is_told_at_once_and_acknowledged_at_once(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")
    clock.advance(SHORTEST_SECONDS)
    here.held = {"c": HeldShare(0.0, wanted="pod-1")}

    here.hub.report_soon()
    clock.advance(SOON)
    assert there.hub.peers["here"].held
    told = there.hub.peers["here"].number
    clock.advance(SOON)

    assert here.hub.peers["there"].acknowledged >= told


def test_the_last_slot_goes_to_the_router_that_waits_with_the_higher_priority(
    clock: ManualClock,
) -> None:
    here, there = mesh(clock, "here", "there")
    for router in (here, there):
        for state in router.fleet:
            router.fleet.put_metrics(state, replace(make_metrics(max_lora=1), running=0.0))
    here.fleet.ledger.reserve(state_of(here.fleet, 2), "a")
    here.held, there.held = {"b": HeldShare(5.0)}, {"c": HeldShare(0.0, priority=1)}
    clock.advance(3 * INTERVAL_SECONDS)

    may_take = [
        state_of(router.fleet, 1).beliefs.may_take_slot(name)
        for router, name in ((here, "b"), (there, "c"))
    ]
    assert may_take == [False, True]


def test_a_slot_that_becomes_free_is_told_at_once_to_those_who_wait(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")
    reservation = here.fleet.ledger.reserve(state_of(here.fleet, 1), "a")
    there.held = {"c": HeldShare(0.0, wanted="pod-1")}
    clock.advance(INTERVAL_SECONDS + SOON)
    assert in_flight(there) == 1

    reservation.release()
    clock.advance(SOON)

    assert in_flight(there) == 0


def test_while_nobody_waits_a_release_is_told_with_the_next_report(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")
    reservation = here.fleet.ledger.reserve(state_of(here.fleet, 1), "a")
    clock.advance(INTERVAL_SECONDS + SOON)
    before = here.hub.counts.reports_sent

    reservation.release()
    clock.advance(SOON)

    assert here.hub.counts.reports_sent - before <= 1
    clock.advance(INTERVAL_SECONDS)
    assert in_flight(there) == 0


def test_early_reports_are_limited(clock: ManualClock) -> None:
    here, _there = mesh(clock, "here", "there")
    before = here.hub.counts.reports_sent

    for _ in range(1000):
        here.hub.report_soon()
        clock.advance(0.01)

    # Ten seconds: ten regular reports and ten early ones in each, and the burst.
    assert here.hub.counts.reports_sent - before <= 10 * (10 + 10) + 20


def test_a_peer_that_does_not_read_gets_a_complete_report_when_it_does(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")
    stream = here.mesh.stream_to("there")
    assert stream is not None
    link = stream.link
    assert isinstance(link, MemoryLink)
    link.stuck = True
    clock.advance(0.3)
    here.fleet.ledger.reserve(state_of(here.fleet, 1), "a")
    clock.advance(0.3)
    assert len(link.waiting) == 1, "at most one report waits"

    link.stuck, held_back = False, link.waiting.popleft()
    link.send(held_back)
    clock.advance(0.2)

    assert in_flight(there) == 1


def test_a_stream_whose_reports_do_not_arrive_is_replaced(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")
    stream = here.mesh.stream_to("there")
    assert stream is not None
    assert isinstance(stream.link, MemoryLink)
    stream.link.cut = True
    here.fleet.ledger.reserve(state_of(here.fleet, 1), "a")

    clock.advance(3.5)

    assert not stream.is_open
    here.connect(there)
    clock.advance(0.2)
    assert in_flight(there) == 1


def test_a_report_that_is_missing_is_asked_for(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")
    stream = here.mesh.stream_to("there")
    assert stream is not None
    assert isinstance(stream.link, MemoryLink)
    here.fleet.ledger.reserve(state_of(here.fleet, 1), "a")
    stream.link.cut = True
    clock.advance(INTERVAL_SECONDS)

    stream.link.cut = False
    clock.advance(3 * INTERVAL_SECONDS)

    assert in_flight(there) == 1


# Ejected pods


def test_a_pod_that_a_peer_ejected_is_probed_and_nothing_more(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")
    probed: list[str] = []
    there.outliers.on_probe = lambda state: probed.append(state.pod.name)
    state = state_of(here.fleet, 1)
    here.outliers.unwell.eject(state, "unreachable", clock.now())
    assert state.health.state is EJECTED

    clock.advance(SOON)
    theirs = state_of(there.fleet, 1)
    assert theirs.health.state is SUSPECT
    there.fleet.check_health()
    assert probed == ["pod-1"]

    there.outliers.probed(theirs, good=True)
    clock.advance(5)
    there.fleet.check_health()
    assert theirs.health.state is HEALTHY
    assert probed == ["pod-1"], "the same report is no reason for a second probe"


def test_what_a_peer_says_of_many_pods_makes_few_of_them_suspect(clock: ManualClock) -> None:
    here = Router("here", clock, pods=50)
    liar = Stranger(here, "liar")
    pods = [Pod(name=f"pod-{n}", address=f"10.0.0.{n}:8000") for n in range(1, 51)]

    for _ in range(20):
        liar.report(new_pods=pods if liar.number == 0 else (), ejected=range(50), acknowledged=())
        clock.advance(0.1)

    suspects = [state for state in here.fleet if state.health.state is not HEALTHY]
    assert len(suspects) == 5
    assert len(here.fleet.in_use()) == 45


def test_a_server_of_the_same_name_as_an_ejected_one_is_not_suspect(clock: ManualClock) -> None:
    here = Router("here", clock)
    there = Stranger(here)

    there.report(new_pods=[Pod(name="pod-1", address="10.9.9.9:8000")], ejected=[0])

    assert state_of(here.fleet, 1).health.state is HEALTHY


# The end


def test_a_peer_that_leaves_is_forgotten_at_once(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")
    there.held = {"c": HeldShare(0.0)}
    clock.advance(INTERVAL_SECONDS)

    there.mesh.drain()
    clock.advance(0.5)
    assert in_flight(here) == 1, "while it drains, its requests count"
    there.hub.leave()
    clock.advance(DELAY)

    assert in_flight(here) == 0
    assert here.peers() == []
    assert state_of(here.fleet, 1).beliefs.peers.allotment is None
    assert here.hub.counts.left == 1


def test_a_router_that_drains_before_it_has_a_stream_of_its_own_leaves(clock: ManualClock) -> None:
    here, there = (Router(name, clock) for name in ("here", "there"))
    here.connect(there)
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")
    clock.advance(2 * INTERVAL_SECONDS)
    assert in_flight(here) == 1

    there.mesh.drain()
    clock.advance(DELAY)

    assert in_flight(here) == 0
    assert (here.hub.counts.left, here.hub.counts.silent) == (1, 0)


def test_a_silent_peer_is_forgotten_after_a_second(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")
    clock.advance(INTERVAL_SECONDS + SOON)
    cut(there)

    clock.advance(0.8)
    assert in_flight(here) == 1
    clock.advance(0.3)

    assert in_flight(here) == 0
    assert here.peers() == []
    assert here.hub.counts.silent == 1


@pytest.mark.parametrize("died_after", [0.001, 0.03, 0.05, 0.07, 0.099])
def test_a_peer_that_dies_is_forgotten_within_a_second_of_its_last_report(
    clock: ManualClock, died_after: float
) -> None:
    here, there, other = mesh(clock, "here", "there", "other")
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")
    there.held["b"] = HeldShare(0.5, closed=("pod-2", "c"))
    clock.advance(2 * INTERVAL_SECONDS + SOON)
    survivors = (here, other)
    assert [each.hub.load() for each in survivors] == [(1, 1, 1)] * 2

    clock.advance(died_after)
    cut(there)
    clock.advance(SILENCE_SECONDS + SHORTEST_SECONDS)

    for each in survivors:
        assert each.hub.load() == (0, 0, 0), "no ghost requests, slots or holds"
        assert each.hub.counts.silent == 1
        assert not state_of(each.fleet, 2).beliefs.peers.closed


def test_a_router_whose_event_loop_stalled_reads_before_it_forgets(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")

    clock.time += 1.5
    there.hub.peers["here"].heard_at = clock.now()
    here.hub._report()
    there.hub._report()  # Its own timer is late too.
    there.hub._report()
    clock.advance(0.5)

    assert here.peers() == ["there"]
    assert here.hub.counts.silent == 0


def test_time_in_which_the_event_loop_stalled_is_no_silence(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")
    clock.advance(INTERVAL_SECONDS + SOON)

    cut(there)
    for _ in range(10):  # A starved machine: each turn of the loop is late.
        clock.stall(0.6)

    assert here.peers() == ["there"], "here ran for half a second in all"
    assert in_flight(here) == 1
    assert here.mesh.stream_to("there") is not None, "a late acknowledgement is no lost one"
    clock.advance(SILENCE_SECONDS)
    assert here.peers() == []
    assert here.hub.counts.silent == 1


def test_after_a_partition_routers_know_each_other_again(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")
    for router in (here, there):
        for peer in router.peers():
            for conversation in router.mesh.streams_of(peer):
                assert isinstance(conversation.link, MemoryLink)
                conversation.link.cut = True
    clock.advance(5)
    assert here.peers() == there.peers() == []
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")

    here.connect(there)
    clock.advance(0.2)

    assert in_flight(here) == 1


def test_a_router_that_restarts_has_another_name_and_its_past_is_forgotten(
    clock: ManualClock,
) -> None:
    here, there = mesh(clock, "here", "there")
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")
    clock.advance(0.2)
    there.hub.leave()

    again = Router("there-again", clock)
    again.connect(here)
    clock.advance(0.2)

    assert here.peers() == ["there-again"]
    assert in_flight(here) == 0


def test_a_router_that_drains_accepts_no_stream(clock: ManualClock) -> None:
    here, there = mesh(clock, "here", "there")

    here.mesh.drain()

    refusal = here.mesh.refusal()
    assert refusal is not None
    assert refusal.code == UNAVAILABLE
    here.fleet.ledger.reserve(state_of(here.fleet, 1), "a")
    clock.advance(0.2)
    assert in_flight(there) == 1, "its own streams go on"


# Hostile peers


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"garbage", bytes(1000)])
def test_garbage_ends_its_stream_and_nothing_else(clock: ManualClock, data: bytes) -> None:
    here, there = mesh(clock, "here", "there")
    stranger = Stranger(here)

    stranger.send_bytes(data)

    assert stranger.code is not None
    assert here.hub.counts.rejected["malformed"] == 1
    clock.advance(1.5)
    assert here.peers() == ["there"]
    assert there.peers() == ["here"]


def test_a_report_before_the_greeting_ends_the_stream(clock: ManualClock) -> None:
    here = Router("here", clock)
    stranger = Stranger(here, None)

    stranger.report()

    assert stranger.code is not None
    assert here.peers() == []


@pytest.mark.parametrize("name", ["", "x" * 300, "a\nb", "\x1b[31m"])
def test_a_name_that_is_no_name_ends_the_stream(clock: ManualClock, name: str) -> None:
    here = Router("here", clock)

    assert Stranger(here, name).code is not None
    assert here.peers() == []


def test_our_own_name_is_nobody(clock: ManualClock) -> None:
    here = Router("here", clock)

    assert Stranger(here, "here").code is not None
    assert here.peers() == []


def test_a_stream_without_a_greeting_ends(clock: ManualClock) -> None:
    here = Router("here", clock)
    stranger = Stranger(here, None)

    clock.advance(3)

    assert stranger.code is not None


@pytest.mark.slow
def test_a_flood_ends_its_stream(clock: ManualClock) -> None:
    here = Router("here", clock)
    stranger = Stranger(here)

    for _ in range(2 * limits.MESSAGES_BURST):
        stranger.report()

    assert stranger.code == RESOURCE_EXHAUSTED
    assert here.hub.counts.rejected["flood"] == 1
    assert here.hub.counts.reports_received <= limits.MESSAGES_BURST


def test_peers_and_streams_are_bounded(clock: ManualClock) -> None:
    here = Router("here", clock)
    strangers = [Stranger(here, f"stranger-{n}") for n in range(limits.MAX_PEERS + 5)]

    assert len(here.hub.peers) == limits.MAX_PEERS
    assert [each.code for each in strangers[-5:]] == [RESOURCE_EXHAUSTED] * 5

    for _ in range(10 * limits.MAX_STREAMS):
        if here.mesh.refusal() is None:
            here.mesh.accept(here.link())
    assert here.hub.counts.rejected["too-many-streams"] > 0
    clock.advance(3)
    assert len(here.hub.peers) == 0, "they were silent"


@pytest.mark.slow
def test_lies_about_pods_that_do_not_exist_change_no_decision(clock: ManualClock) -> None:
    here = Router("here", clock)
    liar = Stranger(here, "liar")

    for start in range(0, 10_000, 2_000):
        liar.report(
            new_pods=[
                Pod(name=f"lie-{n}", address="10.9.9.9:1") for n in range(start, start + 2000)
            ],
            pod=range(start, start + 2000),
            pod_requests=[1000] * 2000,
        )
        clock.advance(0.1)

    assert liar.code is None
    assert len(here.fleet) == 2
    for state in here.fleet:
        assert state.beliefs.foreign_requests == 0
        assert not state.beliefs.peers.adapters


@pytest.mark.slow
def test_lies_about_what_was_used_are_bounded_and_leave_what_a_router_knows(
    clock: ManualClock,
) -> None:
    here = Router("here", clock)
    here.fleet.ledger.reserve(state_of(here.fleet, 1), "a")
    liar = Stranger(here)
    clock.advance(0.3)
    names = [f"lie-{n}" for n in range(2000)]
    for complete in (True, False):
        liar.number = 0 if complete else liar.number
        liar.report(
            new_pods=[
                *(Pod(name=f"lie-{n}", address="10.9.9.9:1") for n in range(1000)),
                Pod(name="pod-1", address="10.0.0.1:8000"),
            ],
            new_adapters=["a", "b", *names],
            used=[Used(pod=n, adapters=[0, 1], tenths_ago=[2**32 - 1] * 2) for n in range(1000)]
            + [Used(pod=1000, adapters=range(2002), tenths_ago=range(2002))],
        )
        clock.advance(0.1)

    assert liar.code is None
    beliefs = state_of(here.fleet, 1).beliefs
    assert list(idle_on(beliefs, clock.time)) == ["b"], "the pod serves no others"
    assert beliefs.is_resident("a")
    assert here.fleet._reported_uses._rows <= 4000
    assert not state_of(here.fleet, 2).beliefs.in_host_memory("b")


def test_all_reports_together_are_bounded(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_reader, "MAX_WEIGHT", 1_000_000)
    monkeypatch.setattr(mesh_module, "MAX_PEERS", 5)
    here = Router("here", clock)
    modest = Stranger(here, "modest")
    modest.report()
    greedy = Stranger(here, "greedy")

    for number in range(20):
        greedy.report(new_adapters=[f"adapter-{number}-{n}" for n in range(1000)])
        modest.report()

    assert greedy.code == RESOURCE_EXHAUSTED
    assert modest.code is None


# Lost reports


def test_a_peer_that_missed_a_report_soon_has_a_complete_one(clock: ManualClock) -> None:
    here, there = Router("here", clock), Router("there", clock)
    link = here.connect(there)
    clock.advance(0.3)
    here.fleet.ledger.reserve(state_of(here.fleet, 1), "a")
    link.cut = True
    clock.advance(INTERVAL_SECONDS)
    link.cut = False

    # The next report shows that one is missing. The complete one follows it at once.
    clock.advance(INTERVAL_SECONDS + SOON + 2 * DELAY)
    assert in_flight(there) == 1
