"""What people order by hand."""

import pytest

from lora_router.adapters.orders import OrderError, Orders, PendingStep
from lora_router.adapters.sources import AllowedSources
from tests.unit.adapters.loading import Loading, adapter, adapters


def _orders(loading: Loading, *prefixes: str) -> Orders:
    return Orders(loading.declarations, loading.loader, AllowedSources(prefixes), loading.fleet)


def _pending(orders: Orders) -> list[PendingStep]:
    return [step for steps in orders.pending() for step in steps]


def test_an_adapter_with_an_allowed_source_is_loaded_until_it_is_unloaded() -> None:
    loading = Loading(2)
    orders = _orders(loading, "s3://lora")
    loading.run(1.0)
    assert orders.obeys

    orders.load("sql", "s3://lora/sql", None, 1)
    loading.run(1.0)
    assert loading.everywhere() == {"sql"}

    orders.unload("sql")
    loading.run(2.0)
    assert loading.everywhere() == set()


def test_what_a_command_declares_ends_when_another_router_loads() -> None:
    this_one_loads = True
    loading = Loading(2, is_loader=lambda: this_one_loads)
    orders = _orders(loading, "s3://lora")
    loading.run(1.0)
    orders.load("sql", "s3://lora/sql", None, 1)
    loading.declarations.replace("file", adapters(1))
    loading.run(1.0)

    this_one_loads = False
    loading.run(2.0)
    assert [each.name for each in loading.declarations] == ["a0"]

    # An order to the other router unloads it.
    for state in loading.fleet:
        loading.pods.listed[state] = {"a0": ""}
        loading.pods.show(state)
    this_one_loads = True
    loading.run(10.0)
    assert loading.everywhere() == {"a0"}
    orders.load("sql", "s3://lora/sql", None, 1)
    loading.run(1.0)
    assert loading.everywhere() == {"a0", "sql"}


@pytest.mark.parametrize(
    ("name", "source", "base_model", "said"),
    [
        ("a b", "s3://lora/a", None, "name='a b': must be"),
        ("a", "s3://other/a", None, "source='s3://other/a': must begin with a prefix in"),
        ("base", "s3://lora/a", None, "name='base': is a base model: choose another name"),
        ("a", "s3://lora/../a", None, "source='s3://lora/../a': must be"),
        ("a", "s3://lora/ü", None, "source='s3://lora/ü': must be a path or URL of ASCII charac"),
        ("a", "s3://lora/a", "other", "base_model='other': no pod serves"),
        ("a", None, None, "'a' is not declared: name its source"),
        ("a0", "s3://lora/a0", None, "'a0' is declared by the file: change its source there"),
    ],
)
def test_an_order_that_cannot_be_obeyed_says_why(
    name: str, source: str | None, base_model: str | None, said: str
) -> None:
    orders = _orders(Loading(1, declared=adapters(1)), "s3://lora")
    with pytest.raises(OrderError, match=said.replace("'", "['\"]")):
        orders.load(name, source, base_model)


def test_copies_that_no_pod_has_room_for_are_said() -> None:
    orders = _orders(Loading(2), "s3://lora")

    assert orders.load("a", "s3://lora/a", None, 2).endswith("loaded now")
    assert orders.load("b", "s3://lora/b", None, 9).endswith("now, on 2 pods: no more serve base")


def test_what_an_order_cannot_change_is_not_ignored() -> None:
    orders = _orders(Loading(1, declared=adapters(1)), "s3://lora")
    orders.load("mine", "s3://lora/mine", None)

    with pytest.raises(OrderError, match="'a0' is declared by the file: change its copies there"):
        orders.load("a0", None, None, 2)
    with pytest.raises(OrderError, match="'mine': to change its base model, name its source, too"):
        orders.load("mine", None, "base")


def test_commands_need_an_allowed_prefix() -> None:
    orders = _orders(Loading(1))
    with pytest.raises(OrderError, match="adapter_sources, which is empty"):
        orders.load("a", "s3://lora/a", None)


def test_a_declared_adapter_that_failed_is_tried_again_at_once() -> None:
    loading = Loading(1, declared=adapters(1))
    orders = _orders(loading)
    loading.pods.answer = lambda _: "refused"
    loading.run(30.0)
    tries = len(loading.pods.calls)
    assert [step.put_off for step in _pending(orders)] == ["failing"]

    loading.pods.answer = lambda _: "done"
    orders.load("a0", None, None)
    loading.run(0.5)

    assert len(loading.pods.calls) == tries + 1
    assert loading.everywhere() == {"a0"}
    assert _pending(orders) == []


def test_pods_that_took_no_loads_are_tried_again_by_a_sync() -> None:
    loading = Loading(1, declared=adapters(1))
    orders = _orders(loading)
    loading.pods.answer = lambda _: "cannot-load"
    loading.run(1.0)
    loading.pods.answer = lambda _: "done"
    loading.run(1.0)
    assert loading.everywhere() == set()

    orders.sync()
    loading.run(1.0)

    assert loading.everywhere() == {"a0"}


def test_what_the_file_declares_is_removed_there() -> None:
    orders = _orders(Loading(1, declared=adapters(1)))
    with pytest.raises(OrderError, match="declared by the file: remove it there"):
        orders.unload("a0")
    with pytest.raises(OrderError, match="no pod lists an adapter 'other'"):
        orders.unload("other")


def test_an_unload_says_that_the_adapter_stays_if_the_file_declares_it_too() -> None:
    loading = Loading(1)
    orders = _orders(loading, "s3://lora")
    loading.run(1.0)
    orders.load("sql", "s3://lora/sql", None)
    loading.declarations.replace("file", [adapter("sql", source="s3://lora/sql")])

    said = orders.unload("sql")
    loading.run(10.0)

    assert said == "sql is no longer declared by a command, and stays declared by the file"
    assert loading.everywhere() == {"sql"}


def test_a_version_that_is_declared_is_not_unloaded_by_its_served_name() -> None:
    loading = Loading(1, declared=[adapter("sql", version="2")])
    orders = _orders(loading)
    loading.run(1.0)
    with pytest.raises(OrderError, match="'sql@2' is declared by the file: remove it there"):
        orders.unload("sql@2")


def test_an_adapter_that_was_loaded_by_hand_is_unloaded_after_its_last_request() -> None:
    loading = Loading(2, listed=("by-hand",))
    orders = _orders(loading)
    loading.run(1.0)
    running = loading.fleet.ledger.reserve(loading.state(1), "by-hand")

    orders.unload("by-hand")
    assert {(step.action, step.adapter, step.reason) for step in _pending(orders)} == {
        ("unload", "by-hand", "removed")
    }
    loading.run(3.0)
    assert loading.everywhere() == {"by-hand"}

    running.release()
    loading.run(3.0)
    assert loading.everywhere() == set()


def test_what_is_to_be_done_is_told_before_it_is_done() -> None:
    loading = Loading(1, declared=[adapter("sql", version="1")], memory=4)
    orders = _orders(loading)
    loading.run(1.0)
    loading.loader.stop()
    loading.declarations.replace("file", [adapter("sql", version="2"), adapter("chat")])
    loading.loader.start()
    loading.pods.seconds = 60.0

    loading.run(1.0)

    assert ("unload", "sql@1", "older-version") in {
        (step.action, step.adapter, step.reason) for step in _pending(orders)
    }
