"""A hot adapter gets the next free slot where its pod is overloaded and no slot is free."""

from dataclasses import replace

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.routing.outcome import Routed
from lora_router.routing.overload import Overload
from lora_router.routing.roll import Limits
from lora_router.routing.spreading import SPREAD_SECONDS
from tests.fleet import make_fleet, make_metrics
from tests.unit.routing.router import Router

NAMES = [f"a{number}" for number in range(60)]
CROWD = 60
"""Requests of the hot adapter. The other pods of the fleet have one each."""


def fleet_of(slots: list[int]) -> Fleet:
    """Return a fleet whose pods all have ``a0`` and ``a9`` in host memory."""
    fleet = make_fleet(len(slots), adapters=NAMES, host_memory=16)
    for state, each in zip(fleet, slots, strict=True):
        fleet.put_metrics(state, replace(make_metrics(max_lora=each), running=0.0))
        for name in ("a0", "a9"):
            fleet.ledger.reserve(state, name).release()
    return fleet


def crowded(router: Router, requests: int = CROWD) -> list[Routed]:
    """Fill each slot with a request of its own adapter, and one with many of ``a0``.

    Return those with one request.
    """
    slots = sum(state.beliefs.slots or 0 for state in router.fleet)
    routed = [router.routed(name) for name in NAMES[:slots]]
    pod = routed[0].reservation.state
    for _ in range(requests - 1):
        router.fleet.ledger.reserve(pod, "a0")
    return routed[1:]


def test_its_requests_wait_for_the_next_slot_and_go_there_together() -> None:
    router = Router(fleet_of([1] * 4))
    others = crowded(router)
    router.held("a0", "first")
    router.held("a0", "second")
    others[0].reservation.release()
    assert router.late_names == ["first", "second"]
    assert router.late_pod("first") is others[0].reservation.state
    assert router.late_pod("second") is others[0].reservation.state


def test_they_join_if_no_slot_is_free_soon() -> None:
    router = Router(fleet_of([1] * 4), overload=Overload(sheds=True, max_expected_wait_seconds=0.1))
    crowded(router)
    hot = next(state for state in router.fleet if "a0" in state.in_flight_adapters)
    router.held("a0")
    router.clock.advance(SPREAD_SECONDS)
    assert router.late_pod("a0") is hot


def test_an_adapter_that_waits_longer_gets_the_slot_before_it() -> None:
    router = Router(fleet_of([1] * 4))
    others = crowded(router)
    router.held("a9")
    router.clock.advance(0.5)
    router.held("a0")
    others[0].reservation.release()
    assert router.late_names == ["a9"]
    others[1].reservation.release()
    assert router.late_names == ["a9", "a0"]


@pytest.mark.parametrize(
    ("slots", "requests", "held"),
    [([1] * 4, CROWD, True), ([1] * 4, 24, False), ([1, 1, 3, 3], CROWD, False)],
    ids=["overloaded", "not overloaded", "pods that differ"],
)
def test_only_requests_for_overloaded_pods_wait(
    slots: list[int], requests: int, *, held: bool
) -> None:
    router = Router(fleet_of(slots))
    crowded(router, requests)
    assert isinstance(router.send("a0"), Routed) is not held


def test_none_waits_for_pods_that_would_load_the_adapter_from_disk() -> None:
    router = Router(fleet_of([1] * 4))
    crowded(router)
    for state in router.fleet:
        state.beliefs.never_used("a0")
    router.routed("a0")


@pytest.mark.parametrize(
    "options", [{"max_hold_seconds": 0.0}, {"limits": Limits(requests=0)}], ids=["hold", "room"]
)
def test_a_request_that_may_not_wait_joins(options: dict[str, object]) -> None:
    router = Router(fleet_of([1] * 4), **options)  # type: ignore[arg-type]
    crowded(router)
    router.routed("a0")
