"""An adapter waits for a slot near it, rather than be loaded from disk."""

from dataclasses import replace

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.routing.outcome import Routed
from lora_router.routing.waiting_near import NEAR_LOADS, ONCE_SHARE, WAITING_SHARE
from lora_router.routing.waiting_queue import Held
from tests.fleet import make_fleet, make_metrics, state_of
from tests.unit.routing.router import Router

NAMES = [f"a{number}" for number in range(40)]
ALL = len(NAMES)
MEMORY = 8
"""Adapters that fit in the host memory of a pod."""
SLOTS = 4
LOAD_SECONDS = 1.5


def fleet_of(
    host_memory: int | None = MEMORY, load_seconds: float = LOAD_SECONDS, slots: int = SLOTS
) -> Fleet:
    """Return two pods. The first one has ``a0`` in host memory, and other adapters in its slots."""
    fleet = make_fleet(2, adapters=NAMES, host_memory=host_memory)
    for state in fleet:
        fleet.put_metrics(state, replace(make_metrics(max_lora=slots), running=0.0))
        state.beliefs.load_seconds = 0.0, 0.1, load_seconds
        state.beliefs.knows_disk = True
    near = state_of(fleet, 1)
    for name in NAMES[: slots + 1]:
        fleet.ledger.reserve(near, name).release()
    return fleet


def busy(router: Router) -> list[Routed]:
    """Take the slots of the first pod. Return their requests."""
    routed = [router.routed(name) for name in NAMES[1 : SLOTS + 1]]
    assert {each.reservation.state for each in routed} == {state_of(router.fleet, 1)}
    return routed


def test_it_gets_the_next_slot_of_a_pod_that_has_it_in_host_memory() -> None:
    router = Router(fleet_of())
    running = busy(router)
    held = router.held("a0")
    assert held.reason == "no-slot-near"
    running[0].reservation.release()
    assert router.late_pod("a0") is state_of(router.fleet, 1)


def test_it_is_loaded_from_disk_if_no_slot_is_free_soon() -> None:
    router = Router(fleet_of())
    busy(router)
    router.held("a0")
    router.clock.advance(NEAR_LOADS * LOAD_SECONDS)
    assert router.late_pod("a0") is state_of(router.fleet, 2)


def test_fewer_wait_where_host_memory_holds_all_adapters() -> None:
    assert ONCE_SHARE < WAITING_SHARE
    long = (1.5 / ONCE_SHARE / (2 * SLOTS)) ** 0.5
    for host_memory, waiting in ((ALL, 2), (MEMORY, 4)):
        router = Router(fleet_of(host_memory, load_seconds=long))
        busy(router)
        router.held("a0")
        for name in ("a20", "a21", "a22"):
            router.fleet.ledger.reserve(state_of(router.fleet, 1), name).release()
            router.send(name)
        assert router.director.reception.room.held == waiting


@pytest.mark.parametrize(
    ("host_memory", "waits"),
    [pytest.param(ALL, False, id="all"), (MEMORY, True), pytest.param(None, False, id="a guess")],
)
def test_before_loads_showed_how_long_they_take_it_waits_where_memory_is_known_to_be_scarce(
    host_memory: int | None, waits: bool
) -> None:
    router = Router(fleet_of(host_memory))
    busy(router)
    for state in router.fleet:
        state.beliefs.knows_disk = False
    if host_memory is None:
        # The first pod has shown that it has more than the slots.
        state_of(router.fleet, 1).beliefs.learn_size(MEMORY)
    outcome = router.send("a0")
    assert isinstance(outcome, Held) is waits


def test_it_is_loaded_at_once_if_that_delays_nobody_else() -> None:
    router = Router(fleet_of(slots=1))
    router.routed("a1")
    assert router.routed("a0").reservation.state is state_of(router.fleet, 2)


def test_it_waits_if_requests_for_the_base_model_would_be_delayed() -> None:
    router = Router(fleet_of(slots=1))
    router.routed("a1")
    router.fleet.ledger.reserve(state_of(router.fleet, 2), None)
    router.held("a0")


def test_it_lacks_no_slot_while_one_is_free() -> None:
    router = Router(fleet_of())
    busy(router)
    router.held("a0")
    assert router.director.held_adapters() == {}
    for name in NAMES[20 : 20 + SLOTS]:
        router.fleet.ledger.reserve(state_of(router.fleet, 2), name)
    assert list(router.director.held_adapters()) == ["a0"]


def test_it_is_loaded_at_once_if_many_requests_wait() -> None:
    router = Router(fleet_of())
    busy(router)
    assert WAITING_SHARE * LOAD_SECONDS**2 * 2 * SLOTS < 1
    router.held("a0")
    router.fleet.ledger.reserve(state_of(router.fleet, 1), "a20").release()
    assert router.routed("a20").reservation.state is state_of(router.fleet, 2)


def test_more_requests_wait_where_loads_take_longer() -> None:
    router = Router(fleet_of(load_seconds=4 * LOAD_SECONDS))
    busy(router)
    router.held("a0")
    router.fleet.ledger.reserve(state_of(router.fleet, 1), "a20").release()
    router.held("a20")


def test_an_adapter_that_no_pod_has_waits_for_nothing() -> None:
    router = Router(fleet_of())
    busy(router)
    assert router.routed("a30").reservation.state is state_of(router.fleet, 2)


def test_it_may_not_wait_if_no_request_may() -> None:
    router = Router(fleet_of(), max_hold_seconds=0.0)
    busy(router)
    assert router.routed("a0").reservation.state is state_of(router.fleet, 2)
