"""Reports: what a router writes, a peer reads, whatever is lost, late, or written again."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from msgspec import structs

from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare, PodShare, SentShare, UsedShare
from lora_router.peering import limits
from lora_router.peering.pb.peering_pb2 import Held, PeerMessage, Pod, Report, Used
from lora_router.peering.report_reader import GapError, ReportError, ReportReader
from lora_router.peering.report_writer import ReportWriter
from tests.unit.peering.shares import same, shares

SERVER = ("10.0.0.1:8000", "uid-1")


def share_of(number: int, **values: object) -> LedgerShare:
    empty = LedgerShare("there", number, 0.1, {}, {}, {})
    return replace(empty, **values)  # type: ignore[arg-type]


def read(reader: ReportReader, messages: list[bytes]) -> LedgerShare | None:
    share = None
    for message in messages:
        share = reader.read(PeerMessage.FromString(message).report)
    return share


def read_all(reader: ReportReader, reports: Iterable[Report]) -> None:
    for report in reports:
        reader.read(report)


def test_a_report_says_what_changed_and_the_reader_knows_the_rest() -> None:
    writer, reader = ReportWriter(), ReportReader("there", 0.1)
    pods = {f"pod-{n}": PodShare(SERVER, 2, {"an-adapter": 1, f"other-{n}": 1}) for n in range(50)}
    first = writer.update(share_of(1, pods=pods), 10.0)
    read(reader, first)
    pods["pod-7"] = PodShare(SERVER, 3, {"an-adapter": 1, "other-7": 2})

    second = writer.update(share_of(2, pods=pods), 10.1)

    share = read(reader, second)
    assert share is not None
    assert share.pods == pods
    assert sum(map(len, second)) < 40
    assert sum(map(len, first)) > 1000


def test_the_time_that_a_request_waits_goes_on_without_being_sent_again() -> None:
    writer, reader = ReportWriter(), ReportReader("there", 0.1)
    held = {"a": HeldShare(1.0, "pod-1", ("pod-2", "b"), -3)}
    read(reader, writer.update(share_of(1, held=held), 10.0))

    messages = writer.update(share_of(2, held={"a": structs.replace(held["a"], seconds=1.5)}), 10.5)

    assert not PeerMessage.FromString(messages[0]).report.held
    share = read(reader, messages)
    assert share is not None
    assert share.held == {"a": HeldShare(1.5, "pod-1", ("pod-2", "b"), -3)}


def test_a_priority_that_is_out_of_bounds_is_told_as_the_nearest_one() -> None:
    writer, reader = ReportWriter(), ReportReader("there", 0.1)
    held = {"a": HeldShare(1.0, priority=2**40), "b": HeldShare(1.0, priority=-(2**40))}

    share = read(reader, writer.update(share_of(1, held=held), 10.0))

    assert share is not None
    assert [each.priority for each in share.held.values()] == [2**31 - 1, 1 - 2**31]


def test_a_long_report_goes_in_parts_that_are_no_share_before_the_last() -> None:
    pods = {
        f"pod-{p}": PodShare(SERVER, 100, {f"adapter-{a}": 1 for a in range(100)})
        for p in range(100)
    }
    writer, reader = ReportWriter(), ReportReader("there", 0.1)

    messages = writer.update(share_of(1, pods=pods), 10.0)

    assert len(messages) == 6
    assert max(map(len, messages)) < limits.MAX_MESSAGE_BYTES
    assert read(reader, messages[:-1]) is None
    share = read(reader, messages[-1:])
    assert share is not None
    assert share.pods == pods


def test_a_report_after_a_missing_one_is_a_gap_until_a_complete_one_arrives() -> None:
    writer, reader = ReportWriter(), ReportReader("there", 0.1)
    pods = {"pod-1": PodShare(SERVER, 1, {"a": 1})}
    read(reader, writer.update(share_of(1), 10.0))
    writer.update(share_of(2, pods=pods), 10.1)

    for number in (3, 4):
        with pytest.raises(GapError):
            read(reader, writer.update(share_of(number, pods=pods), 10.2))
    share = read(reader, writer.complete())

    assert share is not None
    assert (share.number, share.pods) == (4, pods)


def test_what_came_and_went_is_reported_once() -> None:
    writer, reader = ReportWriter(), ReportReader("there", 0.1)
    read(reader, writer.update(share_of(1), 10.0))
    used = {"pod-1": UsedShare(SERVER, {"b": 0.0, "a": 0.0})}

    share = read(reader, writer.update(share_of(2, used=used), 10.1))
    after = read(reader, writer.update(share_of(3), 10.2))

    assert share is not None
    assert after is not None
    assert (share.used, share.idle) == (used, {})
    assert list(share.used["pod-1"].adapters) == ["b", "a"]
    assert after.used == {}


def test_prompts_that_were_sent_are_reported_once() -> None:
    writer, reader = ReportWriter(), ReportReader("there", 0.1)
    pods = {"pod-1": PodShare(SERVER, 1, {})}
    sent = {"pod-1": SentShare(SERVER, 1.25)}

    first = read(reader, writer.update(share_of(1, pods=pods, sent=sent), 10.0))
    second = read(reader, writer.update(share_of(2, pods=pods, sent=sent), 10.1))
    third = read(reader, writer.update(share_of(3, pods=pods), 10.2))
    joined = read(ReportReader("there", 0.1), writer.complete())

    shares = (first, second, third, joined)
    assert [None if each is None else each.sent for each in shares] == [sent, sent, {}, {}]


def test_a_prompt_of_a_day_is_reported_as_the_longest_that_peers_accept() -> None:
    writer = ReportWriter()
    sent = {"pod-1": SentShare(SERVER, 86_400.0)}
    share = read(ReportReader("there", 0.1), writer.update(share_of(1, sent=sent), 10.0))
    assert share is not None
    assert share.sent["pod-1"].seconds == limits.MAX_SENT_MS / 1000


def test_a_complete_report_has_the_idle_adapters_and_when_each_was_used() -> None:
    idle = {"pod-1": UsedShare(SERVER, {"b": 100.0, "a": 2.5}), "pod-2": UsedShare(SERVER, {})}
    writer = ReportWriter(lambda _now, _most: idle)

    first = read(ReportReader("there", 0.1), writer.update(share_of(1), 10.0))
    idle["pod-1"].adapters["not in the tables"] = 0.0
    again = read(ReportReader("there", 0.1), writer.complete())

    for share in (first, again):
        assert share is not None
        assert share.idle == {"pod-1": UsedShare(SERVER, {"b": 100.0, "a": 2.5})}
        assert share.used == {}


def test_of_too_many_idle_adapters_those_are_reported_that_were_used_last() -> None:
    names = [f"adapter-{number}" for number in range(50)]
    ages = {name: float(50 - number) for number, name in enumerate(names)}
    idle = {f"pod-{n}": UsedShare(SERVER, {"oldest": 1e30} | ages) for n in range(200)}
    writer = ReportWriter(lambda _now, _most: idle)

    messages = writer.update(share_of(1), 10.0)
    share = read(ReportReader("there", 0.1), messages)

    assert share is not None
    assert {len(each.adapters) for each in share.idle.values()} == {20}
    assert list(share.idle["pod-0"].adapters) == names[-20:]
    assert sum(map(len, messages)) < 30_000
    assert sum(map(len, writer.complete())) < 30_000


@pytest.mark.slow
def test_idle_adapters_of_many_pods_stay_within_the_bounds_of_a_reader() -> None:
    idle = {f"pod-{n}": UsedShare(SERVER, {"a": 1.0, "b": 1e30}) for n in range(9000)}
    writer = ReportWriter(lambda _now, _most: idle)
    share = read(ReportReader("there", 0.1), writer.update(share_of(1), 10.0))
    assert share is not None
    assert len(share.idle) == limits.REPORT_USED


def test_many_idle_adapters_are_no_reason_to_begin_again() -> None:
    idle = {"pod-1": UsedShare(SERVER, {f"adapter-{n}": 1.0 for n in range(2000)})}
    writer = ReportWriter(lambda _now, _most: idle)
    writer.update(share_of(1), 10.0)
    assert not writer.is_sparse


def test_an_older_router_reads_what_it_knows_of_a_newer_ones_report() -> None:
    idle = {"pod-1": UsedShare(SERVER, {"b": 1.0})}
    pods = {"pod-1": PodShare(SERVER, 1, {"a": 1})}
    writer = ReportWriter(lambda _now, _most: idle)
    (message,) = writer.update(share_of(1, pods=pods), 10.0)
    report = PeerMessage.FromString(message).report
    report.ClearField("used")  # An older router does not know the field.

    share = ReportReader("there", 0.1).read(report)

    assert share is not None
    assert (share.pods, share.idle) == (pods, {})


@pytest.mark.slow
def test_names_that_are_not_used_any_more_are_forgotten_when_the_writer_begins_again() -> None:
    writer = ReportWriter()
    for number in range(1, 2001):
        pods = {"pod-1": PodShare(SERVER, 1, {f"adapter-{number}": 1})}
        writer.update(share_of(number, pods=pods), 10.0)
    assert writer.is_sparse
    long = sum(map(len, writer.complete()))

    writer.begin_again()
    short = writer.update(share_of(2001, pods=pods), 10.0)

    assert long > 20_000
    assert sum(map(len, short)) < 100
    share = read(ReportReader("there", 0.1), short)
    assert share is not None
    assert share.pods == pods


@pytest.mark.slow
def test_what_exceeds_the_bounds_is_left_out_and_never_rejected_by_a_reader() -> None:
    many = {f"adapter-{n}": 1 for n in range(2 * limits.MAX_ADAPTERS_PER_POD)}
    long, broken = "x" * 2000, "\ud800"
    pods = {
        "pod-1": PodShare(SERVER, 5000, many),
        "pod-2": PodShare(SERVER, 10**9, {long: 1, broken: 1, "": 1, "short": 10**9}),
        long: PodShare(SERVER, 1, {}),
    }
    held = {f"adapter-{n}": HeldShare(n / 10) for n in range(2 * limits.MAX_HELD)}
    reader = ReportReader("there", 0.1)

    share = read(reader, ReportWriter().update(share_of(1, pods=pods, held=held), 1000.0))

    assert share is not None
    assert len(share.pods["pod-1"].adapters) == limits.MAX_ADAPTERS_PER_POD
    assert share.pods["pod-2"].adapters == {"short": limits.MAX_REQUESTS}
    assert long not in share.pods
    assert len(share.held) == limits.MAX_HELD
    assert f"adapter-{2 * limits.MAX_HELD - 1}" in share.held, "those that wait longest are told"


@pytest.mark.slow
@given(st.lists(shares, min_size=1, max_size=6))
def test_every_share_arrives_as_it_was_sent(sent: list[LedgerShare]) -> None:
    writer, reader = ReportWriter(), ReportReader("there", 0.1)
    for number, share in enumerate(sent, start=1):
        numbered = replace(share, number=number)
        found = read(reader, writer.update(numbered, 100.0 + number / 10))
        assert found is not None
        assert same(found, numbered)
        # The first report is complete. There is nobody here who knows what is idle.
        assert found.used == (numbered.used if number > 1 else {})


class LossyStream(RuleBasedStateMachine):
    """A writer, and a reader that gets its messages late, in another order, or never.

    Whatever share the reader returns is the share of that number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writer, self.reader = ReportWriter(), ReportReader("there", 0.1)
        self.sent: dict[int, LedgerShare] = {}
        self.wire: list[list[bytes]] = []
        self.number = 0

    @rule(share=shares)
    def report(self, share: LedgerShare) -> None:
        self._report(share)

    @rule()
    def report_completely(self) -> None:
        if self.number:
            self.wire.append(self.writer.complete())

    @rule(share=shares)
    def begin_again(self, share: LedgerShare) -> None:
        self.writer.begin_again()
        self._report(share)

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        if self.wire:
            del self.wire[data.draw(st.integers(0, len(self.wire) - 1))]

    @rule(data=st.data())
    def deliver_any(self, data: st.DataObject) -> None:
        if self.wire:
            self._deliver(self.wire.pop(data.draw(st.integers(0, len(self.wire) - 1))))

    @rule()
    def deliver_next(self) -> None:
        if self.wire:
            self._deliver(self.wire.pop(0))

    @rule()
    def the_peer_restarts(self) -> None:
        self.reader = ReportReader("there", 0.1)

    def teardown(self) -> None:
        """After all of this, one complete report brings everything."""
        if self.number:
            found = self._deliver(self.writer.complete())
            assert found is not None
            assert found.number == self.number

    def _report(self, share: LedgerShare) -> None:
        self.number += 1
        self.sent[self.number] = replace(share, number=self.number)
        self.wire.append(self.writer.update(self.sent[self.number], 100.0 + self.number / 10))

    def _deliver(self, messages: list[bytes]) -> LedgerShare | None:
        try:
            found = read(self.reader, messages)
        except GapError:
            return None
        assert found is not None
        assert same(found, self.sent[found.number])
        return found


