"""Routers that publish where all of them listen."""

from pathlib import Path

import pytest

from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.peering import limits
from lora_router.peering.broadcast import Broadcasts
from lora_router.peering.hub import COMPLETE_SECONDS, INTERVAL_SECONDS, SHORTEST_SECONDS
from lora_router.peering.mesh import Mesh
from lora_router.peering.pb.broadcast_pb2 import Broadcast, Publication, StoredState
from lora_router.peering.pb.peering_pb2 import PeerMessage, Pod, Report
from lora_router.peering.secret import Secret
from tests.fleet import ManualClock, state_of
from tests.unit.peering.broadcasting import MemoryServer, Publisher, publishers
from tests.unit.peering.routers import DELAY

SOON = SHORTEST_SECONDS + 2 * DELAY


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> MemoryServer:
    return MemoryServer(clock)


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    path = tmp_path / "secret"
    path.write_text("a-secret-of-16-characters")
    return Secret(path)


def in_flight(router: Publisher, adapter: str = "a", pod: int = 1) -> int:
    return state_of(router.fleet, pod).beliefs.peers.in_flight(adapter)


class Stranger:
    """Something that publishes, and not as a router would."""

    def __init__(self, server: MemoryServer, name: str = "stranger", secret: Secret | None = None):
        self.server = server
        self.name = name
        self.secret = secret
        self.sequence = 0
        self.number = 0

    def send(self, message: PeerMessage | bytes, **fields: object) -> bytes:
        self.sequence += 1
        data = message if isinstance(message, bytes) else message.SerializeToString()
        values = {
            "router": self.name,
            "version": 1,
            "oldest_version": 1,
            "sequence": self.sequence,
            "sent_ms": int(self.server.time() * 1000),
            "message": data,
            **fields,
        }
        publication = Publication(**values).SerializeToString()  # type: ignore[arg-type]
        signature = b"" if self.secret is None else self.secret.sign(publication)
        published = Broadcast(publication=publication, signature=signature).SerializeToString()
        self.server.publish(published)
        self.server.clock.advance(2 * DELAY)
        return published

    def report(self, **fields: object) -> bytes:
        base, self.number = self.number, self.number + 1
        report = Report(number=self.number, base=base, **fields)  # type: ignore[arg-type]
        return self.send(PeerMessage(report=report))


def publications(server: MemoryServer) -> list[Publication]:
    return [
        Publication.FromString(Broadcast.FromString(data).publication) for data in server.published
    ]


# Meeting


def test_routers_meet_by_what_they_publish(server: MemoryServer) -> None:
    here, there, third = publishers(server, "here", "there", "third")

    assert here.peers() == ["there", "third"]
    assert there.peers() == ["here", "third"]
    assert third.peers() == ["here", "there"]


def test_every_report_is_published_once_however_many_routers_there_are(
    server: MemoryServer,
) -> None:
    routers = publishers(server, "1", "2", "3", "4")
    server.published.clear()

    server.clock.advance(1)

    assert len(server.published) == 10 * len(routers)


def test_what_changed_is_known_with_the_next_report(server: MemoryServer) -> None:
    here, there = publishers(server, "here", "there")

    reservation = here.fleet.ledger.reserve(state_of(here.fleet, 1), "a")
    server.clock.advance(INTERVAL_SECONDS + SOON)
    assert in_flight(there) == 1

    reservation.release()
    server.clock.advance(INTERVAL_SECONDS + SOON)
    assert in_flight(there) == 0


def test_what_others_wait_for_is_published_early(server: MemoryServer) -> None:
    here, there = publishers(server, "here", "there")

    here.held["a"] = HeldShare(0.0)
    here.hub.report_soon()
    server.clock.advance(SOON)

    assert there.hub.peers["here"].held == {"a"}


@pytest.mark.slow
def test_a_router_that_joins_takes_over_the_stored_states(server: MemoryServer) -> None:
    _, there = publishers(server, "here", "there")
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")
    server.clock.advance(COMPLETE_SECONDS + 1)

    new = Publisher("new", server)

    assert in_flight(new) == 1
    assert new.peers() == ["here", "there"]
    assert not new.channel.broadcasts.has_joined(), "stored states may be some seconds old"
    server.clock.advance(INTERVAL_SECONDS + SOON)
    assert new.channel.broadcasts.has_joined()


