"""The estimate of what is in slots: the adapters in flight, and those that were used last."""

from dataclasses import replace

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.resident_adapters import estimate_resident, seat
from tests.fleet import make_fleet, make_metrics, state_of


def idle(max_lora: int = 2) -> PodMetrics:
    return replace(make_metrics(max_lora=max_lora), running=0.0)


def test_slots_have_what_is_in_flight_and_then_what_was_used_last() -> None:
    uses = dict.fromkeys(["flying", "a", "b", "c", "theirs"], 0.0)

    resident = estimate_resident(uses, {"flying": 1}, {"theirs"}, None, 3)

    assert list(resident) == ["flying", "c", "theirs"]


def test_of_too_many_in_flight_those_are_in_slots_that_are_seated() -> None:
    uses = dict.fromkeys(["a", "b", "c", "idle"], 0.0)

    assert list(estimate_resident(uses, {"a": 1, "b": 1, "c": 1}, frozenset(), {"a", "c"}, 2)) == [
        "a",
        "c",
    ]


def test_the_one_idle_for_longest_makes_room() -> None:
    resident = dict.fromkeys(["flying", "theirs", "old", "new"])

    seat("next", resident, 4, {"flying": 1}, {"theirs"})

    assert list(resident) == ["flying", "theirs", "new", "next"]


def test_the_adapters_used_last_are_resident_one_for_each_slot() -> None:
    fleet = make_fleet(1, adapters=("a", "b", "c"), host_memory=3)
    state = state_of(fleet, 1)
    fleet.put_metrics(state, idle(max_lora=2))
    for adapter in ("a", "b", "c"):
        fleet.ledger.reserve(state, adapter).release()

    assert [state.beliefs.is_resident(name) for name in ("a", "b", "c")] == [False, True, True]
    assert state.beliefs.in_host_memory("a")

    # It is used again, so it is loaded again.
    fleet.ledger.reserve(state, "a")
    assert [state.beliefs.is_resident(name) for name in ("a", "b", "c")] == [True, False, True]


def test_an_adapter_that_ends_later_was_used_later() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    fleet.put_metrics(state, idle(max_lora=1))
    long = fleet.ledger.reserve(state, "long")
    fleet.ledger.reserve(state, "short").release()
    long.release()
    assert state.beliefs.is_resident("long")


def test_an_adapter_in_flight_keeps_its_slot_however_many_others_were_used_since() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    fleet.put_metrics(state, idle(max_lora=2))
    fleet.ledger.reserve(state, "long")
    for name in ("a", "b", "c"):
        fleet.ledger.reserve(state, name).release()

    in_slots = [name for name in ("long", "a", "b", "c") if state.beliefs.is_resident(name)]
    assert in_slots == ["long", "c"]


def test_of_more_adapters_in_flight_than_slots_those_are_resident_that_were_seen_active() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    for name in ("a", "b", "c"):
        fleet.ledger.reserve(state, name)
    fleet.put_metrics(state, make_metrics(("a", "c"), max_lora=2))

    assert [state.beliefs.is_resident(name) for name in ("a", "b", "c")] == [True, False, True]
