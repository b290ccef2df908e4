"""What a HorizontalPodAutoscaler asks for."""

from dataclasses import replace

from lora_router.simulator.pod_autoscaler import AutoscalerOptions, PodAutoscaler

OPTIONS = AutoscalerOptions(min_pods=2, max_pods=20, slots_per_pod=3.0, down_window_seconds=300.0)


def pods(current: int, wanted: float, *, tolerance: float = 0.1) -> int:
    """Return what an autoscaler without a past asks for."""
    return PodAutoscaler(replace(OPTIONS, tolerance=tolerance)).pods(0.0, current, wanted)


def test_the_metric_divided_by_the_target_is_the_number_of_pods() -> None:
    assert pods(2, 12.0) == 4
    assert pods(2, 13.0) == 5
    assert pods(8, 12.0) == 4


def test_within_the_tolerance_the_number_stays() -> None:
    assert pods(4, 13.0) == 4
    assert pods(4, 13.3) == 5
    assert pods(4, 13.3, tolerance=0.2) == 4


def test_the_limits_hold() -> None:
    assert pods(2, 0.0) == 2
    assert pods(16, 100.0) == 20


def test_growth_is_limited_to_four_pods_or_the_double_in_a_period() -> None:
    scaler = PodAutoscaler(OPTIONS)
    assert scaler.pods(0.0, 2, 60.0) == 6
    assert scaler.pods(5.0, 6, 60.0) == 6
    assert scaler.pods(15.0, 6, 60.0) == 12
    assert scaler.pods(30.0, 12, 60.0) == 20


def test_it_shrinks_to_the_most_that_was_asked_for_within_the_window() -> None:
    scaler = PodAutoscaler(OPTIONS)
    assert scaler.pods(0.0, 8, 24.0) == 8
    assert scaler.pods(100.0, 8, 15.0) == 8
    assert scaler.pods(299.0, 8, 6.0) == 8
    assert scaler.pods(301.0, 8, 6.0) == 5
    assert scaler.pods(401.0, 5, 6.0) == 2


def test_a_window_for_growth_waits_for_a_lasting_need() -> None:
    scaler = PodAutoscaler(replace(OPTIONS, up_window_seconds=60.0))
    assert scaler.pods(0.0, 4, 12.0) == 4
    assert scaler.pods(30.0, 4, 24.0) == 4
    assert scaler.pods(61.0, 4, 24.0) == 8


def test_the_target_that_asks_for_more_pods_counts() -> None:
    options = replace(OPTIONS, requests_per_pod=50.0)
    assert PodAutoscaler(options).pods(0.0, 4, wanted_slots=6.0, requests=350.0) == 7
    assert PodAutoscaler(options).pods(0.0, 4, wanted_slots=24.0, requests=350.0) == 8
