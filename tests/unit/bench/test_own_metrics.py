"""Reading the router's own metrics page."""

import pytest

from bench.own_metrics import OwnMetrics, quantile

PAGE = """# TYPE lora_router_requests_total counter
lora_router_requests_total{algorithm="random",outcome="routed",reason="random"} 7.0
lora_router_requests_total{algorithm="random",outcome="held",reason="no-slot"} 2.0
lora_router_open_streams 3.0
decision_bucket{algorithm="a",le="1.0"} 2.0
decision_bucket{algorithm="b",le="1.0"} 1.0
decision_bucket{algorithm="a",le="+Inf"} 4.0
"""


def test_samples_are_summed_over_the_labels_that_are_not_named() -> None:
    metrics = OwnMetrics(PAGE)

    assert metrics.total("lora_router_requests_total") == 9
    assert metrics.total("lora_router_requests_total", outcome="routed") == 7
    assert metrics.total("lora_router_open_streams") == 3
    assert metrics.total("no_such_metric") == 0


def test_a_histogram_is_summed_over_its_labels() -> None:
    assert OwnMetrics(PAGE).buckets("decision") == {1.0: 3.0, float("inf"): 4.0}


@pytest.mark.parametrize(("share", "expected"), [(0.25, 0.5), (0.5, 1.0), (0.75, 2.0), (1.0, 3.0)])
def test_a_quantile_is_of_what_was_counted_between_two_reads(share: float, expected: float) -> None:
    before = {1.0: 10.0, 3.0: 10.0, float("inf"): 10.0}
    after = {1.0: 14.0, 3.0: 18.0, float("inf"): 18.0}

    assert quantile(before, after, share) == expected


def test_a_quantile_beyond_the_last_bound_is_reported_as_that_bound() -> None:
    assert quantile({}, {1.0: 1.0, float("inf"): 9.0}, 0.99) == 1.0