def test_a_router_that_joins_gets_what_is_not_in_the_stored_states(server: MemoryServer) -> None:
    _, there = publishers(server, "here", "there")
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")

    new = Publisher("new", server)
    server.clock.advance(3 * INTERVAL_SECONDS + SOON)

    assert in_flight(new) == 1


def test_a_router_has_joined_with_what_is_in_flight_and_not_with_a_report_it_cannot_use(
    server: MemoryServer,
) -> None:
    """Right after a complete report there is none for others, and the stored one is old."""
    _, there = publishers(server, "here", "there")
    for steps in range(11, 30):
        server.clock.advance(1)
        early = Publisher(f"early-{steps}", server)
        server.clock.advance(SOON)
        reservation = there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")
        server.clock.advance(steps * INTERVAL_SECONDS / 10)
        new = Publisher(f"new-{steps}", server)

        for _ in range(500):
            if new.channel.broadcasts.has_joined():
                break
            server.clock.advance(DELAY)

        assert new.channel.broadcasts.has_joined()
        assert in_flight(new) == 1, steps
        reservation.release()
        for router in (early, new):
            router.channel.disconnect()
            del server.states[router.hub.name]


def test_a_router_that_stops_says_so(server: MemoryServer) -> None:
    here, there = publishers(server, "here", "there")
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")
    server.clock.advance(INTERVAL_SECONDS + SOON)

    there.hub.leave()
    server.clock.advance(2 * DELAY)

    assert here.peers() == []
    assert in_flight(here) == 0
    assert here.hub.counts.left == 1


def test_a_report_that_arrives_over_two_carriers_is_used_once(server: MemoryServer) -> None:
    here, there = publishers(server, "here", "there")
    for router in (here, there):
        router.mesh = Mesh(router.hub)
    here.connect(there)
    there.connect(here)
    server.clock.advance(0.3)
    before = here.hub.counts.reports_received

    there.fleet.ledger.reserve(state_of(there.fleet, 1), None)
    server.clock.advance(1)

    assert state_of(here.fleet, 1).beliefs.foreign_requests == 1
    assert here.hub.counts.reports_received - before == 10

    there.channel.disconnect()
    server.clock.advance(2)
    assert state_of(here.fleet, 1).beliefs.foreign_requests == 1, "the mesh carries the reports"


# Losses


def test_a_silent_router_is_forgotten_after_a_second(server: MemoryServer) -> None:
    here, there = publishers(server, "here", "there")
    there.channel.disconnect()

    server.clock.advance(0.8)
    assert here.peers() == ["there"]
    server.clock.advance(0.4)

    assert here.peers() == there.peers() == []


def test_with_the_server_away_nothing_is_published_and_all_is_well_afterwards(
    server: MemoryServer,
) -> None:
    here, there = publishers(server, "here", "there")
    for router in (here, there):
        router.channel.disconnect()
    server.states.clear()
    server.clock.advance(10)
    assert here.peers() == there.peers() == []
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")

    for router in (here, there):
        router.channel.connect()
    server.clock.advance(INTERVAL_SECONDS + SOON)

    assert here.peers() == ["there"]
    assert in_flight(here) == 1


def test_a_report_that_is_missing_is_asked_for(server: MemoryServer) -> None:
    here, there = publishers(server, "here", "there")
    server.clock.advance(1)
    here.channel.is_deaf = True
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")
    server.clock.advance(0.15)
    here.channel.is_deaf = False

    server.clock.advance(2 * INTERVAL_SECONDS + SOON)

    assert in_flight(here) == 1


def test_a_slow_server_costs_reports_and_then_gets_a_complete_one(server: MemoryServer) -> None:
    here, there = publishers(server, "here", "there")
    there.channel.is_slow = True
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")
    server.clock.advance(0.5)
    assert len(there.channel.waiting) == 1, "what waits does not pile up"

    there.channel.is_slow = False
    there.channel.waiting.clear()
    server.clock.advance(INTERVAL_SECONDS + SOON)

    assert in_flight(here) == 1


def test_a_channel_on_which_a_router_does_not_hear_itself_is_given_up(
    server: MemoryServer,
) -> None:
    here, _ = publishers(server, "here", "there")
    here.channel.is_deaf = True

    server.clock.advance(2.5)

    assert "does not come back" in here.channel.given_up


