from collections import Counter
from collections.abc import Collection, Iterable

import pytest

from lora_router.adapters.adapter_place import Place
from lora_router.adapters.declared import DeclaredAdapter, WantedPods
from lora_router.adapters.demand import Demand
from lora_router.adapters.places import PlaceSearch
from lora_router.adapters.trouble import Trouble
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.steps import all_at_once
from tests.fleet import make_fleet, make_metrics, state_of


def _adapters(count: int, **fields: object) -> list[DeclaredAdapter]:
    return [
        DeclaredAdapter(f"a{number}", "base", f"/lora/a{number}", **fields)  # type: ignore[arg-type]
        for number in range(count)
    ]


def _lists(fleet: Fleet, number: int, names: Iterable[str]) -> None:
    models = [ServedModel("base"), *(ServedModel(name, "base") for name in names)]
    fleet.put_models(state_of(fleet, number), models)


def _find(
    fleet: Fleet, declared: Collection[DeclaredAdapter], demand: Demand | None = None
) -> list[Place]:
    return _searched(PlaceSearch(tuple(declared), tuple(fleet), demand or Demand()))


def _searched(search: PlaceSearch) -> list[Place]:
    all_at_once(search.steps())
    return search.places


def _copies(places: Iterable[Place]) -> Counter[str]:
    return Counter(place.adapter.name for place in places)


def _of(places: Iterable[Place], number: int) -> set[str]:
    return {place.adapter.name for place in places if place.state.pod.name == f"pod-{number}"}


def test_every_adapter_gets_two_copies_if_host_memory_holds_so_many() -> None:
    fleet = make_fleet(8, adapters=(), host_memory=16)
    places = _find(fleet, _adapters(64))
    assert set(_copies(places).values()) == {2}
    assert {len(_of(places, number)) for number in range(1, 9)} == {16}


def test_all_adapters_are_everywhere_if_host_memory_holds_them() -> None:
    fleet = make_fleet(4, adapters=(), host_memory=8)
    assert len(_find(fleet, _adapters(8))) == 4 * 8


def test_nothing_exceeds_host_memory_beside_what_is_not_declared() -> None:
    fleet = make_fleet(1, adapters=("by-hand",), host_memory=3)
    assert len(_find(fleet, _adapters(5))) == 2


def test_a_number_of_copies_is_neither_exceeded_nor_missed() -> None:
    fleet = make_fleet(4, adapters=(), host_memory=8)
    assert _copies(_find(fleet, _adapters(2, pods=WantedPods(copies=3)))) == {"a0": 3, "a1": 3}


def test_what_is_loaded_stays_if_others_are_not_worth_much_more() -> None:
    fleet = make_fleet(1, adapters=(), host_memory=2)
    _lists(fleet, 1, ("a0", "a1"))
    demand = Demand({"a0": 0.3, "a1": 0.3, "a2": 0.6})
    assert _of(_find(fleet, _adapters(3), demand), 1) == {"a0", "a1"}


def test_an_adapter_that_is_much_asked_for_takes_the_place_of_one_that_is_not() -> None:
    fleet = make_fleet(1, adapters=(), host_memory=2)
    _lists(fleet, 1, ("a0", "a1"))
    places = _find(fleet, _adapters(3), Demand({"a0": 1.0, "a2": 1.0}))
    assert _of(places, 1) == {"a0", "a2"}
    assert places[0].adapter.name == "a2"


def test_an_adapter_for_which_requests_wait_comes_first_whatever_is_loaded() -> None:
    fleet = make_fleet(2, adapters=(), host_memory=1)
    _lists(fleet, 1, ("a0",))
    _lists(fleet, 2, ("a1",))
    demand = Demand({"a0": 3.0, "a1": 2.0}, waiting=frozenset({"a2"}))
    places = _find(fleet, _adapters(3), demand)
    assert (places[0].adapter.name, places[0].reason) == ("a2", "first-use")
    assert _copies(places) == {"a2": 1, "a0": 1}


def test_a_pinned_adapter_keeps_a_copy() -> None:
    fleet = make_fleet(1, adapters=(), host_memory=1)
    _lists(fleet, 1, ("pinned",))
    pinned = DeclaredAdapter("pinned", "base", "/lora/pinned", pinned=True)
    places = _find(fleet, [pinned, *_adapters(1)], Demand({"a0": 9.0}))
    assert _of(places, 1) == {"pinned"}


def test_an_adapter_with_more_requests_than_its_pods_can_take_gets_further_copies() -> None:
    fleet = make_fleet(4, adapters=(), host_memory=2)
    names = [["a0", "a1"], ["a0", "a2"], ["a1", "a3"], ["a2", "a3"]]
    for number, some in enumerate(names, 1):
        _lists(fleet, number, some)
    demand = Demand({"a0": 40.0, "a1": 0.1, "a2": 0.1, "a3": 0.1})
    copies = _copies(_find(fleet, _adapters(4), demand))
    assert copies["a0"] > 2
    assert min(copies.values()) >= 1


def test_a_copy_goes_to_an_idle_pod_if_its_load_would_cost_more_than_it_saves() -> None:
    fleet = make_fleet(1, adapters=(), host_memory=2)
    _lists(fleet, 1, ("a0",))
    for _ in range(50):
        fleet.ledger.reserve(state_of(fleet, 1), "a0")
    assert _of(_find(fleet, _adapters(2), Demand({"a0": 50.0})), 1) == {"a0", "a1"}
    _lists(fleet, 1, ("a0", "a1"))
    places = _find(fleet, _adapters(3), Demand({"a0": 50.0, "a2": 0.1}))
    assert _of(places, 1) == {"a0", "a1"}


