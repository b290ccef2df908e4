"""Names that pods should serve no longer are forgotten once no pod lists them."""

import pytest

from lora_router.adapters.declared import MAX_DECLARED
from lora_router.adapters.orders import Orders
from lora_router.adapters.removed_names import RemovedNames
from lora_router.adapters.slices import Slices
from lora_router.adapters.sources import AllowedSources
from lora_router.fleet.fleet import Fleet
from tests.fleet import ManualClock
from tests.unit.adapters.loading import Loading, adapters

HOUR = 3600.0


def loads_by_hand(loading: Loading, name: str) -> None:
    state = loading.state(1)
    loading.pods.listed[state][name] = ""
    loading.pods.show(state)


def test_an_adapter_that_is_loaded_by_hand_again_long_after_an_order_to_unload_it_stays() -> None:
    loading = Loading(1, listed=("by-hand",))
    orders = Orders(loading.declarations, loading.loader, AllowedSources(()), loading.fleet)
    loading.run(1.0)
    orders.unload("by-hand")
    loading.run(3.0)
    assert loading.loaded(1) == []

    loading.run(HOUR)
    loads_by_hand(loading, "by-hand")
    loading.run(60.0)

    assert loading.loaded(1) == ["by-hand"]


def test_a_new_pod_keeps_what_it_starts_with_although_it_was_declared_once() -> None:
    loading = Loading(1, declared=adapters(2))
    loading.run(2.0)
    loading.declarations.replace("file", adapters(1))
    loading.run(HOUR)
    loading.join(2, ("a1",))
    loading.run(60.0)
    assert loading.loaded(2) == ["a0", "a1"]


@pytest.mark.parametrize("loads", [True, False])
def test_a_name_is_remembered_while_a_pod_lists_it(loads: bool) -> None:
    """It has requests, or pods do not unload it, or another router loads."""
    is_loader = True
    loading = Loading(2, declared=adapters(1), is_loader=lambda: is_loader)
    loading.run(2.0)
    running = loading.fleet.ledger.reserve(loading.state(1), "a0")
    is_loader = loads
    loading.declarations.replace("file", [])
    loading.run(HOUR)
    assert loading.loaded(1) == ["a0"]

    is_loader = True
    running.release()
    loading.run(60.0)

    assert loading.everywhere() == set()


def test_a_name_is_remembered_while_the_fleet_is_empty_and_a_pod_is_away_for_a_moment() -> None:
    loading = Loading(1, declared=adapters(1))
    loading.run(2.0)
    loading.declarations.replace("file", [])
    loading.fleet.replace([])
    loading.run(HOUR)
    loading.join(1, ("a0",))
    loading.run(10.0)
    assert loading.loaded(1) == []


def test_how_many_names_are_remembered_is_bounded() -> None:
    clock = ManualClock()
    removed = RemovedNames(Fleet(), clock, Slices(clock), lambda _: ())
    for number in range(MAX_DECLARED + 5):
        removed.add(f"a{number}")
    assert len(removed) == MAX_DECLARED
    assert "a4" not in removed
    assert "a5" in removed
