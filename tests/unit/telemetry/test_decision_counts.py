"""Decisions are counted as plain numbers. The page equals the one of the official client."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

from lora_router.telemetry.decision_counts import EDGES, MAX_SERIES, DecisionCounts

BUCKETS = EDGES.classic_bounds[:-1]

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
