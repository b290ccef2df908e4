"""Readings as messages: what one process writes, another reads, within bounds."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.catalog import Catalog, ServedModel
from lora_router.fleet.catalog_digests import CatalogDigests
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.reading import ReadFailure, Reading
from lora_router.fleet.reading_bounds import TOLD_TO_PEERS
from lora_router.peering import model_lists, reading_codec
from lora_router.peering.limits import MAX_MESSAGE_BYTES
from lora_router.peering.model_lists import ListReader, RecentLists, list_parts
from lora_router.peering.pb import readings_pb2 as pb
from lora_router.peering.pod_keys import PodKeys, pod_key
from lora_router.peering.reading_codec import UNKNOWN_LIST, ReadingReader, ReadingWriter
from lora_router.peering.report_reader import ReportError
from tests.fleet import ManualClock, make_fleet, make_metrics, make_pod, state_of
from tests.unit.peering.readings import readings

PODS = make_fleet(4)
KEYS = PodKeys(PODS)
STATES = [state_of(PODS, number) for number in range(1, 5)]


class Side:
    """What one process needs for the codec."""

    def __init__(self, fleet: Fleet | None = None, *, with_lists: bool = False) -> None:
        self.clock = ManualClock()
        self.fleet = fleet or make_fleet(4)
        self.digests = CatalogDigests()
        keys = PodKeys(self.fleet)
        self.writer = ReadingWriter(keys, self.digests, with_lists=with_lists)
        self.reader = ReadingReader(keys, self.digests, self.clock.now, with_lists=with_lists)

    def write(self, *given: Reading) -> list[pb.Readings]:
        return self.writer.write(given, self.clock.now())

    def read(self, messages: list[pb.Readings]) -> list[Reading]:
        sent = [message.SerializeToString() for message in messages]
        assert not sent or max(map(len, sent)) < MAX_MESSAGE_BYTES
        return [
            reading for each in sent for reading in self.reader.read(pb.Readings.FromString(each))
        ]


def metrics_of(fleet: Fleet, pod: int, read_at: float, *adapters: str) -> Reading:
    snapshot = make_metrics(adapters, scraped_at=read_at)
    return Reading(state_of(fleet, pod), read_at, snapshot)


@pytest.mark.slow
@given(st.lists(readings(STATES, 99.5), max_size=8))
def test_what_is_written_is_read(sent: list[Reading]) -> None:
    side = Side(PODS, with_lists=True)

    received = side.read(side.write(*sent))

    assert [(each.state, each.read_at, each.page) for each in received] == [
        (each.state, each.read_at, each.page) for each in sent
    ]
    for one, other in zip(received, sent, strict=True):
        if isinstance(one.found, Catalog) and isinstance(other.found, Catalog):
            assert one.found.base_models == other.found.base_models
            assert dict(one.found.adapters) == dict(other.found.adapters)
        else:
            assert one.found == other.found


def test_a_pod_that_shows_no_load_is_a_reading_too() -> None:
    side = Side()
    empty = Reading(state_of(side.fleet, 1), 0.0, PodMetrics(scraped_at=0.0))

    [received] = side.read(side.write(empty))

    assert isinstance(received.found, PodMetrics)
    assert not received.found.shows_load


@given(st.binary(max_size=200))
def test_garbage_is_an_error_or_nothing(data: bytes) -> None:
    side = Side(PODS, with_lists=True)
    try:
        message = pb.Readings.FromString(data)
    except Exception:
        return
    message.number = 1
    with suppress(ReportError):
        assert len(side.reader.read(message)) <= len(message.readings)


def test_a_reading_has_its_time_on_the_clock_of_the_receiver() -> None:
    here, there = Side(), Side()
    there.clock.time = 5000.0
    (received,) = here.read(there.write(metrics_of(there.fleet, 1, 4999.25)))

    assert received.state is state_of(here.fleet, 1)
    assert received.read_at == here.clock.now() - 0.75
    assert isinstance(received.found, PodMetrics)
    assert received.found.scraped_at == received.read_at


def test_a_message_that_was_on_its_way_for_long_makes_its_readings_older_not_younger() -> None:
    here, there = Side(), Side()
    here.read(there.write(metrics_of(there.fleet, 1, there.clock.now())))
    there.clock.advance(1.0)
    late = there.write(metrics_of(there.fleet, 1, there.clock.now()))
    here.clock.advance(4.0)

    (received,) = here.read(late)

    assert here.clock.now() - received.read_at == pytest.approx(3.0, abs=0.01)


@pytest.mark.slow
def test_a_clock_that_runs_slower_does_not_make_readings_ever_older() -> None:
    here, there = Side(), Side()
    for _ in range(1000):
        here.clock.advance(1.0)
        there.clock.advance(0.9995)
        (received,) = here.read(there.write(metrics_of(there.fleet, 1, there.clock.now())))

    assert here.clock.now() - received.read_at < 0.01


def test_a_message_that_arrives_twice_or_after_a_later_one_is_ignored() -> None:
    here, there = Side(), Side()
    first = there.write(metrics_of(there.fleet, 1, 99.0))
    second = there.write(metrics_of(there.fleet, 2, 99.0))

    assert len(here.read(second)) == 1
    assert here.read(second) == here.read(first) == []


def test_readings_of_pods_that_are_unknown_here_are_left_out_and_counted() -> None:
    here, there = Side(make_fleet(1)), Side(make_fleet(3))

    received = here.read(there.write(*(metrics_of(there.fleet, n, 99.0) for n in (1, 2, 3))))

    assert [each.state.pod.name for each in received] == ["pod-1"]
    assert here.reader.unknown == 2


@pytest.mark.parametrize("change", [{"uid": "another"}, {"address": "10.9.9.9:8000"}])
def test_a_new_server_under_the_same_name_is_another_pod(change: dict[str, str]) -> None:
    here, there = Side(), Side()
    messages = there.write(metrics_of(there.fleet, 1, 99.0))

    here.fleet.upsert(make_pod(1, **change))

    assert here.read(messages) == []


def test_a_pod_that_left_is_not_written() -> None:
    there = Side()
    reading = metrics_of(there.fleet, 1, 99.0)

    there.fleet.remove("pod-1")

    assert there.write(reading) == []


def test_keys_follow_the_fleet() -> None:
    fleet = make_fleet(2)
    keys = PodKeys(fleet)
    old = state_of(fleet, 1)
    key = keys.key(old)
    assert key == pod_key(old.pod)
    assert keys.find(key) is old

    fleet.upsert(make_pod(1, uid="new"))
    fleet.remove("pod-2")

    assert keys.find(key) is None
    assert keys.key(old) is None
    new = keys.key(state_of(fleet, 1))
    assert new is not None
    assert keys.find(new) is state_of(fleet, 1)


def test_a_list_of_models_is_a_digest_to_those_who_know_the_list() -> None:
    here, there = Side(), Side()
    catalog = state_of(there.fleet, 1).catalog
    known = state_of(here.fleet, 2).catalog
    message = there.write(Reading(state_of(there.fleet, 1), 99.0, catalog))
    again = there.write(Reading(state_of(there.fleet, 1), 99.5, catalog))
    assert sum(each.ByteSize() for each in message) < 60

    (unknown,) = here.read(message)
    here.digests.of(known)
    (received,) = here.read(again)

    assert unknown.found == ReadFailure("models", UNKNOWN_LIST)
    assert received.found is known


def test_a_list_is_sent_once_to_a_receiver_that_reads_no_pods() -> None:
    here, there = Side(with_lists=True), Side(with_lists=True)
    models = [ServedModel("base"), *(ServedModel(f"a-{n}", "base") for n in range(4999))]
    catalog = Catalog.of(models)
    first = there.write(*(Reading(state, 99.0, catalog) for state in there.fleet))
    second = there.write(Reading(state_of(there.fleet, 2), 99.5, catalog))
    assert [len(each.lists) for each in first] == [1, 1, 1, 0]
    assert [len(each.lists) for each in second] == [0]

    received = here.read([*first, *second])

    assert len(received) == 5
    for each in received:
        assert isinstance(each.found, Catalog)
        assert dict(each.found.adapters) == dict(catalog.adapters)


def test_peers_may_not_send_lists() -> None:
    here, there = Side(), Side(with_lists=True)

    with pytest.raises(ReportError, match="not accepted"):
        here.read(there.write(Reading(state_of(there.fleet, 1), 99.0, Catalog.of([]))))


@pytest.mark.slow
def test_many_readings_go_in_several_messages() -> None:
    there = Side(make_fleet(600))
    sent = [metrics_of(there.fleet, n, 99.0, *"abcd") for n in range(1, 601)]

    messages = there.write(*sent)

    assert [len(each.readings) for each in messages] == [256, 256, 88]
    assert [each.number for each in messages] == [1, 2, 3]
    assert sum(each.ByteSize() for each in messages) < 600 * 80


@pytest.mark.parametrize(
    "names", [[f"adapter-{n}" for n in range(2000)], ["x" * 9000], ["\ud800"]], ids=len
)
def test_a_reading_that_exceeds_the_bounds_is_left_out(names: list[str]) -> None:
    there = Side()

    messages = there.write(
        metrics_of(there.fleet, 1, 99.0, *names), metrics_of(there.fleet, 2, 99.0, "a")
    )

    assert [len(each.readings) for each in messages] == [1]


def test_a_number_that_cannot_be_true_is_unknown() -> None:
    here, there = Side(), Side()
    snapshot = replace(make_metrics(), running=math.inf, waiting=-1.0, deferred=math.nan)

    (received,) = here.read(there.write(Reading(state_of(there.fleet, 1), 99.0, snapshot)))

    assert isinstance(received.found, PodMetrics)
    assert received.found.running is received.found.waiting is received.found.deferred is None


def test_more_requests_than_can_be_true_are_unknown_whoever_sent_them() -> None:
    side = Side(PODS)
    snapshot = _snapshot(running=1e6 + 1, waiting=1e18, deferred=1e6)

    (received,) = side.read([pb.Readings(number=1, readings=[snapshot])])

    assert isinstance(received.found, PodMetrics)
    assert received.found.running is received.found.waiting is None
    assert received.found.deferred == 1e6


@pytest.mark.parametrize(("usage", "found"), [(1.0, 1.0), (37.0, None)])
def test_a_cache_that_is_more_than_full_is_unknown_whoever_read_it(
    usage: float, found: float | None
) -> None:
    (received,) = Side(PODS).read(
        [pb.Readings(number=1, readings=[_snapshot(kv_cache_usage=usage)])]
    )

    assert isinstance(received.found, PodMetrics)
    assert received.found.kv_cache_usage == found


def _snapshot(**fields: object) -> pb.Reading:
    return pb.Reading(pod=KEYS.key(STATES[0]) or 0, metrics=pb.Snapshot(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [
        lambda: _snapshot(running=math.nan),
        lambda: _snapshot(waiting=-1.0),
        lambda: _snapshot(started_at=math.inf),
        lambda: _snapshot(kv_cache_usage=1e300),
        lambda: _snapshot(adapters=["x"] * 2000),
        lambda: _snapshot(adapters=["x" * 600]),
        lambda: _snapshot(adapters=[""]),
        lambda: _snapshot(adapters=["a"], lora=pb.LoraActivity(running=[1])),
        lambda: _snapshot(lora=pb.LoraActivity(max_lora=1_000_000)),
        lambda: _snapshot(lora=pb.LoraActivity(updated_at=-math.inf)),
        lambda: _snapshot(residency=pb.LoraResidency(gpu=[7])),
        lambda: pb.Reading(pod=KEYS.key(STATES[0]) or 0),
        lambda: pb.Reading(pod=KEYS.key(STATES[0]) or 0, models=b"short"),
        lambda: pb.Reading(pod=KEYS.key(STATES[0]) or 0, failure=pb.ReadFailure(cause="x" * 1000)),
        lambda: pb.Reading(pod=KEYS.key(STATES[0]) or 0, failure=pb.ReadFailure(cause="a\nb")),
    ],
)
def test_what_no_router_sends_is_an_error(bad: Callable[[], pb.Reading]) -> None:
    side = Side(PODS)

    with pytest.raises(ReportError):
        side.read([pb.Readings(number=1, readings=[bad()])])


def test_too_many_readings_and_readings_without_a_number_are_errors() -> None:
    side = Side(PODS)

    with pytest.raises(ReportError, match="more than 1024"):
        side.read([pb.Readings(number=1, readings=[pb.Reading()] * 1025)])
    with pytest.raises(ReportError, match="no number"):
        side.read([pb.Readings(readings=[pb.Reading()])])


class TestLists:
    DIGEST = b"0123456789abcdef"

    def read(self, *parts: pb.ModelList) -> Catalog | None:
        reader = ListReader()
        for part in parts:
            reader.read(part)
        return reader.find(self.DIGEST)

    def test_an_empty_list_is_a_list(self) -> None:
        catalog = self.read(*list_parts(Catalog.of([]), self.DIGEST))

        assert catalog is not None
        assert len(catalog) == 0

    def test_a_list_of_which_a_part_is_missing_is_unknown(self) -> None:
        catalog = Catalog.of(ServedModel(f"a-{n}", "base") for n in range(5000))
        first, second, third = list_parts(catalog, self.DIGEST)

        assert self.read(first, third) is None
        assert self.read(second, third) is None
        assert self.read(first, first, second, third) is not None

    @pytest.mark.parametrize(
        "part",
        [
            pb.ModelList(digest=b"short"),
            pb.ModelList(digest=DIGEST, base_models=[""]),
            pb.ModelList(digest=DIGEST, base_models=["x" * 600]),
            pb.ModelList(digest=DIGEST, adapters=["a"]),
            pb.ModelList(digest=DIGEST, adapters=["a"], adapter_parents=[0]),
            pb.ModelList(digest=DIGEST, parents=["a", "b"]),
            pb.ModelList(digest=DIGEST, base_models=["x"] * 8001),
        ],
    )
    def test_what_no_router_sends_is_an_error(self, part: pb.ModelList) -> None:
        with pytest.raises(ReportError):
            self.read(part)

    @pytest.mark.slow
    def test_a_list_without_end_is_an_error(self) -> None:
        parts = [
            pb.ModelList(
                digest=self.DIGEST,
                part=number,
                more_follows=True,
                base_models=[f"{number}-{n}" for n in range(8000)],
            )
            for number in range(7)
        ]

        with pytest.raises(ReportError, match="more than 50000 models"):
            self.read(*parts)

    def test_the_oldest_lists_are_forgotten_by_number_and_by_memory(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_lists, "MAX_LISTS", 3)
        monkeypatch.setattr(model_lists, "MAX_LISTS_BYTES", 100)
        recent: RecentLists[int] = RecentLists()
        for number in range(4):
            recent.add(bytes([number]), 10, number)
        assert [bytes([number]) in recent for number in range(4)] == [False, True, True, True]

        recent.add(b"big", 90, 9)

        assert [recent.get(each) for each in (b"\2", b"\3", b"big")] == [None, 3, 9]


def test_the_bounds_of_what_is_written_are_within_those_of_what_is_read() -> None:
    assert reading_codec.PART_READINGS <= reading_codec.MAX_READINGS
    assert model_lists.PART_MODELS <= model_lists.MAX_PART_MODELS
    assert reading_codec.PART_BYTES + 4 * TOLD_TO_PEERS.characters < MAX_MESSAGE_BYTES
