"""``random``, ``least-request`` and ``lora-affinity``.

Each defect of AIBrix pull request 1181, which ``lora-affinity`` starts from, is a test here.
"""

import pytest

from lora_router.cache.metrics import LoraActivity, PodMetrics
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.lora_affinity import LoraAffinity
from lora_router.routing.random_pod import RandomPod
from tests.fleet import make_cache, state_of
from tests.unit.routing.choices import BASE, NOW, in_flight, options, picks, reason, scraped


class TestRandom:
    def test_every_pod_is_picked_about_equally_often(self) -> None:
        counts = picks(RandomPod(options()), make_cache(4), times=4000)

        assert all(900 < count < 1100 for count in counts.values())
        assert len(counts) == 4


class TestLeastRequest:
    def test_the_pod_with_the_fewest_in_flight_is_picked(self) -> None:
        cache = make_cache(3)
        in_flight(cache, 1, None, 2)
        in_flight(cache, 2, "sql-lora", 1)
        in_flight(cache, 3, None, 3)

        assert picks(LeastRequest(options()), cache) == {"pod-2": 200}

    def test_ties_are_broken_at_random(self) -> None:
        cache = make_cache(3)
        in_flight(cache, 2, None)

        counts = picks(LeastRequest(options()), cache, times=1000)

        assert set(counts) == {"pod-1", "pod-3"}
        assert min(counts.values()) > 400

    def test_pods_without_metrics_take_part(self) -> None:
        cache = make_cache(2)
        scraped(cache, 1, "sql-lora")
        in_flight(cache, 1, None)

        assert picks(LeastRequest(options()), cache) == {"pod-2": 200}


class TestLoraAffinity:
    def make(self, threshold: float = 1.0) -> LoraAffinity:
        return LoraAffinity(options(lora_affinity_threshold=threshold, metrics_max_age=15.0))

    def test_a_pod_that_runs_the_adapter_is_preferred_to_one_with_room(self) -> None:
        cache = make_cache(3)
        scraped(cache, 2, "sql-lora")
        in_flight(cache, 2, "other", 5)

        assert picks(self.make(), cache) == {"pod-2": 200}
        assert reason(self.make(), cache) == "affinity"

    def test_in_the_group_the_fewest_in_flight_wins(self) -> None:
        cache = make_cache(3)
        for number in (1, 2, 3):
            scraped(cache, number, "sql-lora")
        in_flight(cache, 1, None, 2)
        in_flight(cache, 3, None, 1)

        assert picks(self.make(), cache) == {"pod-2": 200}

    def test_without_affinity_a_pod_with_a_free_slot_is_picked(self) -> None:
        cache = make_cache(2)
        scraped(cache, 1, "a", "b", max_lora=2)
        scraped(cache, 2, "a", max_lora=2)
        in_flight(cache, 2, None, 9)

        assert picks(self.make(), cache) == {"pod-2": 200}
        assert reason(self.make(), cache) == "capacity"

    def test_when_all_are_full_any_pod_is_picked(self) -> None:
        cache = make_cache(2)
        for number in (1, 2):
            scraped(cache, number, "a", "b", max_lora=2)
        in_flight(cache, 1, "a", 5)

        counts = picks(self.make(), cache, times=1000)

        assert min(counts.values()) > 400
        assert reason(self.make(), cache) == "all-full"

    def test_affinity_alone_is_taken_whatever_the_threshold(self) -> None:
        cache = make_cache(2)
        scraped(cache, 1, "sql-lora", "b", max_lora=2)
        scraped(cache, 2, "a", "b", max_lora=2)

        assert picks(self.make(threshold=0.0), cache) == {"pod-1": 200}

    @pytest.mark.parametrize(("threshold", "expected"), [(0.0, 0), (0.7, 700), (1.0, 1000)])
    def test_the_threshold_is_the_share_that_goes_where_the_adapter_is(
        self, threshold: float, expected: int
    ) -> None:
        cache = make_cache(2)
        scraped(cache, 1, "sql-lora")
        scraped(cache, 2)

        counts = picks(self.make(threshold), cache, times=1000)

        assert abs(counts.get("pod-1", 0) - expected) < 50
        if threshold == 0.0:
            assert reason(self.make(threshold), cache) == "spread"

    def test_a_base_model_needs_no_slot(self) -> None:
        cache = make_cache(2)
        for number in (1, 2):
            scraped(cache, number, "a", "b", max_lora=2)
        in_flight(cache, 1, "a")

        assert picks(self.make(), cache, BASE) == {"pod-2": 200}
        assert reason(self.make(), cache, BASE) == "base-model"

    # The defects of the pull request, mended.

    def test_adapters_in_both_labels_count_once(self) -> None:
        """Two adapters, each in both labels, leave room on three slots."""
        cache = make_cache(1)
        scraped(cache, 1, "a", "b", waiting=["a", "b"], max_lora=3)

        assert reason(self.make(), cache) == "capacity"

    def test_an_idle_pod_has_all_its_slots(self) -> None:
        """Empty labels name no adapter, so one slot is one free slot."""
        cache = make_cache(1)
        scraped(cache, 1, max_lora=1)

        assert reason(self.make(), cache) == "capacity"

    @pytest.mark.parametrize("snapshot", ["none", "no-lora", "no-max"])
    def test_what_is_unknown_is_not_full(self, snapshot: str) -> None:
        cache = make_cache(1)
        if snapshot == "no-lora":
            cache.put_metrics(state_of(cache, 1), PodMetrics(scraped_at=NOW))
        elif snapshot == "no-max":
            scraped(cache, 1, "a", "b", "c", max_lora=None)

        assert reason(self.make(), cache) == "capacity"

    def test_running_is_preferred_to_waiting_where_they_are_told_apart(self) -> None:
        cache = make_cache(2)
        scraped(cache, 1, waiting=["sql-lora"])
        scraped(cache, 2, "sql-lora", waiting=[])
        in_flight(cache, 2, "sql-lora", 9)

        assert picks(self.make(), cache) == {"pod-2": 200}

    def test_waiting_is_preferred_to_absent(self) -> None:
        cache = make_cache(2)
        scraped(cache, 1, waiting=["sql-lora"])
        scraped(cache, 2)

        assert picks(self.make(), cache) == {"pod-1": 200}

    def test_requests_in_flight_are_affinity_before_any_scrape_shows_them(self) -> None:
        cache = make_cache(3)
        in_flight(cache, 2, "sql-lora", 4)

        assert picks(self.make(), cache) == {"pod-2": 200}

    def test_adapters_in_flight_take_slots_before_any_scrape_shows_them(self) -> None:
        cache = make_cache(2)
        scraped(cache, 1, "a", max_lora=2)
        scraped(cache, 2, "a", max_lora=2)
        in_flight(cache, 1, "a")
        in_flight(cache, 1, "b")
        in_flight(cache, 2, None, 9)

        assert picks(self.make(), cache) == {"pod-2": 200}

    def test_a_snapshot_that_is_too_old_is_none(self) -> None:
        cache = make_cache(2)
        scraped(cache, 1, "sql-lora", scraped_at=NOW - 15.1)
        scraped(cache, 2)

        assert set(picks(self.make(), cache)) == {"pod-1", "pod-2"}

    def test_union_of_labels_that_differ_fills_slots(self) -> None:
        cache = make_cache(1)
        lora = LoraActivity(2, frozenset({"a"}), frozenset({"b"}), 0.0)
        cache.put_metrics(state_of(cache, 1), PodMetrics(scraped_at=NOW, lora=lora))

        assert reason(self.make(), cache) == "all-full"
