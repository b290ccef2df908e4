"""``random``, ``least-request`` and ``lora-affinity``.

Each defect of AIBrix pull request 1181, on which ``lora-affinity`` is based, has a test here.
"""

import pytest

from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.lora_affinity import LoraAffinity
from lora_router.routing.random import RandomPod
from tests.fleet import make_fleet, state_of
from tests.unit.routing.choices import (
    BASE,
    NOW,
    in_flight,
    in_flight_at_a_peer,
    options,
    picks,
    reason,
    scraped,
)


class TestRandom:
    def test_every_pod_is_picked_about_equally_often(self) -> None:
        counts = picks(RandomPod(options()), make_fleet(4), times=4000)

        assert all(900 < count < 1100 for count in counts.values())
        assert len(counts) == 4


class TestLeastRequest:
    def test_the_pod_with_the_fewest_in_flight_is_picked(self) -> None:
        fleet = make_fleet(3)
        in_flight(fleet, 1, None, 2)
        in_flight(fleet, 2, "sql-lora", 1)
        in_flight(fleet, 3, None, 3)

        assert picks(LeastRequest(options()), fleet) == {"pod-2": 200}

    def test_ties_are_broken_at_random(self) -> None:
        fleet = make_fleet(3)
        in_flight(fleet, 2, None)

        counts = picks(LeastRequest(options()), fleet, times=1000)

        assert set(counts) == {"pod-1", "pod-3"}
        assert min(counts.values()) > 400

    def test_pods_without_metrics_take_part(self) -> None:
        fleet = make_fleet(2)
        scraped(fleet, 1, "sql-lora")
        in_flight(fleet, 1, None)

        assert picks(LeastRequest(options()), fleet) == {"pod-2": 200}

    def test_the_requests_of_peers_count(self) -> None:
        fleet = make_fleet(2)
        in_flight(fleet, 2, None)
        in_flight_at_a_peer(fleet, (1, None), (1, "sql-lora"))

        assert picks(LeastRequest(options()), fleet) == {"pod-2": 200}


class TestLoraAffinity:
    def make(self, threshold: float = 1.0) -> LoraAffinity:
        return LoraAffinity(options(lora_affinity_threshold=threshold, metrics_max_age=15.0))

    def test_a_pod_that_runs_the_adapter_is_preferred_to_one_with_room(self) -> None:
        fleet = make_fleet(3)
        scraped(fleet, 2, "sql-lora")
        in_flight(fleet, 2, "other", 5)

        assert picks(self.make(), fleet) == {"pod-2": 200}
        assert reason(self.make(), fleet) == "affinity"

    def test_in_the_group_the_fewest_in_flight_wins(self) -> None:
        fleet = make_fleet(3)
        for number in (1, 2, 3):
            scraped(fleet, number, "sql-lora")
        in_flight(fleet, 1, None, 2)
        in_flight(fleet, 3, None, 1)

        assert picks(self.make(), fleet) == {"pod-2": 200}

    def test_without_affinity_a_pod_with_a_free_slot_is_picked(self) -> None:
        fleet = make_fleet(2)
        scraped(fleet, 1, "a", "b", max_lora=2)
        scraped(fleet, 2, "a", max_lora=2)
        in_flight(fleet, 2, None, 9)

        assert picks(self.make(), fleet) == {"pod-2": 200}
        assert reason(self.make(), fleet) == "capacity"

    def test_when_all_are_full_any_pod_is_picked(self) -> None:
        fleet = make_fleet(2)
        for number in (1, 2):
            scraped(fleet, number, "a", "b", max_lora=2)
        in_flight(fleet, 1, "a", 5)

        counts = picks(self.make(), fleet, times=1000)

        assert min(counts.values()) > 400
        assert reason(self.make(), fleet) == "all-full"

    def test_affinity_alone_is_used_with_any_threshold(self) -> None:
        fleet = make_fleet(2)
        scraped(fleet, 1, "sql-lora", "b", max_lora=2)
        scraped(fleet, 2, "a", "b", max_lora=2)

        assert picks(self.make(threshold=0.0), fleet) == {"pod-1": 200}

    @pytest.mark.parametrize(("threshold", "expected"), [(0.0, 0), (0.7, 700), (1.0, 1000)])
    def test_the_threshold_is_the_share_that_goes_where_the_adapter_is(
        self, threshold: float, expected: int
    ) -> None:
        fleet = make_fleet(2)
        scraped(fleet, 1, "sql-lora")
        scraped(fleet, 2)

        counts = picks(self.make(threshold), fleet, times=1000)

        assert abs(counts.get("pod-1", 0) - expected) < 50
        if threshold == 0.0:
            assert reason(self.make(threshold), fleet) == "spread"

    def test_a_base_model_needs_no_slot(self) -> None:
        fleet = make_fleet(2)
        for number in (1, 2):
            scraped(fleet, number, "a", "b", max_lora=2)
        in_flight(fleet, 1, "a")

        assert picks(self.make(), fleet, BASE) == {"pod-2": 200}
        assert reason(self.make(), fleet, BASE) == "base-model"

    # The defects of the pull request, corrected.

    def test_adapters_in_both_labels_count_once(self) -> None:
        """Two adapters, each in both labels, leave room on a pod with three slots."""
        fleet = make_fleet(1)
        scraped(fleet, 1, "a", "b", waiting=["a", "b"], max_lora=3)

        assert reason(self.make(), fleet) == "capacity"

    def test_an_idle_pod_has_all_its_slots(self) -> None:
        """Empty labels name no adapter, so one slot is one free slot."""
        fleet = make_fleet(1)
        scraped(fleet, 1, max_lora=1)

        assert reason(self.make(), fleet) == "capacity"

    @pytest.mark.parametrize("snapshot", ["none", "no-lora", "no-max"])
    def test_what_is_unknown_is_not_full(self, snapshot: str) -> None:
        fleet = make_fleet(1)
        if snapshot == "no-lora":
            fleet.put_metrics(state_of(fleet, 1), PodMetrics(scraped_at=NOW))
        elif snapshot == "no-max":
            scraped(fleet, 1, "a", "b", "c", max_lora=None)

        assert reason(self.make(), fleet) == "capacity"

    def test_running_is_preferred_to_waiting_where_the_labels_differ(self) -> None:
        fleet = make_fleet(2)
        scraped(fleet, 1, waiting=["sql-lora"])
        scraped(fleet, 2, "sql-lora", waiting=[])
        in_flight(fleet, 2, "sql-lora", 9)

        assert picks(self.make(), fleet) == {"pod-2": 200}

    def test_waiting_is_preferred_to_absent(self) -> None:
        fleet = make_fleet(2)
        scraped(fleet, 1, waiting=["sql-lora"])
        scraped(fleet, 2)

        assert picks(self.make(), fleet) == {"pod-1": 200}

    def test_requests_in_flight_are_affinity_before_any_scrape_shows_them(self) -> None:
        fleet = make_fleet(3)
        in_flight(fleet, 2, "sql-lora", 4)

        assert picks(self.make(), fleet) == {"pod-2": 200}

    def test_adapters_in_flight_take_slots_before_any_scrape_shows_them(self) -> None:
        fleet = make_fleet(2)
        scraped(fleet, 1, "a", max_lora=2)
        scraped(fleet, 2, "a", max_lora=2)
        in_flight(fleet, 1, "a")
        in_flight(fleet, 1, "b")
        in_flight(fleet, 2, None, 9)

        assert picks(self.make(), fleet) == {"pod-2": 200}

    def test_a_stale_snapshot_counts_as_none(self) -> None:
        fleet = make_fleet(2)
        scraped(fleet, 1, "sql-lora", scraped_at=NOW - 15.1)
        scraped(fleet, 2)

        assert set(picks(self.make(), fleet)) == {"pod-1", "pod-2"}

    def test_union_of_labels_that_differ_fills_slots(self) -> None:
        fleet = make_fleet(1)
        lora = LoraActivity(2, frozenset({"a"}), frozenset({"b"}), 0.0)
        fleet.put_metrics(state_of(fleet, 1), PodMetrics(scraped_at=NOW, lora=lora))

        assert reason(self.make(), fleet) == "all-full"


