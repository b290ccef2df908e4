"""``lora-residency``: the proposal of llm-d-router#2792 with a load score."""

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_metrics import LoraActivity, LoraResidency, PodMetrics
from lora_router.routing.lora_residency import LoraResidencyScore
from tests.fleet import make_fleet, state_of
from tests.unit.routing.choices import BASE, NOW, SQL, in_flight, options, picks, reason, scraped


def make() -> LoraResidencyScore:
    return LoraResidencyScore(options(metrics_max_age=15.0))


def resident(
    fleet: Fleet,
    number: int,
    *gpu: str,
    cpu: tuple[str, ...] = (),
    active: tuple[str, ...] | None = (),
    slots: int | None = 2,
    scraped_at: float = NOW - 1.0,
) -> None:
    """Give a pod a snapshot of what it has loaded.

    ``active=None``: it does not report what is active.
    """
    names = frozenset(active or ())
    metrics = PodMetrics(
        scraped_at=scraped_at,
        lora=LoraActivity(slots, names, names, 0.0) if active is not None else None,
        residency=LoraResidency(frozenset(gpu), frozenset(cpu), slots),
    )
    fleet.put_metrics(state_of(fleet, number), metrics)


def resident_tier(fleet: Fleet, number: int, tier: str) -> None:
    """Give a pod a snapshot that puts it into a tier for sql-lora."""
    match tier:
        case "gpu":
            resident(fleet, number, "sql-lora", "b")
        case "cpu":
            resident(fleet, number, "a", "b", cpu=("sql-lora",), active=("a", "b"))
        case "free-slot":
            resident(fleet, number, "a", active=("a",))
        case "evictable":
            resident(fleet, number, "a", "b", active=("a",))
        case "saturated":
            resident(fleet, number, "a", "b", active=("a", "b"))


@pytest.mark.parametrize("tier", ["gpu", "cpu", "free-slot", "evictable", "saturated"])
def test_the_tier_is_the_reason(tier: str) -> None:
    fleet = make_fleet(1)
    resident_tier(fleet, 1, tier)

    assert reason(make(), fleet) == tier


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("gpu", "cpu"),
        ("cpu", "free-slot"),
        ("free-slot", "evictable"),
        ("evictable", "saturated"),
    ],
)
def test_of_equally_loaded_pods_the_better_tier_is_picked(better: str, worse: str) -> None:
    fleet = make_fleet(2)
    resident_tier(fleet, 1, worse)
    resident_tier(fleet, 2, better)

    assert picks(make(), fleet) == {"pod-2": 200}


def test_an_idle_adapter_on_the_gpu_is_worth_as_much_as_an_active_one() -> None:
    fleet = make_fleet(2)
    resident(fleet, 1, "sql-lora", active=())
    resident(fleet, 2, "sql-lora", active=("sql-lora",))

    assert min(picks(make(), fleet, times=1000).values()) > 400


def test_load_outweighs_a_small_difference_in_tier() -> None:
    """1.0 + 0 against 0.6 + 1."""
    fleet = make_fleet(2)
    resident_tier(fleet, 1, "gpu")
    resident_tier(fleet, 2, "free-slot")
    in_flight(fleet, 1, None)

    assert picks(make(), fleet) == {"pod-2": 200}
    assert reason(make(), fleet) == "free-slot"


class TestWithoutResidency:
    """The snapshots of vLLM 0.32.0."""

    def test_what_is_active_is_on_the_gpu(self) -> None:
        fleet = make_fleet(2)
        scraped(fleet, 1, "sql-lora", max_lora=2)
        scraped(fleet, 2, max_lora=2)

        assert picks(make(), fleet) == {"pod-1": 200}
        assert reason(make(), fleet) == "gpu"

    def test_fewer_active_than_slots_is_a_free_slot(self) -> None:
        fleet = make_fleet(1)
        scraped(fleet, 1, "a", max_lora=2)

        assert reason(make(), fleet) == "free-slot"

    def test_all_slots_active_is_saturated_and_never_evictable(self) -> None:
        fleet = make_fleet(1)
        scraped(fleet, 1, "a", "b", max_lora=2)

        assert reason(make(), fleet) == "saturated"

    @pytest.mark.parametrize("snapshot", ["none", "no-lora", "no-max", "stale", "stale-residency"])
    def test_what_is_unknown_is_not_full(self, snapshot: str) -> None:
        fleet = make_fleet(1)
        match snapshot:
            case "no-lora":
                fleet.put_metrics(state_of(fleet, 1), PodMetrics(scraped_at=NOW))
            case "no-max":
                scraped(fleet, 1, "a", "b", max_lora=None)
            case "stale":
                scraped(fleet, 1, "a", "b", max_lora=2, scraped_at=NOW - 15.1)
            case "stale-residency":
                resident(fleet, 1, "a", "b", active=("a", "b"), scraped_at=NOW - 15.1)

        assert reason(make(), fleet) == "free-slot"

    def test_without_metrics_the_least_loaded_pod_is_picked(self) -> None:
        fleet = make_fleet(3)
        in_flight(fleet, 1, "sql-lora")
        in_flight(fleet, 3, None)

        assert picks(make(), fleet, SQL) == {"pod-2": 200}
        assert picks(make(), fleet, BASE) == {"pod-2": 200}


class TestHalfOfTheMetrics:
    def test_a_server_that_does_not_report_what_is_active_has_idle_adapters(self) -> None:
        fleet = make_fleet(1)
        resident(fleet, 1, "a", "b", active=None)

        assert reason(make(), fleet) == "evictable"

    def test_slots_are_known_from_the_older_metric_too(self) -> None:
        fleet = make_fleet(1)
        busy = frozenset({"a"})
        metrics = PodMetrics(
            scraped_at=NOW,
            lora=LoraActivity(1, busy, busy, 0.0),
            residency=LoraResidency(busy, frozenset(), None),
        )
        fleet.put_metrics(state_of(fleet, 1), metrics)

        assert reason(make(), fleet) == "saturated"


class TestBaseModel:
    def test_it_keeps_off_pods_that_are_busy_with_adapters(self) -> None:
        fleet = make_fleet(2)
        resident(fleet, 1, "a", "b", active=("a",))
        resident(fleet, 2, "a", "b", active=())

        assert picks(make(), fleet, BASE) == {"pod-2": 200}
        assert reason(make(), fleet, BASE) == "base-model"

    def test_more_adapters_than_slots_are_no_worse_than_as_many(self) -> None:
        fleet = make_fleet(2)
        scraped(fleet, 1, "a", "b", "c", max_lora=2)
        scraped(fleet, 2, "a", "b", max_lora=2)

        assert min(picks(make(), fleet, BASE, times=1000).values()) > 400