TestLossyStream = pytest.mark.slow(LossyStream.TestCase)
TestLossyStream.settings = settings(stateful_step_count=25)


# What no router sends


def pods_named(count: int) -> list[Pod]:
    return [Pod(name=f"pod-{number}", address="10.0.0.1:8000") for number in range(count)]


WRONG: dict[str, Callable[[], Report]] = {
    "no number": Report,
    "a pod outside the table": lambda: Report(number=1, pod=[0], pod_requests=[1]),
    "an adapter outside the table": lambda: Report(
        number=1, new_pods=pods_named(1), count_pod=[0], count_adapter=[5], count_requests=[1]
    ),
    "columns of different lengths": lambda: Report(number=1, new_pods=pods_named(1), pod=[0]),
    "counts of different lengths": lambda: Report(number=1, new_pods=pods_named(1), count_pod=[0]),
    "an adapter held outside the table": lambda: Report(number=1, held=[Held(adapter=1)]),
    "half a closed slot": lambda: Report(
        number=1, new_pods=pods_named(1), new_adapters=["a"], held=[Held(closed_pod=1)]
    ),
    "a wanted pod outside the table": lambda: Report(
        number=1, new_adapters=["a"], held=[Held(wanted_pod=1)]
    ),
    "an ejected pod outside the table": lambda: Report(number=1, ejected=[0]),
    "an empty name": lambda: Report(number=1, new_adapters=[""]),
    "a pod without a name": lambda: Report(number=1, new_pods=[Pod(address="10.0.0.1:1")]),
    "a long name": lambda: Report(number=1, new_adapters=["x" * 2000]),
    "too many rows": lambda: Report(number=1, new_adapters=["a"] * 20_000),
    "too many requests": lambda: Report(
        number=1, new_pods=pods_named(1), pod=[0], pod_requests=[2**32 - 1]
    ),
    "too many adapters on a pod": lambda: Report(
        number=1,
        new_pods=pods_named(1),
        new_adapters=[f"a-{n}" for n in range(1025)],
        count_pod=[0] * 1025,
        count_adapter=list(range(1025)),
        count_requests=[1] * 1025,
    ),
    "too many held": lambda: Report(
        number=1,
        new_adapters=[f"a-{n}" for n in range(1025)],
        held=[Held(adapter=n) for n in range(1025)],
    ),
    "too many routers": lambda: Report(number=1, new_routers=[f"r-{n}" for n in range(257)]),
    "used on a pod outside the table": lambda: Report(number=1, used=[Used(pod=0)]),
    "a used adapter outside the table": lambda: Report(
        number=1, new_pods=pods_named(1), used=[Used(pod=0, adapters=[0])]
    ),
    "times of fewer adapters": lambda: Report(
        number=1,
        new_pods=pods_named(1),
        new_adapters=["a"],
        used=[Used(pod=0, adapters=[0, 0], tenths_ago=[1])],
    ),
    "too many used": lambda: Report(
        number=1,
        new_pods=pods_named(1),
        new_adapters=["a"],
        used=[Used(pod=0, adapters=[0] * 8000)] * 2,
    ),
    "prompts on a pod outside the table": lambda: Report(number=1, sent_pod=[0], sent_ms=[1]),
    "prompts without a time": lambda: Report(number=1, new_pods=pods_named(1), sent_pod=[0]),
    "prompts for a day": lambda: Report(
        number=1, new_pods=pods_named(1), sent_pod=[0], sent_ms=[86_400_000]
    ),
    "acknowledgements of nobody": lambda: Report(number=1, acknowledged=[1]),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_report_that_no_router_sends_is_an_error(what: str) -> None:
    with pytest.raises(ReportError):
        ReportReader("there", 0.1).read(WRONG[what]())


def test_tables_that_grow_for_ever_are_an_error_in_time() -> None:
    reader = ReportReader("there", 0.1)
    endless = (
        Report(number=n, base=n - 1, new_adapters=[f"adapter-{n}-{m}" for m in range(4000)])
        for n in itertools.count(1)
    )
    with pytest.raises(ReportError, match="more than 50000 adapters"):
        read_all(reader, endless)
    assert reader.weight < 10_000_000


def test_a_report_that_never_ends_is_an_error_in_time() -> None:
    endless = (Report(number=1, part=part, more_follows=True) for part in itertools.count())
    with pytest.raises(ReportError, match="parts"):
        read_all(ReportReader("there", 0.1), endless)


def test_more_uses_in_every_part_are_an_error_in_time() -> None:
    used = [Used(pod=0, adapters=[0] * 4000)]
    names = {"new_pods": pods_named(1), "new_adapters": ["a"]}
    endless = (
        Report(number=1, part=part, more_follows=True, used=used, **({} if part else names))  # type: ignore[arg-type]
        for part in itertools.count()
    )
    with pytest.raises(ReportError, match="adapters were used"):
        read_all(ReportReader("there", 0.1), endless)


def test_pods_and_adapters_of_the_same_names_are_no_fault() -> None:
    same_twice = [Pod(name="pod", address="10.0.0.1:1"), Pod(name="pod", address="10.0.0.2:1")]
    report = Report(
        number=1,
        new_pods=same_twice,
        new_adapters=["a", "a"],
        pod=[0, 1, 0],
        pod_requests=[1, 2, 3],
        count_pod=[0, 0],
        count_adapter=[0, 1],
        count_requests=[1, 2],
    )

    share = ReportReader("there", 0.1).read(report)

    assert share is not None
    assert list(share.pods) == ["pod"]


_numbers = st.integers(0, 2**32 - 1) | st.integers(0, 6)
_columns = st.lists(_numbers, max_size=6)
reports = st.builds(
    Report,
    number=st.integers(0, 5),
    base=st.integers(0, 4),
    part=st.integers(0, 3),
    more_follows=st.booleans(),
    now_ms=st.integers(0, 2**64 - 1),
    new_pods=st.lists(st.builds(Pod, name=st.text(max_size=3)), max_size=3),
    new_adapters=st.lists(st.text(max_size=3), max_size=3),
    new_routers=st.lists(st.text(max_size=3), max_size=2),
    pod=_columns,
    pod_requests=_columns,
    count_pod=_columns,
    count_adapter=_columns,
    count_requests=_columns,
    held=st.lists(
        st.builds(
            Held,
            adapter=_numbers,
            since_ms=st.integers(0, 2**64 - 1),
            wanted_pod=_numbers,
            closed_pod=_numbers,
            closed_adapter=_numbers,
            priority=st.integers(-(2**31), 2**31 - 1),
        ),
        max_size=3,
    ),
    no_longer_held=_columns,
    acknowledged=st.lists(st.integers(0, 2**64 - 1), max_size=2),
    ejected=_columns,
    no_longer_ejected=_columns,
    used=st.lists(
        st.builds(Used, pod=_numbers, adapters=_columns, tenths_ago=_columns), max_size=3
    ),
    sent_pod=_columns,
    sent_ms=_columns,
)


@pytest.mark.slow
@given(st.lists(reports, max_size=5))
def test_no_report_breaks_the_reader(some: list[Report]) -> None:
    reader = ReportReader("there", 0.1)
    for report in some:
        try:
            share = reader.read(report)
        except GapError:
            continue
        except ReportError:
            return
        if share is not None:
            for pod in share.pods.values():
                assert 0 < pod.requests <= limits.MAX_REQUESTS
            for held in share.held.values():
                assert 0 <= held.seconds <= limits.MAX_HELD_SECONDS
            for used in (*share.used.values(), *share.idle.values()):
                assert all(0 <= age < 2**32 for age in used.adapters.values())
