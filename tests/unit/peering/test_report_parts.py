"""The parts of a report: how it is divided, and what is in each of them."""

from lora_router.fleet.peer_ledgers import UsedShare
from lora_router.peering.limits import (
    MAX_MESSAGE_BYTES,
    MAX_NAME_BYTES,
    MAX_USED_SECONDS,
    PART_NAME_BYTES,
    PART_ROWS,
)
from lora_router.peering.pb.peering_pb2 import PeerMessage, Report
from lora_router.peering.report_parts import ReportParts
from lora_router.peering.tables import PodKey


def reports(parts: ReportParts) -> list[Report]:
    return [PeerMessage.FromString(message).report for message in parts.finish()]


def test_a_short_report_is_one_part() -> None:
    parts = ReportParts(7, 6, 1000)
    parts.add_pod(PodKey("pod-1", "10.0.0.1:8000", "uid-1"))
    parts.set_requests(0, 3)

    [only] = reports(parts)

    assert (only.number, only.base, only.now_ms, only.part) == (7, 6, 1000, 0)
    assert (list(only.pod), list(only.pod_requests)) == ([0], [3])
    assert not only.more_follows


def test_rows_beyond_those_of_a_part_go_in_the_next_one() -> None:
    parts = ReportParts(7, 6, 1000)
    for pod in range(PART_ROWS + 1):
        parts.set_requests(pod, 1)

    first, last = reports(parts)

    assert (len(first.pod), list(last.pod)) == (PART_ROWS, [PART_ROWS])
    assert (first.part, first.more_follows) == (0, True)
    assert (last.part, last.more_follows) == (1, False)
    assert (last.number, last.base, last.now_ms) == (7, 6, 1000)


def test_the_adapters_of_one_pod_stay_in_one_part() -> None:
    parts = ReportParts(7, 6, 1000)
    parts.set_requests(0, 2)

    parts.set_counts(0, dict.fromkeys(range(PART_ROWS), 1))

    first, last = reports(parts)
    assert (len(first.pod), len(first.count_pod)) == (1, 0)
    assert len(last.count_pod) == PART_ROWS


def test_long_names_are_divided_by_their_length() -> None:
    parts = ReportParts(7, 0, 1000)
    for _ in range(5):
        parts.add_adapter("n" * (PART_NAME_BYTES // 4))

    assert [len(report.new_adapters) for report in reports(parts)] == [3, 2]


def test_names_are_measured_in_bytes_and_not_in_characters() -> None:
    name = "😀" * (MAX_NAME_BYTES // 4)
    parts = ReportParts(7, 0, 1000)
    for number in range(400):
        parts.add_pod(PodKey(name, "10.0.0.1:8000", f"uid-{number}"))
        parts.add_adapter(name)

    assert all(len(message) <= MAX_MESSAGE_BYTES for message in parts.finish())


def test_of_the_adapters_of_a_pod_those_are_added_that_were_used_last() -> None:
    parts = ReportParts(7, 0, 1000)
    used = UsedShare(("10.0.0.1:8000", "uid-1"), {"a": 2 * MAX_USED_SECONDS, "b": 9.0, "c": 1.0})

    assert parts.set_used(0, used, 2, {"a": 0, "b": 1, "c": 2}) == 2

    [report] = reports(parts)
    assert list(report.used[0].adapters) == [1, 2]
    assert list(report.used[0].tenths_ago) == [90, 10]


def test_an_adapter_without_a_position_gets_one_or_is_left_out() -> None:
    used = UsedShare(("10.0.0.1:8000", "uid-1"), {"a": 0.0, "b": 0.0})

    parts = ReportParts(7, 0, 1000)
    assert parts.set_used(0, used, 9, {"a": 0}) == 1

    parts = ReportParts(7, 0, 1000)
    assert parts.set_used(0, used, 9, {"a": 0}, lambda _, name: 5 if name == "b" else None) == 2
    assert list(reports(parts)[0].used[0].adapters) == [0, 5]