def test_complete_reports_that_others_ask_for_are_few(server: MemoryServer) -> None:
    publishers(server, "here")
    stranger = Stranger(server)
    server.clock.advance(1)
    server.states.clear()
    stored = 0
    for _ in range(50):
        stranger.send(PeerMessage(wants_complete=True))
        server.clock.advance(0.02 - 2 * DELAY)
        stored += bool(server.states)
        server.states.clear()

    assert stored <= 5


def test_messages_that_follow_a_report_are_published_but_only_some_of_them(
    server: MemoryServer,
) -> None:
    here, _ = publishers(server, "here", "there")
    here.channel.is_slow = True
    server.clock.advance(INTERVAL_SECONDS)
    assert len(here.channel.waiting) == 1

    for _ in range(10):
        here.hub.send_to_all(PeerMessage().SerializeToString())

    assert len(here.channel.waiting) == 1 + limits.MAX_FOLLOWING


# Strangers


def test_only_what_has_a_signature_is_used(server: MemoryServer, secret: Secret) -> None:
    [here] = publishers(server, "here", secret=secret)

    Stranger(server).report()
    assert here.peers() == []
    assert here.hub.counts.rejected["unauthenticated"] == 1

    Stranger(server, secret=secret).report()
    assert here.peers() == ["stranger"]


def test_routers_stay_peers_while_they_read_a_changed_secret_one_after_the_other(
    server: MemoryServer, secret: Secret
) -> None:
    slow = Secret(secret.path)
    here, there = Publisher("here", server, secret), Publisher("there", server, slow)
    server.clock.advance(0.3)

    for each in (secret, slow):
        each.use(b"another-secret-of-16-characters")
        server.clock.advance(4.0)
        assert (here.peers(), there.peers()) == (["there"], ["here"])
    assert not any(here.hub.counts.rejected.values())
    assert not any(there.hub.counts.rejected.values())


def test_a_router_with_only_the_new_secret_is_a_peer_of_those_that_have_both(
    server: MemoryServer, secret: Secret, tmp_path: Path
) -> None:
    path = tmp_path / "new"
    path.write_text("another-secret-of-16-characters")
    new = Secret(path)
    secret.path.write_text(f"{secret.path.read_text()}\n{path.read_text()}")

    here, there = Publisher("here", server, Secret(secret.path)), Publisher("there", server, new)
    server.clock.advance(0.3)

    assert (here.peers(), there.peers()) == (["there"], ["here"])


@pytest.mark.slow
def test_what_was_published_once_cannot_be_repeated(server: MemoryServer, secret: Secret) -> None:
    [here] = publishers(server, "here", secret=secret)
    stranger = Stranger(server, secret=secret)
    old = stranger.report()
    server.clock.advance(2)
    assert here.peers() == []

    server.publish(old)
    server.clock.advance(SOON)
    assert here.peers() == []

    server.clock.advance(60)
    server.publish(old)
    server.clock.advance(SOON)
    assert here.peers() == []
    assert here.hub.counts.rejected["stale"] == 1


def test_a_router_whose_clock_is_wrong_is_a_peer_like_any_other(server: MemoryServer) -> None:
    here = Publisher("here", server)

    class Hours(ManualClock):
        """Shows another time than the clocks of other machines, as monotonic clocks do."""

        def now(self) -> float:
            return server.clock.now() + 7200.0

    there = Publisher("there", server)
    there.hub.now = Hours().now
    there.channel.broadcasts = Broadcasts(there.hub, None)
    there.channel.broadcasts.set_time(server.time())
    there.channel.broadcasts.connected(there.channel, ())
    server.clock.advance(0.3)

    assert here.peers() == ["there"]
    assert here.hub.counts.rejected["stale"] == 0


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (b"\xff\xff\xff", "malformed"),
        (PeerMessage(report=Report()).SerializeToString(), "malformed"),
        (PeerMessage(report=Report(number=1, pod=[7], pod_requests=[1])).SerializeToString(),
         "malformed"),
        (b"\x00" * (limits.MAX_BROADCAST_BYTES + 1), "too-large"),
        (PeerMessage(
            report=Report(number=1, new_pods=[Pod(name="x" * 2000)])).SerializeToString(),
         "too-large"),
    ],
)  # fmt: skip
def test_what_no_router_publishes_is_counted_and_changes_nothing(
    server: MemoryServer, message: bytes, cause: str
) -> None:
    here, there = publishers(server, "here", "there")
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")

    Stranger(server).send(message)
    server.clock.advance(1)

    assert here.hub.counts.rejected[cause] == 1
    assert in_flight(here) == 1


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x0a\x02\xff\xff", b"x" * 1000])
def test_garbage_is_counted(server: MemoryServer, data: bytes) -> None:
    [here] = publishers(server, "here")

    server.publish(data)
    server.clock.advance(SOON)

    assert here.hub.counts.rejected["malformed"] == 1


