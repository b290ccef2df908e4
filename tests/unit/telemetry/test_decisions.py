"""Decisions counted by plain numbers: the page is the one that the library would make."""

from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

from lora_router.telemetry.decisions import BUCKETS, Decisions

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
    counted = Decisions()
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


def samples(registry: CollectorRegistry) -> list[str]:
    """Return a page's samples, but for the times at which the library began to count."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#") and "_created" not in line]
