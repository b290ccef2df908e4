"""``weighted-scores``: llm-d's scorers, profiles and pickers."""

from collections import Counter
from dataclasses import replace

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.routing.algorithm import InferenceRequest, Sight
from lora_router.routing.candidates import Candidates
from lora_router.routing.pod_scores import (
    SCORERS,
    Seen,
    adapter_scores,
    kv_scores,
    prefix_scores,
    queue_scores,
    request_scores,
)
from lora_router.routing.weighted_scores import WeightedScores, read_profile, weighted_random
from tests.fleet import make_fleet, make_metrics, state_of
from tests.unit.routing.choices import NOW, SQL, in_flight, options
from tests.unit.routing.prompts import asks, has_seen

CHAT = asks(1, 2, 3, 4)


def make(profile: str | None = None, picker: str | None = None) -> WeightedScores:
    written = {"weighted_scores": profile, "weighted_scores_picker": picker}
    extra = {name: text for name, text in written.items() if text is not None}
    return WeightedScores(options(extra=extra))


def candidates(fleet: Fleet, request: InferenceRequest = CHAT) -> Candidates:
    return Candidates.of(fleet.serving(request.model).pods, prefixes=fleet.prefixes)


def seen(fleet: Fleet, request: InferenceRequest = CHAT) -> Seen:
    pods = candidates(fleet, request)
    metrics = [pod.fresh_metrics(NOW, 15.0) for pod in pods]
    return Seen(request, pods, metrics, pods.cached(request.model, request.prompt))


def show(fleet: Fleet, number: int, *running: str, **changes: object) -> None:
    """Give a pod a snapshot."""
    lora = make_metrics(running, scraped_at=NOW - 1.0)
    fleet.put_metrics(state_of(fleet, number), replace(lora, **changes))  # type: ignore[arg-type]


def picked(fleet: Fleet, algorithm: WeightedScores, request: InferenceRequest = CHAT) -> set[str]:
    pods: Counter[str] = Counter()
    for _ in range(200):
        pods[algorithm.pick(request, candidates(fleet, request), NOW).pod.pod.name] += 1
    return set(pods)


class TestScores:
    def test_the_prefix_score_is_the_share_of_the_prompt_that_the_pod_has(self) -> None:
        fleet = make_fleet(3)
        has_seen(fleet, 1, 1)
        has_seen(fleet, 2, 1, 2, 3, 4, 5)

        assert prefix_scores(seen(fleet)) == [0.25, 1.0, 0.0]
        assert prefix_scores(seen(fleet, SQL)) == [0.0, 0.0, 0.0]

    def test_the_adapter_score_has_four_tiers_that_count_both_labels(self) -> None:
        fleet = make_fleet(5)
        show(fleet, 1, "sql-lora", "a", "b", "c")
        show(fleet, 2, "a")
        show(fleet, 3, "a", "b")  # vLLM writes both into both labels: 4 of 4 slots.
        waiting = make_metrics(["a", "b"], ["c", "sql-lora"], scraped_at=NOW)
        fleet.put_metrics(state_of(fleet, 4), waiting)

        assert adapter_scores(seen(fleet)) == [1.0, 0.8, 0.0, 0.6, 0.0]

    def test_the_queue_score_is_linear_between_the_longest_and_the_shortest(self) -> None:
        fleet = make_fleet(3)
        for number, waiting in ((1, 8.0), (2, 2.0), (3, 0.0)):
            show(fleet, number, waiting=waiting)

        assert queue_scores(seen(fleet)) == [0.0, 0.75, 1.0]

    def test_queues_of_the_same_length_score_one_and_a_pod_without_metrics_has_none(self) -> None:
        fleet = make_fleet(2)
        show(fleet, 1, waiting=0.0)

        assert queue_scores(seen(fleet)) == [1.0, 1.0]

    def test_the_kv_score_is_the_share_that_is_free(self) -> None:
        fleet = make_fleet(2)
        show(fleet, 1, kv_cache_usage=0.75)

        assert kv_scores(seen(fleet)) == [0.25, 1.0]

    def test_the_request_score_is_relative_to_the_busiest_pod(self) -> None:
        fleet = make_fleet(3)
        in_flight(fleet, 1, None, 4)
        in_flight(fleet, 2, None, 1)

        assert request_scores(seen(fleet)) == [0.0, 0.75, 1.0]

    def test_all_scores_are_between_zero_and_one(self) -> None:
        fleet = make_fleet(4)
        for number in range(1, 5):
            in_flight(fleet, number, "sql-lora", number)
            has_seen(fleet, number, *range(1, number + 3))
            show(fleet, number, waiting=float(number), kv_cache_usage=0.25 * number)

        for scorer in SCORERS.values():
            assert all(0.0 <= score <= 1.0 for score in scorer(seen(fleet)))


