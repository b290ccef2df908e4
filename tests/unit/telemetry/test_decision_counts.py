"""Decisions are counted as plain numbers. The page equals the one of the official client."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

from lora_router.extproc.errors import overloaded_answer, refusal_answer
from lora_router.routing.refusal import Refusal, Refused
from lora_router.telemetry.decision_counts import EDGES, MAX_SERIES, DecisionCounts

BUCKETS = EDGES.classic_bounds[:-1]
CHOSEN = (Refusal.NONE_SELECTED, Refusal.SHUTTING_DOWN)
"""Refusals with status 503 that somebody asked for: by a filter, or by stopping the router."""

DECISIONS = st.tuples(
    st.sampled_from(["lora-placement", "random"]),
    st.sampled_from(["routed", "refused"]),
    st.sampled_from(["joined", "placed"]),
    st.floats(0, 1) | st.sampled_from(BUCKETS),
)


@given(st.lists(DECISIONS))
@example([("random", "routed", "random", BUCKETS[3])])
@example([("random", "routed", "random", 7.0)])
def test_the_page_is_the_librarys(decisions: list[tuple[str, str, str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counted = DecisionCounts()
    ours.register(counted)
    labels = ["algorithm", "outcome", "reason"]
    requests = Counter("lora_router_requests", "Requests.", labels, registry=theirs)
    name = "lora_router_decision_seconds"
    seconds = Histogram(name, "Time.", ["algorithm"], buckets=BUCKETS, registry=theirs)

    for algorithm, outcome, reason, taken in decisions:
        counted.decided(algorithm, outcome, reason, taken)
        requests.labels(algorithm, outcome, reason).inc()
        if outcome == "routed":
            seconds.labels(algorithm).observe(taken)

    assert samples(ours) == samples(theirs)


def test_the_usual_series_exist_before_their_first_request() -> None:
    """Otherwise a burst that is refused between two reads of the page is no increase."""
    decisions = DecisionCounts()

    decisions.expect("random")

    requests = [line for line in page(decisions) if line.startswith("lora_router_requests_total{")]
    assert all(line.endswith(" 0.0") for line in requests)
    for refusal in Refusal:
        series = f'algorithm="random",outcome="refused",reason="{refusal.value}"}} 0.0'
        answer = refusal_answer(Refused(refusal))
        of_the_fleet = answer.status in {429, 503} and refusal not in CHOSEN
        assert any(series in line for line in requests) == of_the_fleet, refusal
    overloaded = overloaded_answer().code.replace("_", "-")
    assert any(f'"none",outcome="refused",reason="{overloaded}"' in each for each in requests)
    assert any('"random",outcome="routed"' in each for each in requests)
    assert 'lora_router_decision_seconds_count{algorithm="random"} 0.0' in page(decisions)


def test_a_request_counts_in_the_series_that_exists_already() -> None:
    decisions = DecisionCounts()
    decisions.expect("random")
    before = len(page(decisions))

    decisions.decided("random", "refused", "too-many-held", 0.0)

    series = 'algorithm="random",outcome="refused",reason="too-many-held"'
    assert f"lora_router_requests_total{{{series}}} 1.0" in page(decisions)
    assert len(page(decisions)) == before


class UnfriendlyError(Exception):
    """Neither hashable nor printable."""

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("reason", "label"),
    [
        (None, "None"),
        (7, "7"),
        (["a"], "['a']"),
        (b"x", "b'x'"),
        (UnfriendlyError(), "unprintable"),
        ("\ud800", "?"),
        ('a"\n', r"a\"\n"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_a_reason_that_is_no_label_is_made_one(reason: Any, label: str) -> None:
    decisions = DecisionCounts()
    for _ in range(3):
        decisions.decided("plugin", "routed", reason, 1e-5)

    assert (
        f'lora_router_requests_total{{algorithm="plugin",outcome="routed",reason="{label}"}} 3.0'
        in page(decisions)
    )
    assert 'lora_router_decision_seconds_count{algorithm="plugin"} 3.0' in page(decisions)


def test_an_endless_variety_of_reasons_is_counted_as_other() -> None:
    decisions = DecisionCounts()
    for number in range(10_000):
        decisions.decided("plugin", "routed", f"reason {number}", 1e-5)
    decisions.decided("random", "refused", "bad-body", 0.0)

    series = [line for line in page(decisions) if line.startswith("lora_router_requests_total{")]
    assert len(series) == MAX_SERIES + 2
    other = 'lora_router_requests_total{algorithm="plugin",outcome="routed",reason="other"} '
    assert f"{other}{10_000 - MAX_SERIES}.0" in series
    assert sum(float(line.rsplit(" ", 1)[1]) for line in series) == 10_001


@pytest.mark.slow
def test_an_endless_variety_of_algorithms_is_counted_as_other() -> None:
    decisions = DecisionCounts()
    for number in range(10_000):
        decisions.decided(f"algorithm {number}", "routed", "x", 1e-5)

    lines = page(decisions)
    assert len(lines) < 10_000
    requests = [line for line in lines if line.startswith("lora_router_requests_total{")]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in requests) == 10_000


def page(decisions: DecisionCounts) -> list[str]:
    registry = CollectorRegistry()
    registry.register(decisions)
    return generate_latest(registry).decode().splitlines()


def samples(registry: CollectorRegistry) -> list[str]:
    """Return a page's samples without the times at which the library started to count."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#") and "_created" not in line]
