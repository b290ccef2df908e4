"""``power-of-two``."""

import pytest

from lora_router.routing.algorithm import InferenceRequest
from lora_router.routing.power_of_two import PowerOfTwo
from tests.fleet import make_fleet
from tests.unit.routing.choices import BASE, NOW, SQL, in_flight, options, picks, reason, scraped


def test_the_most_loaded_pod_is_never_picked_and_the_least_loaded_most_often() -> None:
    fleet = make_fleet(4)
    for number in (1, 2, 3, 4):
        in_flight(fleet, number, None, number)

    counts = picks(PowerOfTwo(options()), fleet, times=6000)

    # Of the six pairs, pod 1 wins three, pod 2 two, pod 3 one.
    assert set(counts) == {"pod-1", "pod-2", "pod-3"}
    assert abs(counts["pod-1"] - 3000) < 200
    assert abs(counts["pod-2"] - 2000) < 200
    assert reason(PowerOfTwo(options()), fleet) == "power-of-two"


def test_equal_pods_are_picked_equally_often() -> None:
    counts = picks(PowerOfTwo(options()), make_fleet(4), times=4000)

    assert len(counts) == 4
    assert all(900 < count < 1100 for count in counts.values())


@pytest.mark.parametrize("request_", [SQL, BASE], ids=["adapter", "base"])
def test_one_pod_alone_is_picked(request_: InferenceRequest) -> None:
    fleet = make_fleet(1)

    assert picks(PowerOfTwo(options()), fleet, request_) == {"pod-1": 200}
    assert reason(PowerOfTwo(options()), fleet, request_) == "only-pod"


@pytest.mark.parametrize("age", [0.0, 1e6])
def test_adapters_and_metrics_do_not_matter(age: float) -> None:
    fleet = make_fleet(2)
    scraped(fleet, 1, "sql-lora", scraped_at=NOW - age)
    in_flight(fleet, 1, "sql-lora")

    assert picks(PowerOfTwo(options()), fleet) == {"pod-2": 200}
    assert picks(PowerOfTwo(options()), fleet, BASE) == {"pod-2": 200}
