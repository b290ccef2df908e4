"""The numbers of the demo, and how they are shown."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lora_router.demo.load import BASE, Outcome
from lora_router.demo.plan import demo_plan
from lora_router.demo.result import summarise
from lora_router.demo.stack import PodReport
from lora_router.demo.view import live_view, result_view
from lora_router.simulator.no_value import has_value
from lora_router.simulator.percentile import percentile

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

ROUTER_ROWS = ("routers", "requests by router")
WIDTHS = [60, 72, 80, 120, 200, 100_000]
ALGORITHMS = ("random", "least-request", "lora-affinity", "lora-placement")
FULL = [
    PodReport(
        f"pod-{number}",
        running=12,
        waiting=3,
        slots={f"lora-{number * 3 + slot:02d}": slot for slot in range(3)},
        max_loras=4,
        loads=5,
        slot_waits=4,
        deferred=1,
    )
    for number in range(4)
]

TIMES = ({"p50": 50.0, "p95": 70.0, "p99": 90.0}, {"p50": 900.0, "p95": 5000.0, "p99": 8000.0})
ONE_ROUTER = demo_plan()
ROOT = Path(__file__).parents[3]


def shown(what: object, width: int) -> list[str]:
    """The lines as a terminal of this width has them."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(what)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
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
    result = summarise(OUTCOMES, REPORTS, {"router": 6})

    assert result.affinity_hit_rate == pytest.approx(1 / 3, abs=1e-4)
    assert result.ttft_ms == {"p50": 200.0, "p95": 400.0, "p99": 400.0}
    assert result.slot_waits == 4
    assert result.adapter_loads == 6
    assert result.requests_by_pod == {"pod-0": 2, "pod-1": 2}


def test_errors_are_counted_and_the_commonest_shown() -> None:
    result = summarise(OUTCOMES, REPORTS, {"router": 6})
    assert result.requests == 6
    assert result.errors == 2
    assert result.error_examples == ["2 times: status 503: none"]


def test_nothing_sent_is_no_hit_and_no_error() -> None:
    result = summarise([], REPORTS, {})
    assert result.requests == 0
    assert result.errors == 0
    for figure in (result.affinity_hit_rate, result.prefix_hit_rate, *result.ttft_ms.values()):
        assert not has_value(figure)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_live_view_has_whole_lines_at_every_width(width: int) -> None:
    summary, times, bar, heading, *pods = shown(
        live_view("lora-placement", FULL, OUTCOMES[:4], 10, width), width
    )

    assert summary == "lora-placement: 4 of 10 requests done"
    assert times == "time to first token: p50 200 ms, p99 400 ms"
    assert set(bar) <= set("━╸╺ "), "the bar has a line of its own"
    assert heading == "pod    running  waiting  slots: adapter (requests)"
    assert all(len(line) <= width for line in [bar, *pods])
    assert [line.split()[:3] for line in pods if line.startswith("pod-")] == [
        [f"pod-{number}", "12", "3"] for number in range(4)
    ]
    text = " ".join(" ".join(pods).split())
    for report in FULL:
        for adapter, running in report.slots.items():
            assert f"{adapter} ({running})" in text
            assert any(f"{adapter} ({running})" in line for line in pods), "a slot is broken"
    assert text.count("free") == 4


def test_the_live_view_has_no_times_before_the_first_answer() -> None:
    assert shown(live_view("random", FULL, [], 10, 80), 80)[1] == (
        "time to first token: no answer yet"
    )


def test_the_live_view_shows_each_pods_slots_in_one_line_where_there_is_room() -> None:
    lines = shown(live_view("random", FULL, OUTCOMES[:4], 10, 80), 80)

    assert lines[-1] == "pod-3       12        3  lora-09 (0)  lora-10 (1)  lora-11 (2)  free"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_comparison_has_whole_names_and_figures_at_every_width(width: int) -> None:
    result = summarise(OUTCOMES, REPORTS, {"router": 6})
    lines = shown(result_view(dict.fromkeys(ALGORITHMS, result), ONE_ROUTER, width), width)

    assert all(len(line) <= width for line in lines)
    assert "…" not in "".join(lines)
    words = [word for line in lines for word in line.split()]
    assert set(ALGORITHMS) <= set(words)
    assert words.count("33.3%") == len(ALGORITHMS)
    hits = [line for line in lines if line.startswith("adapter already active on its pod")]
    assert sum(line.count("33.3%") for line in hits) == len(ALGORITHMS)


def test_the_end_says_what_was_shown_what_it_means_and_what_to_do_next() -> None:
    fast, slow = (
        replace(summarise(OUTCOMES[:4], REPORTS, {"router": 4}), ttft_ms=times) for times in TIMES
    )
    *_, seen, meaning, following = shown(
        result_view({"random": slow, "lora-placement": fast}, ONE_ROUTER, 100_000), 100_000
    )

    assert seen.startswith("What you saw: 12 adapters on 4 simulated vLLM pods of 2 slots")
    assert meaning.endswith("Hence p99 90 ms with lora-placement and 8,000 ms with random.")
    assert following.startswith("What next: ")
    for command in ("lora-router serve --endpoints pods.yaml", "lora-router simulate b-zipf"):
        assert command in following
    for page in ("README.md", "docs/routing.md"):
        assert page in following
        assert (ROOT / page).exists()
    assert "## Run it" in (ROOT / "README.md").read_text()


def test_algorithms_with_errors_are_not_praised_for_their_speed() -> None:
    failed = summarise(OUTCOMES, REPORTS, {"router": 6})
    lines = shown(result_view({"random": failed, "lora-placement": failed}, ONE_ROUTER, 200), 200)

    assert not any("Hence" in line for line in lines)


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize(
    ("routers", "peering", "named", "counts"),
    [
        (1, True, "1", "553"),
        (2, True, "2, peers", "276 277"),
        (2, False, "2, not peers", "276 277"),
        (4, True, "4, peers", "138 138 138 139"),
        (16, True, "16, peers", "34 to 35"),
    ],
)
def test_the_comparison_says_how_many_routers_there_were(
    width: int, routers: int, peering: bool, named: str, counts: str
) -> None:
    by_router = {
        f"router-{each}": (553 * (each + 1)) // routers - (553 * each) // routers
        for each in range(routers)
    }
    result = summarise(OUTCOMES, REPORTS, by_router)
    plan = demo_plan(routers, peering=peering)
    lines = shown(result_view(dict.fromkeys(ALGORITHMS, result), plan, width), width)

    assert all(len(line) <= width for line in lines)
    rows = {
        label: [line for line in lines if line.startswith(label + " ")] for label in ROUTER_ROWS
    }
    for label, cell in zip(ROUTER_ROWS, (named, counts), strict=True):
        assert sum(line.count(cell) for line in rows[label]) == len(ALGORITHMS), rows


@pytest.mark.parametrize(
    ("routers", "peering", "asked", "advice"),
    [
        (1, True, "Envoy that asks lora-router for a pod", ""),
        (2, True, "Envoy that asks 2 routers that are peers, in turn,", "--no-peering"),
        (2, False, "Envoy that asks 2 routers without peering, in turn,", "--no-peering"),
    ],
)
def test_the_end_says_whom_envoy_asked_and_what_to_compare_with(
    routers: int, peering: bool, asked: str, advice: str
) -> None:
    result = summarise(OUTCOMES, REPORTS, {})
    plan = demo_plan(routers, peering=peering)
    text = "\n".join(shown(result_view({"random": result}, plan, 100_000), 100_000))

    assert asked in text
    assert ("Compare with" in text) == bool(advice)
    assert advice in text
