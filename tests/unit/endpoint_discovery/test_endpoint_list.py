"""Which pods Envoys are told of, and when."""

import pytest

from lora_router.endpoint_discovery.endpoint_list import EndpointList
from lora_router.fleet.fleet import Fleet
from tests.fleet import ManualClock, make_fleet, make_pod
from tests.unit.endpoint_discovery.envoy_side import Received, read


class Followed:
    """A fleet, and the versions of its list."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.clock = ManualClock()
        self.list = EndpointList(fleet, self.clock)
        self.list.subscribe(self._changed)
        self.versions: list[Received] = []

    @property
    def pods(self) -> dict[str, str]:
        return self.versions[-1].pods

    def _changed(self) -> None:
        self.versions.append(read(self.list.response))


@pytest.mark.slow
def test_all_pods_of_a_synced_fleet_are_listed_at_once() -> None:
    followed = Followed(make_fleet(2))
    followed.clock.advance(0)

    assert followed.pods == {"pod-1": "10.0.0.1 8000", "pod-2": "10.0.0.2 8000"}
    assert followed.list.version == 1


@pytest.mark.slow
def test_pods_that_join_leave_move_or_stop_being_ready_make_a_new_version() -> None:
    followed = Followed(make_fleet(2))
    followed.clock.advance(1)

    followed.fleet.upsert(make_pod(3))
    followed.clock.advance(1)
    assert sorted(followed.pods) == ["pod-1", "pod-2", "pod-3"]

    followed.fleet.remove("pod-1")
    followed.clock.advance(1)
    assert sorted(followed.pods) == ["pod-2", "pod-3"]

    followed.fleet.upsert(make_pod(2, ready=False))
    followed.clock.advance(1)
    assert sorted(followed.pods) == ["pod-3"]

    followed.fleet.upsert(make_pod(2))
    followed.fleet.upsert(make_pod(3, address="[2001:db8::1]:80"))
    followed.clock.advance(1)
    assert followed.pods["pod-3"] == "2001:db8::1 80"
    assert followed.pods["pod-2"] == "10.0.0.2 8000"
    assert followed.list.version == 5


@pytest.mark.slow
def test_a_change_that_envoy_does_not_see_makes_no_version() -> None:
    followed = Followed(make_fleet(2))
    followed.clock.advance(1)

    followed.fleet.upsert(make_pod(1, labels={"gpu": "h100"}))
    followed.clock.advance(1)

    assert followed.list.version == 1


def test_a_fleet_without_pods_is_told_only_after_it_had_some() -> None:
    fleet = Fleet()
    followed = Followed(fleet)
    fleet.replace([])
    followed.clock.advance(1)
    assert followed.versions == []

    fleet.replace([make_pod(1)])
    followed.clock.advance(1)
    fleet.replace([])
    followed.clock.advance(1)

    assert [len(version.pods) for version in followed.versions] == [1, 0]


def test_a_part_of_the_first_list_is_not_told() -> None:
    fleet = Fleet()
    followed = Followed(fleet)
    fleet.upsert(make_pod(1))
    followed.clock.advance(5)
    assert followed.versions == []

    fleet.upsert(make_pod(2))
    fleet.synced = True
    followed.clock.advance(1)

    assert [len(version.pods) for version in followed.versions] == [2]


@pytest.mark.slow
def test_many_changes_make_few_versions() -> None:
    followed = Followed(make_fleet(1000))
    followed.clock.advance(1)
    for number in range(1001, 2001):
        followed.fleet.upsert(make_pod(number, address=f"10.0.{number // 250}.{number % 250}:80"))
        followed.clock.advance(0.001)
    followed.clock.advance(1)

    # One second of changes: one version at the first, and then one every 100 ms.
    assert 9 <= len(followed.versions) - 1 <= 12
    assert len(followed.pods) == 2000


def test_a_small_fleet_is_told_of_the_next_pod_after_some_milliseconds() -> None:
    followed = Followed(make_fleet(1))
    followed.clock.advance(1)

    for number in (2, 3):
        followed.fleet.upsert(make_pod(number))
        followed.clock.advance(0.012)

    assert sorted(followed.pods) == ["pod-1", "pod-2", "pod-3"]


@pytest.mark.slow
def test_a_large_fleet_is_read_in_slices() -> None:
    fleet = Fleet()
    fleet.replace(
        make_pod(n, address=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:80") for n in range(1700)
    )
    followed = Followed(fleet)

    followed.clock.advance_to_next(0)
    assert followed.versions == []
    followed.clock.advance(0)

    assert len(followed.pods) == 1700


def test_after_close_it_follows_no_longer() -> None:
    followed = Followed(make_fleet(1))
    followed.clock.advance(1)
    followed.list.close()

    followed.fleet.upsert(make_pod(2))
    followed.clock.advance(1)

    assert followed.list.version == 1
