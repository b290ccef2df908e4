"""When lists of models are read out of turn."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_state import PodState
from lora_router.scrape.models_plan import (
    BURST,
    READS_PER_SECOND,
    RECENT_SECONDS,
    ROUND_SECONDS,
    ModelsPlan,
)
from tests.examples import examples


class Plan:
    """A plan with a clock, and pods whose lists were read at second 0."""

    def __init__(self, pods: int = 3) -> None:
        self.now = 0.0
        self.woken: list[PodState] = []
        self.rounds = 0
        self.pods: Sequence[PodState] = [
            PodState(Pod(f"pod-{number}", f"10.0.0.1:{number + 1}", "", ""))
            for number in range(pods)
        ]
        self.rounds_begun = 0
        self.plan = ModelsPlan(
            self._candidates,
            wake=self.woken.append,
            on_round_end=self._round_ended,
            clock=lambda: self.now,
        )
        for pod in self.pods:
            self.plan.add(pod)
            self.read(pod)

    def _candidates(self) -> Sequence[PodState]:
        self.rounds_begun += 1
        return self.pods

    def _round_ended(self) -> None:
        self.rounds += 1

    def read(self, *pods: PodState) -> None:
        for pod in pods:
            self.plan.started(pod)
            self.plan.ended(pod)

    def due(self) -> list[float]:
        return [self.plan.due(pod) for pod in self.pods]


def test_a_list_is_read_once_for_all_who_need_it_soon() -> None:
    one = Plan(pods=1)
    (pod,) = one.pods
    one.now = 10.0
    for _ in range(1000):
        one.plan.read_soon(pod)

    assert one.woken == [pod]
    assert one.due() == [10.0]

    one.read(pod)
    assert one.due() == [math.inf]


def test_a_list_is_read_again_a_second_after_the_last_time_at_the_earliest() -> None:
    one = Plan(pods=1)
    (pod,) = one.pods
    one.now = 10.0
    one.read(pod)
    one.now = 10.25
    one.plan.read_soon(pod)

    assert one.due() == [10.0 + RECENT_SECONDS]


def test_a_list_that_is_being_read_is_read_once_more() -> None:
    one = Plan(pods=1)
    (pod,) = one.pods
    one.now = 10.0
    one.plan.started(pod)
    one.now = 10.5
    one.plan.read_soon(pod)
    one.plan.ended(pod)

    assert one.due() == [11.0]


def test_all_who_look_again_share_a_round() -> None:
    three = Plan()
    three.now = 10.0
    assert all(three.plan.look_again() for _ in range(1000))
    assert three.woken == list(three.pods)
    assert three.due() == [10.0] * 3

    first, *others = three.pods
    three.read(*others)
    assert three.rounds == 0
    three.read(first)
    assert three.rounds == 1


def test_nobody_waits_while_all_lists_are_recent() -> None:
    three = Plan()
    three.now = 0.5

    assert not three.plan.look_again()
    assert three.woken == []


def test_who_asks_in_vain_costs_next_to_nothing() -> None:
    three = Plan()
    three.now = 10.0
    three.read(*three.pods)
    three.now = 10.5
    assert not any(three.plan.look_again() for _ in range(1000))
    assert three.rounds_begun == 1


def test_there_is_one_round_a_second() -> None:
    three = Plan()
    three.now = 10.0
    three.plan.look_again()
    three.read(*three.pods)
    three.now = 10.9
    assert not three.plan.look_again()

    three.now = 11.1
    assert three.plan.look_again()


def test_a_round_reads_only_the_lists_that_are_not_recent_the_oldest_first() -> None:
    three = Plan()
    old, recent, older = three.pods
    three.now = 5.0
    three.read(old)
    three.now = 9.5
    three.read(recent)
    three.now = 10.0
    three.plan.look_again()

    assert three.woken == [older, old]


def test_a_round_waits_for_a_read_that_is_under_way() -> None:
    one = Plan(pods=1)
    (pod,) = one.pods
    one.now = 10.0
    one.plan.started(pod)
    one.now = 10.1
    assert one.plan.look_again()
    assert one.woken == []

    one.plan.ended(pod)
    assert one.rounds == 1


def test_a_pod_that_left_holds_up_no_round() -> None:
    one = Plan(pods=1)
    one.now = 10.0
    one.plan.look_again()
    one.plan.remove(one.pods[0])

    assert one.rounds == 1


def test_a_round_that_takes_too_long_is_over_when_somebody_asks() -> None:
    three = Plan()
    three.now = 10.0
    three.plan.look_again()
    three.read(three.pods[0])
    three.now = 10.0 + ROUND_SECONDS + 0.1

    assert three.plan.look_again()
    assert three.rounds == 1


def test_without_pods_nobody_waits() -> None:
    assert not Plan(pods=0).plan.look_again()


def test_a_large_fleet_is_read_at_a_limited_rate() -> None:
    large = Plan(pods=BURST + 200)
    large.now = 10.0
    large.plan.look_again()

    due = large.due()
    assert due[:BURST] == [10.0] * BURST
    assert due[-1] - 10.0 == pytest.approx((len(due) - BURST) / READS_PER_SECOND)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in which order, reads out of turn are bounded."""

    def __init__(self) -> None:
        super().__init__()
        self.all = Plan(pods=5)
        self.starts: list[tuple[float, PodState]] = []
        self.running: set[PodState] = set()

    @rule(seconds=st.floats(0.0, 3.0))
    def time_passes(self, seconds: float) -> None:
        self.all.now += seconds

    @rule(number=st.integers(0, 4))
    def a_pod_denies_a_model(self, number: int) -> None:
        self.all.plan.read_soon(self.all.pods[number])

    @rule()
    def somebody_asks_for_an_unknown_model(self) -> None:
        self.all.plan.look_again()

    @rule()
    def the_scraper_starts_what_is_due(self) -> None:
        for pod in self.all.pods:
            if pod not in self.running and self.all.plan.due(pod) <= self.all.now:
                self.all.plan.started(pod)
                self.running.add(pod)
                self.starts.append((self.all.now, pod))

    @rule()
    def the_reads_end(self) -> None:
        for pod in self.running:
            self.all.plan.ended(pod)
        self.running.clear()

    @invariant()
    def no_list_is_read_twice_in_a_second(self) -> None:
        for pod in self.all.pods:
            times = [now for now, read in self.starts if read is pod]
            assert all(
                later - earlier >= RECENT_SECONDS - 1e-6 for earlier, later in pairwise(times)
            )


AnyOrder.TestCase.settings = examples(50)
test_whatever_happens = AnyOrder.TestCase
