"""Requests with filters wait like others, and those of one client leave some room for others."""

import random
from dataclasses import replace

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.routing.candidate_finder import CandidateFinder
from lora_router.routing.candidates import Candidates
from lora_router.routing.label_index import LabelIndex
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.overload import Overload
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.selector import parse_selector
from lora_router.routing.waiting_lines import MAX_NARROWED, MOST_DISPLACED
from lora_router.routing.who_waits import NOBODY_WAITS
from tests.fleet import make_fleet, make_metrics, make_pod, state_of
from tests.unit.routing.router import Router

NAMES = [f"a{number}" for number in range(60)]
PODS = MAX_NARROWED + 4


def fleet_of(pods: int) -> Fleet:
    """Return a fleet of pods with one slot each, labelled with their numbers."""
    fleet = make_fleet(pods, adapters=NAMES, host_memory=len(NAMES))
    fleet.update([replace(each.pod, labels={"n": each.pod.name[4:]}) for each in fleet])
    for state in fleet:
        fleet.put_metrics(state, replace(make_metrics(max_lora=1), running=0.0))
    return fleet


def saturated(pods: int, overload: Overload | None = None) -> Router:
    """Return a router whose pods all run an adapter."""
    router = Router(fleet_of(pods), overload=overload, max_hold_seconds=60.0)
    router.director.priorities.put({"chat": 1, "batch": -1})
    for state in router.fleet:
        router.fleet.ledger.reserve(state, "a0")
    return router


class TestFiltersThatLeaveTheSamePods:
    def test_take_no_place_from_others(self) -> None:
        router = saturated(2)
        for number in range(2 * MAX_NARROWED):
            router.held("a2", pod_filter=f"x!={number}")
        router.held("a3", pod_filter="n!=1")
        subset = frozenset(each.pod.address for each in router.fleet)
        router.held("a4", subset=subset)
        assert len(list(router.director.reception.room.lines)) == 2

    def test_still_wait_in_one_line_after_many_others_were_refused(self) -> None:
        router = saturated(PODS)
        for number in range(1, MAX_NARROWED + 1):
            router.held("a1", pod_filter=f"n!={number}")
        for number in range(300):
            refused = router.send("a2", pod_filter=f"n={number % 2 + 1},x!={number}")
            assert isinstance(refused, Refused)
        router.held("a3", pod_filter="n!=3")

    def test_do_not_hide_how_slow_a_line_is(self) -> None:
        """A new filter does not begin with a pace of its own."""
        router = Router(fleet_of(2), overload=Overload(sheds=True), max_hold_seconds=60.0)
        router.routed("a59", pod_filter="n=2")
        running = router.routed("a0", pod_filter="n=1")
        for number in range(1, 9):
            router.held(f"a{number}", pod_filter="n=1")
            router.clock.advance(2.0)
            running.reservation.release()
            router.clock.advance(0.01)
            outcome = router.late[-1][1]
            assert isinstance(outcome, Routed)
            running = outcome
        for number in range(20, 40):
            router.send(f"a{number}", pod_filter="n=1")
        assert isinstance(router.send("a50", pod_filter="n=1"), Refused)
        for number in range(260):
            router.send("base", pod_filter=f"y!={number}")
        assert isinstance(router.send("a50", pod_filter="n=1,x!=1"), Refused)

    def test_are_told_apart_after_a_change_of_labels(self) -> None:
        fleet = fleet_of(2)
        router = Router(fleet, max_hold_seconds=60.0)
        first, second = (fleet.ledger.reserve(each, "a0") for each in fleet)
        router.held("a1", pod_filter="n=1")
        router.held("a2", pod_filter="n!=2")
        for number, label in ((1, "2"), (2, "1")):
            fleet.upsert(replace(state_of(fleet, number).pod, labels={"n": label, "v": "new"}))
        fleet.upsert(replace(state_of(fleet, 1).pod, labels={"n": "3"}))
        router.clock.advance(0.1)
        second.release()  # Of the pod that is number 1 now.
        router.clock.advance(0.1)
        assert router.late_names == ["a1"]
        first.release()
        router.clock.advance(0.1)
        assert router.late_names == ["a1", "a2"]


