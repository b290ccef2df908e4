"""Which adapters are idle but loaded, and what a router tells its peers of them."""

from dataclasses import replace

from lora_router.fleet.idle_adapters import idle_by_pod, idle_on, used_since
from lora_router.fleet.pod_metrics import LoraResidency
from tests.fleet import make_fleet, make_metrics, state_of


def test_an_adapter_that_came_and_went_is_told_once() -> None:
    fleet = make_fleet(2, adapters=("a", "b"))
    states = {state.pod.name: state for state in fleet}
    fleet.ledger.reserve(state_of(fleet, 1), "a").release()
    fleet.ledger.reserve(state_of(fleet, 1), "b")

    assert {pod: list(used.adapters) for pod, used in used_since(states, 5.0).items()} == {
        "pod-1": ["a"]
    }
    assert used_since(states, 6.0) == {}


def test_idle_adapters_are_told_with_the_seconds_since_their_last_use() -> None:
    fleet = make_fleet(2, adapters=("a", "b"))
    states = {state.pod.name: state for state in fleet}
    for state in fleet:
        fleet.put_metrics(state, make_metrics(()))
    for adapter in ("a", "b"):
        fleet.ledger.reserve(state_of(fleet, 1), adapter).release()
    used_since(states, 5.0)

    told = idle_by_pod(states, 7.0, 1000)

    assert {pod: used.adapters for pod, used in told.items()} == {"pod-1": {"a": 2.0, "b": 2.0}}
    assert list(idle_by_pod(states, 7.0, 1)["pod-1"].adapters) == ["b"]


def test_what_the_server_reports_itself_is_not_told() -> None:
    fleet = make_fleet(1)
    fleet.ledger.reserve(state_of(fleet, 1), "a").release()
    beliefs = state_of(fleet, 1).beliefs
    assert list(idle_on(beliefs, 1.0)) == ["a"]

    residency = LoraResidency(frozenset({"a"}), frozenset(), None)
    fleet.put_metrics(state_of(fleet, 1), replace(make_metrics(), residency=residency))

    assert idle_on(beliefs, 1.0) == {}
