"""Slots that are closed for adapters that wait, where pods have different adapters."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.routing.overload import PATIENCE_SECONDS, Overload
from tests.fleet import make_fleet, make_metrics, state_of
from tests.unit.routing.router import Router


def fleet_with(adapters: Mapping[int, Sequence[str]]) -> Fleet:
    """Return a fleet of pods with one slot, each with its own adapters, all in host memory."""
    fleet = make_fleet(len(adapters))
    for number, names in adapters.items():
        state = state_of(fleet, number)
        fleet.put_models(
            state, [ServedModel("base"), *(ServedModel(each, "base") for each in names)]
        )
        fleet.put_metrics(state, replace(make_metrics(max_lora=1), running=0.0))
        for each in names:
            fleet.ledger.reserve(state, each).release()
    return fleet


def router_with(adapters: Mapping[int, Sequence[str]], closed_slots_share: float = 0.1) -> Router:
    overload = Overload(closed_slots_share=closed_slots_share)
    return Router(fleet_with(adapters), overload=overload)


def test_an_adapter_that_could_be_elsewhere_leaves_its_slot_at_once() -> None:
    router = router_with({1: ["a1", "a2"], 2: ["a1"]})
    running = router.fleet.ledger.reserve(state_of(router.fleet, 1), "a1")
    router.held("a2")

    # Further requests for a1 do not keep a2 from its only pod.
    assert router.routed("a1").reservation.state is state_of(router.fleet, 2)
    running.release()
    assert router.late_pod("a2") is state_of(router.fleet, 1)


def test_an_adapter_that_could_not_keeps_it_until_the_other_has_waited_for_long() -> None:
    router = router_with({1: ["a1", "a2"], 2: ["a3"]})
    router.fleet.ledger.reserve(state_of(router.fleet, 1), "a1")
    router.held("a2")
    assert router.routed("a1").reason == "joined"

    router.clock.advance(PATIENCE_SECONDS)
    router.held("a1")


def test_an_adapter_keeps_it_while_its_other_pods_are_full() -> None:
    router = router_with({1: ["a1", "a2"], 2: ["a1", "a3"]})
    router.fleet.ledger.reserve(state_of(router.fleet, 1), "a1")
    router.fleet.ledger.reserve(state_of(router.fleet, 2), "a3")
    router.held("a2")
    assert router.routed("a1").reservation.state is state_of(router.fleet, 1)


def test_of_two_copies_in_flight_the_one_leaves_that_is_in_the_way() -> None:
    router = router_with({1: ["a1", "a2"], 2: ["a1"]})
    for number in (1, 2):
        router.fleet.ledger.reserve(state_of(router.fleet, number), "a1")
    router.held("a2")
    for _ in range(4):
        assert router.routed("a1").reservation.state is state_of(router.fleet, 2)


def test_where_all_pods_have_the_same_adapters_no_slot_is_closed_at_once() -> None:
    router = router_with({1: ["a1", "a2"], 2: ["a1", "a2"]})
    for number in (1, 2):
        router.fleet.ledger.reserve(state_of(router.fleet, number), "a1")
    router.held("a2")
    assert router.director.held_adapters()["a2"].closed is None


def test_no_slot_is_closed_where_none_may_be() -> None:
    router = router_with({1: ["a1", "a2"], 2: ["a1"]}, closed_slots_share=0.0)
    router.fleet.ledger.reserve(state_of(router.fleet, 1), "a1")
    router.held("a2")
    assert router.director.held_adapters()["a2"].closed is None
