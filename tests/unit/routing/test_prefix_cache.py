"""``prefix-cache``: AIBrix's algorithm, by the examples that its description implies."""

from collections import Counter

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.routing.algorithm import InferenceRequest, Pick, Sight
from lora_router.routing.candidates import Candidates
from lora_router.routing.prefix_cache import PrefixCache
from tests.fleet import make_fleet
from tests.unit.routing.choices import NOW, in_flight, in_flight_at_a_peer, options
from tests.unit.routing.prompts import asks, has_seen

CHAT = asks(1, 2, 3, 4)


def make(**extra: str) -> PrefixCache:
    return PrefixCache(options(extra=extra))


def candidates(fleet: Fleet, request: InferenceRequest = CHAT) -> Candidates:
    return Candidates.of(fleet.serving(request.model).pods, prefixes=fleet.prefixes)


def picked(
    fleet: Fleet, request: InferenceRequest = CHAT, algorithm: PrefixCache | None = None
) -> tuple[set[str], str]:
    """Return the pods that are picked, and the reason of the last pick."""
    algorithm = algorithm or make()
    pods: Counter[str] = Counter()
    for _ in range(100):
        pick = algorithm.pick(request, candidates(fleet, request), NOW)
        assert isinstance(pick, Pick)
        pods[pick.pod.pod.name] += 1
    return set(pods), pick.reason


def test_the_pod_that_has_the_most_of_the_prompt_is_picked() -> None:
    fleet = make_fleet(4)
    has_seen(fleet, 2, 1, 2)
    has_seen(fleet, 3, 1, 2, 3)

    assert picked(fleet) == ({"pod-3"}, "prefix-match")


def test_of_pods_that_have_as_much_the_one_with_fewer_requests_is_picked() -> None:
    fleet = make_fleet(4)
    for number in (2, 3):
        has_seen(fleet, number, 1, 2)
    in_flight(fleet, 2, "sql-lora")

    assert picked(fleet) == ({"pod-3"}, "prefix-match")


def test_what_another_model_computed_is_of_no_use() -> None:
    fleet = make_fleet(2, adapters=("sql-lora", "law-lora"))
    has_seen(fleet, 1, 1, 2, 3, 4, model="law-lora")

    assert picked(fleet) == ({"pod-1", "pod-2"}, "no-match")


def test_without_a_match_the_pod_with_the_fewest_requests_is_picked() -> None:
    fleet = make_fleet(3)
    has_seen(fleet, 1, 9)
    in_flight(fleet, 1, None)
    in_flight(fleet, 2, None)

    assert picked(fleet) == ({"pod-3"}, "no-match")
    assert picked(fleet, InferenceRequest("sql-lora", "sql-lora")) == ({"pod-3"}, "no-match")


def test_a_match_with_too_many_requests_for_the_mean_is_skipped() -> None:
    fleet = make_fleet(8)
    has_seen(fleet, 1, 1, 2, 3, 4)
    in_flight(fleet, 1, None, 10)

    # The mean is 1.25 and the deviation 3.5, so 10 requests are too many at 2 deviations.
    assert picked(fleet)[1] == "match-overloaded"
    assert "pod-1" not in picked(fleet)[0]
    assert picked(fleet, algorithm=make(prefix_cache_deviation_factor="3"))[0] == {"pod-1"}


def test_in_an_imbalanced_fleet_only_the_least_loaded_pods_may_match() -> None:
    fleet = make_fleet(3)
    has_seen(fleet, 1, 1, 2, 3, 4)
    has_seen(fleet, 2, 1)
    in_flight(fleet, 1, None, 1)
    in_flight(fleet, 3, None, 17)

    assert picked(fleet) == ({"pod-2"}, "prefix-match")
    lenient = make(prefix_cache_imbalance_requests="17")
    assert picked(fleet, algorithm=lenient) == ({"pod-1"}, "prefix-match")


def test_in_an_imbalanced_fleet_without_such_a_match_the_least_loaded_pod_is_picked() -> None:
    fleet = make_fleet(3)
    has_seen(fleet, 3, 1, 2, 3, 4)
    in_flight(fleet, 1, None)
    in_flight(fleet, 3, None, 17)

    assert picked(fleet) == ({"pod-2"}, "imbalanced")


def test_the_requests_of_peers_count() -> None:
    fleet = make_fleet(2)
    has_seen(fleet, 1, 1, 2, 3, 4)
    in_flight_at_a_peer(fleet, *[(1, None)] * 17)

    assert picked(fleet) == ({"pod-2"}, "imbalanced")


def test_a_pod_beyond_the_shortlist_of_a_large_fleet_is_found_by_its_prefix() -> None:
    fleet = make_fleet(100)
    for number in range(1, 101):
        in_flight(fleet, number, None, number % 5)
    has_seen(fleet, 72, 1, 2, 3)

    assert picked(fleet) == ({"pod-72"}, "prefix-match")


def test_the_costs_of_an_explanation_put_the_candidates_in_the_same_order() -> None:
    fleet = make_fleet(4)
    has_seen(fleet, 1, 1, 2)
    has_seen(fleet, 2, 1, 2)
    has_seen(fleet, 3, 1)
    in_flight(fleet, 1, "sql-lora")
    sights = [Sight(pod.pod.name, pod.in_flight, None, "nowhere", pod) for pod in candidates(fleet)]

    costs = make().terms(CHAT, sights, candidates(fleet), NOW)

    assert [cost.excluded for cost in costs] == ["", "", "", "has nothing of the prompt"]
    sums = [sum(cost.terms.values()) for cost in costs[:3]]
    assert sums[1] < sums[0] < sums[2]
    assert picked(fleet)[0] == {"pod-2"}


def test_a_past_decision_is_explained_by_requests_alone() -> None:
    sights = [Sight("pod-1", 3, None, ""), Sight("pod-2", 1, None, "")]

    costs = make().terms(CHAT, sights, None, NOW)

    assert [cost.terms for cost in costs] == [{"requests": 3}, {"requests": 1}]


@pytest.mark.parametrize("name", PrefixCache.option_names)
@pytest.mark.parametrize("text", ["-1", "many", "", "nan", "inf"])
def test_an_invalid_option_is_named_with_the_allowed_values(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}={text}: must be a number from 0 to 1000000"):
        make(**{name: text})


def test_the_same_seed_picks_the_same_pods() -> None:
    fleet = make_fleet(50)
    has_seen(fleet, 1, 1)

    def names() -> list[str]:
        algorithm = make()
        pods = [algorithm.pick(CHAT, candidates(fleet), NOW).pod for _ in range(20)]
        return [pod.pod.name for pod in pods]

    assert names() == names()
