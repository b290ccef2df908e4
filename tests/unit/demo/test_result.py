"""The numbers of the demo, and how they are shown."""

import pytest
from rich.console import Console

from lora_router.demo.load import BASE, Outcome
from lora_router.demo.result import summarise
from lora_router.demo.stack import PodReport
from lora_router.demo.view import live_view, result_table
from lora_router.simulator.summary import percentile

REPORTS = [
    PodReport("pod-0", 3, 1, {"a1": 2, "a2": 1}, max_loras=2, loads=5, slot_waits=4, deferred=1),
    PodReport("pod-1", 0, 0, {"a3": 0}, max_loras=2, loads=1, slot_waits=0, deferred=0),
]
OUTCOMES = [
    Outcome("a1", None, 0.100, "pod-0", "active"),
    Outcome("a1", None, 0.200, "pod-0", "cold"),
    Outcome("a2", None, 0.300, "pod-1", "resident"),
    Outcome(BASE, None, 0.400, "pod-1", "base"),
    Outcome("a1", "status 503: none"),
    Outcome("a2", "status 503: none"),
]


def shown(what: object, width: int = 120) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, 0.0),
        ([7.0], 0.99, 7.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
        (list(range(1, 101)), 0.99, 99),
        (list(range(1, 1001)), 0.99, 990),
        ([1.0, 2.0], 1.0, 2.0),
    ],
)
def test_percentiles(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_only_an_active_adapter_is_a_hit_and_the_base_model_has_none() -> None:
    result = summarise(OUTCOMES, REPORTS)

    assert result.affinity_hit_rate == pytest.approx(1 / 3, abs=1e-4)
    assert result.ttft_ms == {"p50": 200.0, "p95": 400.0, "p99": 400.0}
    assert result.slot_waits == 4
    assert result.adapter_loads == 6
    assert result.requests_by_pod == {"pod-0": 2, "pod-1": 2}


def test_errors_are_counted_and_the_commonest_shown() -> None:
    result = summarise(OUTCOMES, REPORTS)
    assert result.requests == 6
    assert result.errors == 2
    assert result.error_examples == ["2 times: status 503: none"]


def test_nothing_sent_is_no_hit_and_no_error() -> None:
    result = summarise([], REPORTS)
    assert result.requests == 0
    assert result.affinity_hit_rate == 0.0
    assert result.errors == 0


def test_the_table_has_a_column_for_each_algorithm() -> None:
    result = summarise(OUTCOMES, REPORTS)
    text = shown(result_table({"random": result, "lora-affinity": result}))

    assert "random" in text
    assert "lora-affinity" in text
    line = next(line for line in text.splitlines() if "found it active" in line)
    assert line.count("33.3%") == 2


def test_the_live_view_shows_what_is_in_each_slot() -> None:
    text = shown(live_view("random", REPORTS, OUTCOMES[:4], 10))

    assert "4 of 10 requests done" in text
    first = next(line for line in text.splitlines() if line.startswith("pod-0"))
    assert "a1 (2)" in first
    assert "a2 (1)" in first
    second = next(line for line in text.splitlines() if line.startswith("pod-1"))
    assert "a3 (0)" in second
    assert "free" in second


def test_names_of_algorithms_are_whole_in_a_narrow_terminal() -> None:
    result = summarise(OUTCOMES, REPORTS)
    names = ("random", "least-request", "lora-affinity", "lora-placement")
    text = shown(result_table(dict.fromkeys(names, result)), width=80)
    assert all(name in text for name in names)