class TestProfiles:
    def test_by_default_a_cached_prompt_outweighs_an_active_adapter_and_a_short_queue(
        self,
    ) -> None:
        fleet = make_fleet(2)
        show(fleet, 1, waiting=1.0)
        show(fleet, 2, "sql-lora", waiting=0.0)

        assert picked(fleet, make()) == {"pod-2"}

        has_seen(fleet, 1, 1, 2, 3, 4)  # 3 + 0.8 + 0 against 0 + 1 + 2.
        assert picked(fleet, make()) == {"pod-1"}
        assert make().pick(CHAT, candidates(fleet), NOW).reason == "prefix"

    def test_the_weights_are_options(self) -> None:
        fleet = make_fleet(2)
        has_seen(fleet, 1, 1, 2, 3, 4)
        show(fleet, 1, waiting=1.0)
        show(fleet, 2, waiting=0.0)

        assert picked(fleet, make("prefix:1 queue:2")) == {"pod-2"}
        assert picked(fleet, make("prefix:2 queue:1")) == {"pod-1"}

    def test_ties_are_broken_at_random(self) -> None:
        assert picked(make_fleet(3), make()) == {"pod-1", "pod-2", "pod-3"}

    @pytest.mark.parametrize(
        "text", ["", "prefix", "prefix:", "prefix:x", "prefix:-1", "cache:1", "kv:1 kv:2", "kv:nan"]
    )
    def test_an_invalid_profile_is_named_with_the_allowed_names(self, text: str) -> None:
        with pytest.raises(ValueError, match=f"^weighted_scores={text}: "):
            make(text)

    def test_a_weight_of_zero_leaves_a_score_out_but_not_all(self) -> None:
        assert read_profile("prefix:3 queue:0") == {"prefix": 3.0}
        with pytest.raises(ValueError, match="at least one weight must be above 0"):
            read_profile("prefix:0")


class TestPickers:
    def test_weighted_random_picks_in_proportion_to_the_sums(self) -> None:
        rng = options().rng
        counts = Counter(weighted_random([3.0, 1.0, 0.0], rng) for _ in range(4000))

        assert counts[2] == 0
        assert counts[0] == pytest.approx(3000, abs=150)

    def test_weighted_random_picks_any_pod_if_no_score_is_above_zero(self) -> None:
        rng = options().rng

        assert {weighted_random([0.0, 0.0], rng) for _ in range(100)} == {0, 1}

    def test_the_picker_is_an_option(self) -> None:
        fleet = make_fleet(2)
        has_seen(fleet, 1, 1, 2, 3)

        assert picked(fleet, make()) == {"pod-1"}
        assert picked(fleet, make(picker="weighted-random")) == {"pod-1", "pod-2"}
        with pytest.raises(ValueError, match="_picker=best: must be max-score or weighted-random"):
            make(picker="best")


class TestExplanations:
    def test_the_costs_are_the_weighted_scores(self) -> None:
        fleet = make_fleet(2)
        has_seen(fleet, 1, 1, 2)
        pods = candidates(fleet)
        sights = [Sight(pod.pod.name, 0, None, "", pod) for pod in pods]

        costs = make("prefix:4 requests:2").terms(CHAT, sights, pods, NOW)

        assert [cost.terms for cost in costs] == [
            {"prefix-score": -2.0, "requests-score": -2.0},
            {"prefix-score": 0.0, "requests-score": -2.0},
        ]

    def test_a_past_decision_has_no_terms(self) -> None:
        costs = make().terms(CHAT, [Sight("pod-1", 3, None, "")], None, NOW)

        assert [cost.terms for cost in costs] == [{}]


def test_a_pod_beyond_the_shortlist_of_a_large_fleet_is_found_by_its_prefix() -> None:
    fleet = make_fleet(100)
    for number in range(1, 101):
        in_flight(fleet, number, None, 2 if number == 70 else 1)
    has_seen(fleet, 70, 1, 2, 3)

    assert picked(fleet, make()) == {"pod-70"}
