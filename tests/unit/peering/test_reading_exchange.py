"""Readings between routers: hubs in memory, on a manual clock."""

from dataclasses import dataclass, field

import pytest

from lora_router.fleet.catalog_digests import CatalogDigests
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Page, ReadFailure, Reading
from lora_router.peering import hub as hub_module
from lora_router.peering import reading_exchange
from lora_router.peering.pb.peering_pb2 import PeerMessage
from lora_router.peering.pb.readings_pb2 import Reading as ReadingMessage
from lora_router.peering.pb.readings_pb2 import Readings
from lora_router.peering.reading_exchange import WAIT_SECONDS, ReadingExchange
from lora_router.scrape.reads import SharingCounts
from tests.fleet import ManualClock, make_metrics, state_of
from tests.unit.peering.broadcasting import MemoryServer, publishers
from tests.unit.peering.routers import Router, mesh


@dataclass
class Heard:
    """A ``Receiver`` that wants everything and records it."""

    believes: bool = True
    wanted: bool = True
    intervals: list[float] = field(default_factory=list)
    asked: list[tuple[str, str, Page]] = field(default_factory=list)
    readings: list[tuple[str, Reading]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    counts: SharingCounts = field(default_factory=SharingCounts)

    def heard(self, name: str, interval: float) -> bool:
        self.intervals.append(interval)
        return self.believes

    def wants(self, name: str, state: PodState, page: Page, read_at: float) -> bool:
        self.asked.append((name, state.pod.name, page))
        return self.wanted

    def receive(self, name: str, reading: Reading) -> None:
        self.readings.append((name, reading))

    def gone(self, name: str) -> None:
        self.left.append(name)


def share(router: Router) -> tuple[ReadingExchange, Heard]:
    exchange = ReadingExchange(router.hub, router.fleet, CatalogDigests())
    exchange.receiver = heard = Heard()
    exchange.interval = lambda: 0.25
    return exchange, heard


def metrics_of(router: Router, pod: int = 1, *adapters: str) -> Reading:
    now = router.clock.now()
    return Reading(state_of(router.fleet, pod), now, make_metrics(adapters, scraped_at=now))


def test_a_reading_is_told_to_all_peers_within_a_moment() -> None:
    clock = ManualClock()
    one, two, three = mesh(clock, "one", "two", "three")
    exchange, _ = share(one)
    (_, at_two), (_, at_three) = share(two), share(three)
    reading = metrics_of(one, 2, "a")

    exchange.tell(reading)
    clock.advance(WAIT_SECONDS + 0.01)

    for router, heard in ((two, at_two), (three, at_three)):
        ((name, told),) = heard.readings
        assert name == "one"
        assert told.state is state_of(router.fleet, 2)
        assert isinstance(told.found, PodMetrics)
        assert told.found.lora == reading.found.lora  # type: ignore[union-attr]
        assert told.read_at == pytest.approx(reading.read_at, abs=0.01)
        assert set(heard.intervals) == {0.25}
    assert exchange.told == 1


def test_readings_wait_for_each_other_and_go_with_a_report_that_is_due() -> None:
    clock = ManualClock()
    one, two = mesh(clock, "one", "two")
    exchange, _ = share(one)
    _, heard = share(two)
    sent_before = one.hub.counts.reports_sent
    while one.hub.counts.reports_sent == sent_before:
        clock.advance(0.001)
    clock.advance(hub_module.INTERVAL_SECONDS - 0.02)
    bytes_before = one.hub.counts.bytes_sent

    for _ in range(3):
        exchange.tell(metrics_of(one, 1))
    exchange.tell(metrics_of(one, 2))
    assert one.hub.counts.bytes_sent == bytes_before
    clock.advance(0.022)

    assert [told.state.pod.name for _, told in heard.readings] == ["pod-1", "pod-2"]
    assert one.hub.counts.reports_sent == sent_before + 2
    assert exchange.take() == []


def test_without_peers_nothing_is_kept() -> None:
    (alone,) = mesh(ManualClock(), "alone")
    exchange, _ = share(alone)

    exchange.tell(metrics_of(alone))

    assert exchange.take() == []


def test_long_readings_go_in_messages_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_MOST_WITH_REPORT", 10)
    clock = ManualClock()
    one, two = mesh(clock, "one", "two")
    exchange, _ = share(one)
    _, heard = share(two)

    for _ in range(20):
        exchange.tell(metrics_of(one))
        clock.advance(0.031)

    assert len(heard.readings) > 8


@pytest.mark.slow
def test_many_readings_go_in_several_messages_and_all_arrive() -> None:
    clock = ManualClock()
    one, two = Router("one", clock, pods=600), Router("two", clock, pods=600)
    one.connect(two)
    two.connect(one)
    clock.advance(0.3)
    exchange, _ = share(one)
    _, heard = share(two)

    for state in one.fleet:
        exchange.tell(Reading(state, clock.now(), make_metrics("abc", scraped_at=clock.now())))
    clock.advance(0.2)

    assert len(heard.readings) == 600


def test_readings_are_published_where_all_routers_listen() -> None:
    clock = ManualClock()
    server = MemoryServer(clock)
    one, two, three = publishers(server, "one", "two", "three")
    exchange, _ = share(one)
    (_, at_two), (_, at_three) = share(two), share(three)

    exchange.tell(metrics_of(one))
    clock.advance(0.3)

    assert [name for name, _ in at_two.readings] == ["one"]
    assert [name for name, _ in at_three.readings] == ["one"]
    late = publishers(server, "late")[0]
    _, at_late = share(late)
    clock.advance(0.3)
    assert late.peers() == ["one", "three", "two"]
    assert at_late.readings == [], "what is stored was read long ago"


def test_malformed_readings_that_are_published_are_rejected() -> None:
    clock = ManualClock()
    one, two = publishers(MemoryServer(clock), "one", "two")
    share(two)

    one.hub.send_to_all(_message(readings=[ReadingMessage(pod=1)]))
    clock.advance(0.1)

    assert two.hub.counts.rejected["malformed"] == 1


def test_a_router_without_shared_scrapes_ignores_readings() -> None:
    clock = ManualClock()
    one, two = mesh(clock, "one", "two")
    exchange, _ = share(one)

    for _ in range(50):
        exchange.tell(metrics_of(one))
        clock.advance(0.1)

    assert two.peers() == ["one"]
    assert not any(two.hub.counts.rejected.values())


def test_what_nobody_wants_is_not_decoded() -> None:
    clock = ManualClock()
    one, two = mesh(clock, "one", "two")
    exchange, _ = share(one)
    _, heard = share(two)
    heard.wanted = False

    exchange.tell(metrics_of(one, 1))
    exchange.tell(Reading(state_of(one.fleet, 2), clock.now(), state_of(one.fleet, 2).catalog))
    clock.advance(0.2)

    assert heard.asked == [("one", "pod-1", "metrics"), ("one", "pod-2", "models")]
    assert heard.readings == []


def test_failures_are_always_told_and_a_peer_that_is_not_believed_tells_nothing() -> None:
    clock = ManualClock()
    one, two = mesh(clock, "one", "two")
    exchange, _ = share(one)
    _, heard = share(two)
    heard.wanted = False
    failure = Reading(state_of(one.fleet, 1), clock.now(), ReadFailure("metrics", "timeout"))
    exchange.tell(failure)
    clock.advance(0.2)
    assert [told.found for _, told in heard.readings] == [failure.found]

    heard.believes = False
    exchange.tell(failure)
    clock.advance(0.2)

    assert len(heard.readings) == 1


def test_a_peer_that_leaves_is_forgotten_with_its_readings() -> None:
    clock = ManualClock()
    one, two = mesh(clock, "one", "two")
    exchange, _ = share(one)
    _, heard = share(two)
    exchange.tell(metrics_of(one))
    clock.advance(0.2)

    one.hub.leave()
    clock.advance(0.2)

    assert heard.left == ["one"]
    exchange.tell(metrics_of(one))
    clock.advance(0.2)
    assert len(heard.readings) == 1


def _message(**fields: object) -> bytes:
    return PeerMessage(readings=Readings(**fields)).SerializeToString()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [
        _message(readings=[ReadingMessage(pod=1)]),
        _message(number=1, readings=[ReadingMessage(pod=1)] * 1025),
    ],
    ids=["no number", "too many"],
)
def test_a_peer_with_malformed_readings_is_rejected(message: bytes) -> None:
    clock = ManualClock()
    one, two = mesh(clock, "one", "two")
    share(two)

    one.hub.send_to_all(message)
    clock.advance(0.1)

    assert sum(two.hub.counts.rejected.values()) == 1


def test_a_flood_of_readings_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_exchange, "_READINGS_BURST", 5000)
    clock = ManualClock()
    one, two = mesh(clock, "one", "two")
    _, heard = share(two)
    heard.wanted = False

    for number in range(1, 11):
        one.hub.send_to_all(_message(number=number, readings=[ReadingMessage(pod=1)] * 1000))
    clock.advance(0.1)

    assert two.hub.counts.rejected["flood"] == 1


def test_a_router_that_has_nothing_to_tell_says_that_it_takes_part() -> None:
    clock = ManualClock()
    one, two = mesh(clock, "one", "two")
    exchange, _ = share(one)
    _, heard = share(two)

    exchange.tell_presence()
    clock.advance(WAIT_SECONDS + 0.01)

    assert heard.intervals == [0.25]
    assert heard.readings == []
    exchange.tell(metrics_of(one))
    exchange.tell_presence()
    clock.advance(WAIT_SECONDS + 0.01)
    assert len(heard.intervals) == 2, "a reading says it as well"
    assert len(heard.readings) == 1
