"""``four-tier``: llm-d's LoRA affinity scorer with a load score."""

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.routing.four_tier import FourTier
from tests.fleet import make_fleet, state_of
from tests.unit.routing.choices import BASE, NOW, SQL, in_flight, options, picks, reason, scraped


def make() -> FourTier:
    return FourTier(options(metrics_max_age=15.0))


def scrape_tier(fleet: Fleet, number: int, tier: str) -> None:
    """Give a pod a snapshot that puts it into a tier for sql-lora."""
    match tier:
        case "active":
            scraped(fleet, number, "sql-lora", "b", max_lora=2)
        case "capacity":
            scraped(fleet, number, "a", max_lora=2)
        case "waiting":
            scraped(fleet, number, "a", "b", waiting=["sql-lora"], max_lora=2)
        case "none":
            scraped(fleet, number, "a", "b", max_lora=2)


@pytest.mark.parametrize("tier", ["active", "capacity", "waiting", "none"])
def test_the_tier_is_the_reason(tier: str) -> None:
    fleet = make_fleet(1)
    scrape_tier(fleet, 1, tier)

    assert reason(make(), fleet) == tier


@pytest.mark.parametrize(
    ("better", "worse"), [("active", "capacity"), ("capacity", "waiting"), ("waiting", "none")]
)
def test_of_equally_loaded_pods_the_better_tier_is_picked(better: str, worse: str) -> None:
    fleet = make_fleet(2)
    scrape_tier(fleet, 1, worse)
    scrape_tier(fleet, 2, better)

    assert picks(make(), fleet) == {"pod-2": 200}


def test_load_outweighs_a_small_difference_in_tier() -> None:
    """1.0 + 0 against 0.8 + 1."""
    fleet = make_fleet(2)
    scrape_tier(fleet, 1, "active")
    scrape_tier(fleet, 2, "capacity")
    in_flight(fleet, 1, None)

    assert picks(make(), fleet) == {"pod-2": 200}
    assert reason(make(), fleet) == "capacity"


def test_a_little_more_load_does_not_outweigh_the_tier() -> None:
    """1.0 + 0.9 against 0.8 + 1 against 0.8 + 0."""
    fleet = make_fleet(3)
    scrape_tier(fleet, 1, "active")
    scrape_tier(fleet, 2, "capacity")
    scrape_tier(fleet, 3, "capacity")
    in_flight(fleet, 1, None, 1)
    in_flight(fleet, 3, None, 10)

    assert picks(make(), fleet) == {"pod-1": 200}


def test_ties_are_broken_at_random() -> None:
    """1.0 + 0 against 0.0 + 1 among others: the sums are equal."""
    fleet = make_fleet(2)
    scrape_tier(fleet, 1, "active")
    scrape_tier(fleet, 2, "none")
    in_flight(fleet, 1, None)

    assert min(picks(make(), fleet, times=1000).values()) > 400


def test_an_adapter_in_both_labels_takes_one_slot() -> None:
    fleet = make_fleet(1)
    scraped(fleet, 1, "a", "b", waiting=["a", "b"], max_lora=3)

    assert reason(make(), fleet) == "capacity"


def test_room_comes_before_waiting() -> None:
    fleet = make_fleet(1)
    scraped(fleet, 1, "a", waiting=["sql-lora"], max_lora=3)

    assert reason(make(), fleet) == "capacity"


@pytest.mark.parametrize("snapshot", ["none", "no-lora", "no-max", "stale"])
def test_what_is_unknown_is_not_full(snapshot: str) -> None:
    fleet = make_fleet(1)
    match snapshot:
        case "no-lora":
            fleet.put_metrics(state_of(fleet, 1), PodMetrics(scraped_at=NOW))
        case "no-max":
            scraped(fleet, 1, "a", "b", max_lora=None)
        case "stale":
            scraped(fleet, 1, "a", "b", max_lora=2, scraped_at=NOW - 15.1)

    assert reason(make(), fleet) == "capacity"


def test_without_metrics_the_least_loaded_pod_is_picked() -> None:
    fleet = make_fleet(3)
    in_flight(fleet, 1, "sql-lora")
    in_flight(fleet, 3, None)

    assert picks(make(), fleet, SQL) == {"pod-2": 200}
    assert picks(make(), fleet, BASE) == {"pod-2": 200}


def test_an_adapter_in_flight_is_active_only_when_a_scrape_lists_it() -> None:
    fleet = make_fleet(1)
    scraped(fleet, 1, max_lora=2)
    in_flight(fleet, 1, "sql-lora")

    assert reason(make(), fleet) == "capacity"


def test_a_base_model_prefers_pods_with_room() -> None:
    fleet = make_fleet(2)
    scrape_tier(fleet, 1, "none")
    scrape_tier(fleet, 2, "capacity")

    assert picks(make(), fleet, BASE) == {"pod-2": 200}