@pytest.mark.parametrize("name", ["", "x" * 300, "two\nlines"])
def test_an_unusable_name_is_refused(server: MemoryServer, name: str) -> None:
    [here] = publishers(server, "here")

    Stranger(server, name).report()

    assert here.peers() == []
    assert here.hub.counts.rejected["malformed"] == 1


def test_a_router_of_an_unknown_version_is_refused(server: MemoryServer) -> None:
    [here] = publishers(server, "here")

    Stranger(server).send(PeerMessage(), version=9, oldest_version=8)

    assert here.hub.counts.rejected["version"] == 1


@pytest.mark.slow
def test_a_router_that_floods_is_not_listened_to_for_a_while(server: MemoryServer) -> None:
    here, there = publishers(server, "here", "there")
    stranger = Stranger(server)
    message = PeerMessage().SerializeToString()
    for _ in range(limits.MESSAGES_BURST + 200):
        stranger.sequence += 1
        server.publish(
            Broadcast(
                publication=Publication(
                    router="stranger", version=1, oldest_version=1, message=message,
                    sequence=stranger.sequence, sent_ms=int(server.time() * 1000),
                ).SerializeToString()
            ).SerializeToString()
        )  # fmt: skip
    server.clock.advance(SOON)
    stranger.report()

    assert here.hub.counts.rejected["flood"] == 1
    assert here.hub.peers["stranger"].number == 0
    assert here.channel.given_up == ""

    server.clock.advance(6)
    stranger.number = 0
    stranger.report()
    assert here.hub.peers["stranger"].number == 1
    assert in_flight(there) == 0


@pytest.mark.slow
def test_a_flood_of_all_together_makes_a_router_leave_the_channel(server: MemoryServer) -> None:
    [here] = publishers(server, "here")

    for _ in range(limits.CHANNEL_MESSAGES_BURST + 10):
        server.publish(b"x")
    server.clock.advance(SOON)

    assert here.channel.given_up == "too many messages or bytes"
    assert here.hub.counts.rejected["flood"] >= 1


def test_the_number_of_peers_is_bounded(server: MemoryServer) -> None:
    [here] = publishers(server, "here")

    for number in range(limits.MAX_BROADCAST_PEERS + 5):
        Stranger(server, f"stranger-{number}").report()
        for stranger in here.hub.peers.values():
            stranger.heard_at = server.clock.now()

    assert len(here.hub.peers) == limits.MAX_BROADCAST_PEERS
    assert here.hub.counts.rejected["too-many-peers"] == 5


@pytest.mark.slow
def test_names_of_routers_do_not_fill_the_memory(server: MemoryServer) -> None:
    [here] = publishers(server, "here")

    for number in range(3000):
        Stranger(server, f"stranger-{number}").report()
        server.clock.advance(0.05)

    known = here.channel.broadcasts._publications._last
    assert len(known) <= 2 * limits.MAX_BROADCAST_PEERS
    assert len(here.channel.broadcasts._senders) <= limits.MAX_BROADCAST_PEERS


@pytest.mark.parametrize(
    "state",
    [b"\xff", StoredState(broadcast=[b"x", b""]).SerializeToString()],
    ids=["garbage", "of garbage"],
)
def test_a_stored_state_of_garbage_is_ignored(server: MemoryServer, state: bytes) -> None:
    server.states["gone"] = state

    here, there = publishers(server, "here", "there")

    assert here.peers() == ["there"]
    assert here.hub.counts.rejected["malformed"] >= 1
    assert not here.channel.broadcasts.has_joined(), "it waits for a router that may be there"
    assert there.peers() == ["here"]


