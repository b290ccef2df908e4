"""What it costs when many pods of a large fleet change: nothing grows with the whole fleet."""

from collections.abc import Collection

import pytest

from lora_router.fleet.answer import Answer
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HealthRules
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.pod_state import PodState
from tests.calls import calls_of
from tests.fleet import make_fleet, make_metrics, make_pod, state_of
from tests.unit.routing.router import Router


@pytest.mark.parametrize("known", [20, 2000])
def test_a_pod_that_leaves_costs_the_same_whatever_it_and_others_used(known: int) -> None:
    fleet = make_fleet(3)
    for number in (1, 2):
        used = [f"adapter-{each}" for each in range(known)]
        fleet.index.used(state_of(fleet, number), used)

    calls = calls_of(lambda: fleet.remove("pod-2"))

    assert calls < 300
    assert list(fleet.index.users("adapter-1")) == [state_of(fleet, 1)]


def test_what_a_pod_used_that_left_is_forgotten_with_the_next_scrapes() -> None:
    fleet = make_fleet(2)
    fleet.index.used(state_of(fleet, 1), [f"adapter-{each}" for each in range(1000)])
    fleet.upsert(make_pod(1, ready=False))
    assert not fleet.index.users("adapter-1")

    for _ in range(70):
        fleet.put_metrics(state_of(fleet, 2), make_metrics())
    fleet.upsert(make_pod(1))

    assert not any(fleet.index.users(f"adapter-{each}") for each in range(1000))


def test_a_pod_that_comes_back_before_that_is_a_user_again() -> None:
    fleet = make_fleet(2)
    fleet.index.used(state_of(fleet, 1), ["adapter-1"])

    fleet.upsert(make_pod(1, ready=False))
    fleet.upsert(make_pod(1))

    assert list(fleet.index.users("adapter-1")) == [state_of(fleet, 1)]


def test_of_many_users_of_an_adapter_the_most_recent_are_known() -> None:
    fleet = make_fleet(10)
    pods = [state_of(fleet, number) for number in range(1, 11)]
    for pod in (*pods, pods[0]):
        fleet.index.used(pod, ["adapter-1"])

    assert list(fleet.index.users("adapter-1")) == [*pods[3:], pods[0]]

    fleet.remove("pod-10")
    fleet.remove("pod-3")

    assert list(fleet.index.users("adapter-1")) == [*pods[3:9], pods[0]]


class Zone:
    """A fleet of which some pods are in one zone, and what it reported of its pods."""

    def __init__(self, pods: int, *, zone: int) -> None:
        self.now = 1000.0
        self.outliers = Outliers(HealthRules(), lambda: self.now)
        self.outliers.on_probe = lambda _state: None
        self.fleet: Fleet = make_fleet(pods, outliers=self.outliers)
        self.zone = [state_of(self.fleet, number) for number in range(1, zone + 1)]
        self.router = Router(self.fleet)
        self.fleet.index.refresh()
        self.reported: list[Collection[PodState]] = []
        self.fleet.changes.pods.subscribe(self.reported.append)
        request = self.fleet.ledger.reserve(state_of(self.fleet, pods), None)
        request.answered(Answer(200))
        request.release()

    def goes_silent(self) -> None:
        for state in self.zone:
            self.fleet.ledger.reserve(state, None)
        self.now += 60.0


def test_pods_that_go_silent_together_are_one_change() -> None:
    zone = Zone(10, zone=4)
    zone.goes_silent()

    zone.fleet.check_health()

    assert [set(states) for states in zone.reported] == [set(zone.zone)]
    assert set(zone.fleet.in_use()) == set(zone.fleet) - set(zone.zone)
    assert set(zone.fleet.index.by_load) == set(zone.fleet.in_use())


def test_of_more_silent_pods_than_may_be_excluded_as_many_as_allowed_are() -> None:
    zone = Zone(10, zone=8)
    zone.goes_silent()

    zone.fleet.check_health()

    assert [len(states) for states in zone.reported] == [5]
    assert len(zone.fleet.in_use()) == 5


def test_a_pod_that_is_well_again_makes_place_for_another_that_is_not() -> None:
    zone = Zone(10, zone=8)
    zone.goes_silent()
    zone.fleet.check_health()
    (excluded, *_), unwell = zone.reported[0], set(zone.zone) - set(zone.reported[0])

    zone.outliers.unwell.heal(excluded, zone.now)

    assert excluded in zone.reported[1]
    assert unwell & set(zone.reported[1])
    assert len(zone.fleet.in_use()) == 5
    assert excluded in zone.fleet.in_use()


def test_many_that_fail_cost_a_few_calls_each_however_many_they_are() -> None:
    costs = []
    for size in (20, 200):
        zone = Zone(3 * size, zone=size)
        zone.goes_silent()
        costs.append(calls_of(zone.fleet.check_health) / size)

    assert costs[1] < 1.5 * costs[0]


def test_one_more_that_fails_costs_the_same_however_many_have() -> None:
    costs = []
    for size in (20, 200):
        zone = Zone(3 * size, zone=size)
        *before, last = zone.zone
        for state in before:
            zone.outliers.unwell.eject(state, "unreachable", zone.now)
        costs.append(calls_of(lambda: zone.outliers.unwell.eject(last, "unreachable", zone.now)))  # noqa: B023

    assert costs[0] == costs[1]


def test_a_request_that_fails_on_a_pod_that_left_changes_nothing() -> None:
    zone = Zone(4, zone=1)
    requests = [zone.fleet.ledger.reserve(zone.zone[0], None) for _ in range(3)]
    zone.fleet.remove("pod-1")
    zone.reported.clear()

    for request in requests:
        request.answered(Answer(500))

    assert not zone.outliers.unwell
    assert not zone.reported