def test_the_same_fleet_gets_the_same_places_in_whatever_order_its_pods_are_known() -> None:
    fleet = make_fleet(8, adapters=(), host_memory=4)
    declared = _adapters(12)
    one = _searched(PlaceSearch(declared, tuple(fleet), Demand()))
    other = _searched(PlaceSearch(declared, tuple(fleet)[::-1], Demand()))
    assert sorted((place.adapter.name, place.state.pod.name) for place in one) == sorted(
        (place.adapter.name, place.state.pod.name) for place in other
    )


def test_the_least_number_of_copies_comes_before_what_demand_asks_for() -> None:
    fleet = make_fleet(4, adapters=(), host_memory=4)
    _lists(fleet, 1, ("a0",))
    demand = Demand({"a0": 2.0})
    places = _searched(PlaceSearch(_adapters(4), tuple(fleet), demand, min_copies=3))
    assert min(_copies(places).values()) >= 3


def test_adapters_whose_pods_have_few_slots_get_their_next_copies_where_slots_are_many() -> None:
    fleet = make_fleet(3, adapters=(), host_memory=8)
    for number, slots in ((1, 2), (2, 2), (3, 8)):
        fleet.put_metrics(state_of(fleet, number), make_metrics(max_lora=slots))
    _lists(fleet, 1, [f"a{number}" for number in range(8)])
    _lists(fleet, 3, [f"a{number}" for number in range(8, 12)])
    places = _find(fleet, _adapters(12))
    alone_on_few_slots = {f"a{number}" for number in range(8)}
    assert len(_of(places, 3) & alone_on_few_slots) == 4
    assert alone_on_few_slots <= _of(places, 2) | _of(places, 3)


@pytest.mark.parametrize(
    ("pods", "min_copies"),
    [
        (WantedPods(copies=2), 1),
        (WantedPods(everywhere=True), 1),
        (WantedPods(), 2),
    ],
)
def test_a_new_adapter_gets_its_first_copy_where_others_have_several(
    pods: WantedPods, min_copies: int
) -> None:
    fleet = make_fleet(2, adapters=(), host_memory=4)
    for number in (1, 2):
        _lists(fleet, number, [f"a{each}" for each in range(4)])
    # All others have requests in flight, on each pod.
    for number in (1, 2):
        for each in range(4):
            fleet.ledger.reserve(state_of(fleet, number), f"a{each}")
    declared = [*_adapters(4, pods=pods), DeclaredAdapter("new", "base", "/lora/new")]
    demand = Demand({f"a{each}": 2.0 for each in range(4)})

    places = _searched(PlaceSearch(declared, tuple(fleet), demand, min_copies))

    copies = _copies(places)
    assert copies.pop("new") == 1
    assert sorted(copies.values()) == [1, 2, 2, 2]


def test_copies_that_are_wanted_come_before_those_that_only_demand_asks_for() -> None:
    fleet = make_fleet(2, adapters=(), host_memory=2)
    _lists(fleet, 1, ("a0", "a1"))
    _lists(fleet, 2, ("a0",))
    twice = DeclaredAdapter("twice", "base", "/lora/twice", WantedPods(copies=2))
    places = _find(fleet, [*_adapters(2), twice], Demand({"a0": 9.0}))
    assert _copies(places) == {"a0": 1, "a1": 1, "twice": 2}


def test_no_popular_adapter_takes_the_last_copy_of_another_one_for_its_second() -> None:
    fleet = make_fleet(2, adapters=(), host_memory=1)
    _lists(fleet, 1, ("a0",))
    _lists(fleet, 2, ("a1",))
    assert _copies(_find(fleet, _adapters(2), Demand({"a0": 500.0}))) == {"a0": 1, "a1": 1}


def failing(on: PodState, *, may_evict: bool = True) -> Demand:
    """Return a demand in which pods do not load the adapter ``bad``."""
    trouble = Trouble(frozenset({on}), is_nowhere=True, may_evict=may_evict)
    return Demand(trouble=lambda name: trouble if name == "bad" else None)


BAD = DeclaredAdapter("bad", "base", "/lora/bad")


def test_an_adapter_that_a_pod_failed_to_load_gets_one_place_on_another_pod() -> None:
    fleet = make_fleet(3, adapters=(), host_memory=4)
    places = _find(fleet, [BAD], failing(state_of(fleet, 1)))
    assert [place.state.pod.name in {"pod-2", "pod-3"} for place in places] == [True]


def test_it_gets_one_on_that_pod_if_there_is_no_other() -> None:
    fleet = make_fleet(1, adapters=(), host_memory=4)
    assert _copies(_find(fleet, [BAD], failing(state_of(fleet, 1)))) == {"bad": 1}


def test_adapters_that_fail_get_places_after_all_others() -> None:
    fleet = make_fleet(1, adapters=(), host_memory=2)
    assert "bad" not in _copies(_find(fleet, [BAD, *_adapters(2)], failing(state_of(fleet, 1))))


@pytest.mark.parametrize("may_evict", [True, False])
def test_nothing_is_evicted_for_one_that_has_just_failed(may_evict: bool) -> None:
    fleet = make_fleet(2, adapters=(), host_memory=2)
    for number in (1, 2):
        _lists(fleet, number, ("a0", "a1"))
    demand = failing(state_of(fleet, 1), may_evict=may_evict)
    assert _copies(_find(fleet, [BAD, *_adapters(2)], demand))["bad"] == int(may_evict)
