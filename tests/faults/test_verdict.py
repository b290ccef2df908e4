"""How requests are counted around a fault."""

from collections import Counter

from tests.faults.figures import Figures
from tests.faults.load import GAVE_UP, Seen
from tests.faults.verdict import p99, verdict

FAULT_AT = 100.0


def seen(after: float, **changes: object) -> Seen:
    """Return a request that was sent some seconds after the fault, and served if not changed."""
    fields: dict[str, object] = {
        "at": FAULT_AT + after,
        "model": "base",
        "algorithm": "",
        "status": 200,
        "complete": True,
        "pod": "pod-1",
    }
    return Seen(**fields | changes)  # type: ignore[arg-type]


def test_requests_count_by_when_they_were_sent() -> None:
    found = verdict(
        [
            seen(-1),
            seen(-0.1, complete=False, error="ClientPayloadError"),
            seen(-0.1, status=503, error="pod_unreachable"),
            seen(0.2, status=500, error="500", pod="pod-0"),
            seen(
                1.5,
                status=0,
                complete=False,
                error=GAVE_UP,
                pod="",
                first_byte_seconds=10,
                taken_seconds=8,
            ),
            seen(2, first_byte_seconds=4, pod="pod-0"),
            seen(4),
            seen(4, first_byte_seconds=9, taken_seconds=7, pod="pod-0"),
        ],
        FAULT_AT,
    )

    assert (found.sent, found.lost_at_once, found.lost_later, found.lost) == (5, 1, 1, 2)
    assert (found.cut, found.failed_before) == (1, 1)
    assert found.waited == 2
    assert found.pods == {"": 1, "pod-0": 2, "pod-1": 1}
    assert found.late_pods == {"pod-0": 1, "pod-1": 1}
    assert found.saw == Counter(
        {
            "200 ClientPayloadError": 1,
            "503 pod_unreachable": 1,
            "500 500": 1,
            f"0 {GAVE_UP}": 1,
        }
    )


def test_requests_that_were_sent_after_the_fault_was_mended_do_not_count() -> None:
    found = verdict([seen(1), seen(6, status=503)], FAULT_AT, FAULT_AT + 5)

    assert (found.sent, found.lost) == (1, 0)


def test_the_99th_percentile_is_of_the_time_to_the_first_byte() -> None:
    requests = [seen(0, first_byte_seconds=number / 100) for number in range(200)]

    assert p99(requests) == 1.98


def test_the_figures_are_tables_in_markdown() -> None:
    figures = Figures()
    figures.add("A pod fails", "1 of 4 is killed", verdict([seen(0)], FAULT_AT), "random")
    figures.bound("peak memory", "400 MiB", "300 MiB")

    page = figures.markdown()

    assert "### A pod fails\n" in page
    assert "| 1 of 4 is killed | random | 1 | 0 | 0 | 0 | 0 | answers |\n" in page
    assert "| peak memory | 400 MiB | 300 MiB |\n" in page