def test_a_stored_state_is_used_in_steps_of_one_message_each(server: MemoryServer) -> None:
    [here] = publishers(server, "here")
    stranger = Stranger(server)
    parts = [
        PeerMessage(
            report=Report(number=1, part=part, more_follows=part < 9,
                          new_pods=[Pod(name=f"pod-{part}")], pod=[part], pod_requests=[1])
        )
        for part in range(10)
    ]  # fmt: skip
    here.channel.is_deaf = True
    state = StoredState(broadcast=[stranger.send(each) for each in parts])

    steps = here.channel.broadcasts.use_state(state.SerializeToString())

    assert [here.hub.peers["stranger"].number for _ in steps] == [0] * 9 + [1]


def test_what_follows_garbage_in_a_stored_state_is_not_used(server: MemoryServer) -> None:
    [here] = publishers(server, "here")
    here.channel.is_deaf = True
    good = Stranger(server).report()
    state = StoredState(broadcast=[b"x"] * 1000 + [good]).SerializeToString()

    assert list(here.channel.broadcasts.use_state(state)) == []
    assert here.peers() == []
    assert here.hub.counts.rejected["malformed"] == 1


@pytest.mark.slow
def test_a_router_that_connects_anew_asks_nobody_whose_reports_it_has(
    server: MemoryServer,
) -> None:
    routers = publishers(server, "one", "two", "three")
    server.clock.advance(COMPLETE_SECONDS)

    for router in routers:
        router.channel.disconnect()
    for router in routers:
        router.channel.connect()
    server.published.clear()
    server.clock.advance(1.0)

    messages = [PeerMessage.FromString(each.message) for each in publications(server)]
    assert not any(message.wants_complete for message in messages)
    assert all(len(router.peers()) == 2 for router in routers)


def test_a_complete_report_that_one_router_asked_for_is_for_that_one_only(
    server: MemoryServer,
) -> None:
    here, there, third = publishers(server, "here", "there", "third")
    server.clock.advance(1.0)
    here.channel.is_deaf = True
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")
    server.clock.advance(0.15)
    here.channel.is_deaf = False
    server.published.clear()

    server.clock.advance(2 * INTERVAL_SECONDS + SOON)

    assert in_flight(here) == in_flight(third) == 1
    complete = [
        (each.router, each.to)
        for each in publications(server)
        if (report := PeerMessage.FromString(each.message).report).number and not report.base
    ]
    assert sorted(complete) == [("there", "here"), ("third", "here")]


def test_a_complete_report_that_several_routers_asked_for_is_published_once(
    server: MemoryServer,
) -> None:
    here, there, third = publishers(server, "here", "there", "third")
    server.clock.advance(1.0)
    here.channel.is_deaf = third.channel.is_deaf = True
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "a")
    server.clock.advance(0.15)
    here.channel.is_deaf = third.channel.is_deaf = False
    server.published.clear()

    server.clock.advance(2 * INTERVAL_SECONDS + SOON)

    assert in_flight(here) == in_flight(third) == 1
    complete = [
        each.to
        for each in publications(server)
        if (report := PeerMessage.FromString(each.message).report).number
        and not report.base
        and each.router == "there"
    ]
    assert complete == [""]


@pytest.mark.slow
def test_as_many_routers_as_are_allowed_are_no_flood(server: MemoryServer) -> None:
    """Each publishes as much as a router does at most: 60 messages in a second."""
    [here] = publishers(server, "here")
    rate = limits.MAX_BROADCAST_PEERS * limits.ROUTER_MESSAGES_PER_SECOND

    for _ in range(40):
        for _ in range(rate // 10):
            server.publish(b"x")
        server.clock.advance(0.1)

    assert here.channel.given_up == ""
    assert here.hub.counts.rejected["flood"] == 0


def test_what_arrives_another_way_is_not_used_and_not_waited_for(clock: ManualClock) -> None:
    server = MemoryServer(clock)
    _, two, three = publishers(server, "one", "two", "three")
    worker = Publisher("four", server)
    worker.channel.broadcasts.is_heard_elsewhere = lambda router: router == "one"
    # What was stored of it is forgotten.
    clock.advance(1.5)
    assert worker.peers() == ["three", "two"]
    assert worker.channel.broadcasts.has_joined()
    assert (two.peers(), three.peers()) == (["four", "one", "three"], ["four", "one", "two"])