class TestLoraAffinityWithPeers:
    def make(self) -> LoraAffinity:
        return LoraAffinity(options(lora_affinity_threshold=1.0, metrics_max_age=15.0))

    def test_an_adapter_in_flight_at_a_peer_is_affinity_before_any_scrape_shows_it(self) -> None:
        fleet = make_fleet(3)
        in_flight_at_a_peer(fleet, (2, "sql-lora"), (2, "sql-lora"))

        assert picks(self.make(), fleet) == {"pod-2": 200}
        assert reason(self.make(), fleet) == "affinity"

    def test_adapters_in_flight_at_a_peer_take_slots_before_any_scrape_shows_them(self) -> None:
        fleet = make_fleet(2)
        for number in (1, 2):
            scraped(fleet, number, max_lora=2)
        in_flight(fleet, 2, None, 9)
        in_flight_at_a_peer(fleet, (1, "a"), (1, "b"))

        assert picks(self.make(), fleet) == {"pod-2": 200}
        assert reason(self.make(), fleet) == "capacity"

    def test_a_slot_that_is_allotted_to_a_peer_is_left_to_it_while_another_is_free(self) -> None:
        here, there = make_fleet(2), make_fleet(2)
        for fleet in (here, there):
            for number in (1, 2):
                scraped(fleet, number, max_lora=1)
        for _ in range(2):  # The first report is made before any peer is known.
            from_here = here.report_to_peers("here", 0.1, {}, NOW)
            from_there = there.report_to_peers("there", 0.1, {}, NOW)
            here.put_peer(from_there, NOW)
            there.put_peer(from_here, NOW)

        picked = [picks(self.make(), fleet) for fleet in (here, there)]

        assert [len(each) for each in picked] == [1, 1]
        assert picked[0] != picked[1], "each pod has one slot, and each router has one pod"

    def test_peers_that_meet_a_new_adapter_at_the_same_time_pick_the_same_pod(self) -> None:
        # No pod has told yet how many slots it has, so no slot is allotted to anybody.
        here, there = make_fleet(8), make_fleet(8)
        for _ in range(2):
            from_here = here.report_to_peers("here", 0.1, {}, NOW)
            from_there = there.report_to_peers("there", 0.1, {}, NOW)
            here.put_peer(from_there, NOW)
            there.put_peer(from_here, NOW)

        picked = [picks(self.make(), fleet) for fleet in (here, there)]

        assert len(picked[0]) == 1
        assert picked[0] == picked[1]

    def test_when_all_free_slots_are_allotted_to_peers_one_of_them_is_used(self) -> None:
        here, there = make_fleet(1), make_fleet(1)
        for fleet in (here, there):
            scraped(fleet, 1, max_lora=1)
        here.report_to_peers("here", 0.1, {}, NOW)
        here.put_peer(there.report_to_peers("there", 0.1, {}, NOW), NOW)

        assert picks(self.make(), here) == {"pod-1": 200}
        assert reason(self.make(), here) == "capacity"
