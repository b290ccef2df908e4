"""``shuffle-shard``."""

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.routing.algorithm import InferenceRequest
from lora_router.routing.candidates import Candidates
from lora_router.routing.rendezvous import rendezvous_order
from lora_router.routing.shuffle_shard import ShuffleShard
from tests.fleet import make_fleet
from tests.unit.routing.choices import BASE, NOW, SQL, in_flight, options, picks, reason, scraped

ADAPTERS = [f"adapter-{number}" for number in range(800)]


def make(k: str | None = None) -> ShuffleShard:
    return ShuffleShard(options(extra={} if k is None else {"shuffle_shard_k": k}))


def shard(fleet: Fleet, size: int = 2) -> list[str]:
    pods = rendezvous_order(SQL.model, fleet.serving(SQL.model).pods, size)
    return [pod.pod.name for pod in pods]


def number_of(name: str) -> int:
    return int(name.removeprefix("pod-"))


def test_an_adapter_stays_on_two_pods_regardless_of_the_load_elsewhere() -> None:
    fleet = make_fleet(8)
    for name in shard(fleet):
        in_flight(fleet, number_of(name), "other", 9)

    counts = picks(make(), fleet, times=1000)

    assert set(counts) == set(shard(fleet))
    assert min(counts.values()) > 400
    assert reason(make(), fleet) == "shard"


def test_of_its_pods_the_one_with_fewer_in_flight_is_picked() -> None:
    fleet = make_fleet(8)
    first, second = shard(fleet)
    in_flight(fleet, number_of(first), None)

    assert picks(make(), fleet) == {second: 200}


@pytest.mark.parametrize("k", [1, 3, 8])
def test_how_many_pods_is_an_option(k: int) -> None:
    fleet = make_fleet(8)

    assert set(picks(make(str(k)), fleet, times=500)) == set(shard(fleet, k))


@pytest.mark.parametrize("k", ["0", "-1", "two", "", "1.5"])
def test_an_invalid_option_is_named_with_the_allowed_values(k: str) -> None:
    with pytest.raises(ValueError, match=f"^shuffle_shard_k={k}: must be a whole number, at least"):
        make(k)


def test_fewer_pods_than_the_option_asks_for_are_all_used() -> None:
    assert set(picks(make("5"), make_fleet(2))) == {"pod-1", "pod-2"}
    assert picks(make("5"), make_fleet(1)) == {"pod-1": 200}


def test_a_base_model_goes_where_the_fewest_are_in_flight() -> None:
    fleet = make_fleet(4)
    for number in (1, 2, 4):
        in_flight(fleet, number, None)

    assert picks(make(), fleet, BASE) == {"pod-3": 200}
    assert reason(make(), fleet, BASE) == "base-model"


@pytest.mark.parametrize("age", [0.0, 1e6])
def test_metrics_change_nothing(age: float) -> None:
    fleet = make_fleet(4)
    expected = set(shard(fleet))
    for number in range(1, 5):
        scraped(fleet, number, "a", "b", max_lora=2, scraped_at=NOW - age)

    assert set(picks(make(), fleet)) == expected


def test_when_one_of_eight_pods_leaves_only_its_adapters_move() -> None:
    fleet = make_fleet(8, adapters=ADAPTERS)
    algorithm = make("1")

    def homes() -> dict[str, str]:
        found = {}
        for name in ADAPTERS:
            pods = Candidates.of(fleet.serving(name).pods)
            found[name] = algorithm.pick(InferenceRequest(name, name), pods, NOW).pod.pod.name
        return found

    before = homes()
    fleet.remove("pod-3")
    after = homes()

    moved = [name for name in ADAPTERS if before[name] != after[name]]
    assert {before[name] for name in moved} == {"pod-3"}
    assert 0 < len(moved) <= 1.3 * len(ADAPTERS) / 8