class TestTooManyFilters:
    def wait(
        self, router: Router, count: int = MAX_NARROWED, model: str = "a1", **query: object
    ) -> None:
        for number in range(1, count + 1):
            router.held(model, f"{number}", pod_filter=f"n!={number}", **query)

    def test_the_newest_of_the_lowest_priority_makes_room(self) -> None:
        router = saturated(PODS)
        self.wait(router, MAX_NARROWED - 2)
        for number in (MAX_NARROWED - 1, MAX_NARROWED):
            router.held("a1", f"batch-{number}", pod_filter=f"n!={number}", objective="batch")
        router.held("a2", pod_filter=f"n!={PODS}")
        ((name, refused),) = router.late
        assert name == f"batch-{MAX_NARROWED}"
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.TOO_MANY_HELD

    def test_a_line_in_which_higher_priorities_wait_too_makes_none(self) -> None:
        router = saturated(PODS)
        self.wait(router, objective="batch")
        self.wait(router)
        assert isinstance(router.send("a2", pod_filter=f"n!={PODS}"), Refused)
        assert router.late == []

    def test_then_one_of_the_tenant_with_the_most(self) -> None:
        router = saturated(PODS)
        self.wait(router, tenant=7)
        for number in range(MAX_NARROWED + 1, PODS + 1):
            router.held("a2", pod_filter=f"n!={number}", tenant=8)
        assert [name for name, _ in router.late] == ["64", "63", "62", "61"]
        assert isinstance(router.send("a2", pod_filter="n!=64", tenant=7), Refused)

    def test_the_dry_run_says_so(self) -> None:
        router = saturated(PODS)
        self.wait(router, tenant=7)
        other = f"n!={PODS}"
        explain = router.director.explainer.explain
        assert explain(RouteQuery("a2", tenant=8, pod_filter=other)).answer == "hold"
        assert explain(RouteQuery("a2", tenant=7, pod_filter=other)).answer == "refuse"

    @pytest.mark.slow
    def test_a_line_with_many_requests_is_not_refused_in_one_go(self) -> None:
        router = saturated(PODS)
        for number in range(MOST_DISPLACED + 1):
            self.wait(router, model=f"a{number // 8 + 1}", objective="batch")
        assert isinstance(router.send("a2", pod_filter=f"n!={PODS}"), Refused)


class TestTheIndexOfLabels:
    SELECTORS = (
        "", "a", "!a", "a=1", "a!=1", "a in (1,2)", "a notin (1,,3)", "a>1", "a<2", "zz", "!zz",
        "zz!=1", "zz=1", "a,b", "a!=1,b in (x,y)", "!a,!b", "b>1",
    )  # fmt: skip

    @pytest.mark.parametrize("seed", range(5))
    def test_finds_the_pods_that_a_look_at_each_finds(self, seed: int) -> None:
        chance = random.Random(seed)
        pods = []
        for number in range(chance.choice([0, 1, 7, 8, 9, 70])):
            labels = {}
            if chance.random() < 0.7:
                labels["a"] = chance.choice(["", "1", "2", "3", "x"])
            if chance.random() < 0.5:
                labels["b"] = chance.choice(["x", "y", "5"])
            pods.append(PodState(make_pod(number, labels=labels)))
        index = LabelIndex(pods)
        for text in self.SELECTORS:
            selector = parse_selector(text)
            expected = [pod for pod in pods if selector.matches(pod.pod.labels)]
            assert index.pods(index.selected(selector)) == expected


def test_filters_that_leave_the_same_pods_have_the_same_candidates() -> None:
    fleet = fleet_of(4)
    finder = CandidateFinder(fleet, NOBODY_WAITS)
    group = fleet.serving("base").pods

    def found(pod_filter: str | None, *endpoints: str) -> Candidates:
        candidates = finder.among(group, pod_filter, frozenset(endpoints) or None)
        assert isinstance(candidates, Candidates)
        return candidates

    everyone = found(None)
    assert found("n") is everyone
    assert found("x!=1", *(each.pod.address for each in fleet)) is everyone
    assert found("n!=1") is found("n notin (1)")
    assert found("n=2") is found(None, "10.0.0.2:8000") is found("n in (2,3)", "10.0.0.2")
    assert isinstance(finder.among(group, "n=9", None), Refused)
