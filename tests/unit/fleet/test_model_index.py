"""Which pods a model leads to, as pods, models and health change."""

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from tests.fleet import make_fleet, state_of


def names(fleet: Fleet, model: str) -> list[str]:
    return [state.pod.name for state in fleet.serving(model).pods]


def test_a_model_leads_to_the_ready_pods_that_serve_it() -> None:
    fleet = make_fleet(2)
    fleet.put_models(state_of(fleet, 2), [ServedModel("base"), ServedModel("rare", "base")])

    assert names(fleet, "base") == ["pod-1", "pod-2"]
    assert names(fleet, "sql-lora") == ["pod-1"]
    assert names(fleet, "rare") == ["pod-2"]
    assert names(fleet, "nobody") == []


def test_adapters_are_distinguished_from_base_models() -> None:
    fleet = make_fleet(1)

    assert fleet.serving("sql-lora").is_adapter
    assert not fleet.serving("base").is_adapter
    assert list(fleet.models()) == ["base", "sql-lora"]


def test_names_that_clients_invent_are_not_stored() -> None:
    fleet = make_fleet(1)
    for number in range(1000):
        fleet.serving(f"invented-{number}")

    assert list(fleet._by_model) == []


def test_models_of_the_same_pods_share_a_group() -> None:
    fleet = make_fleet(2)
    fleet.put_models(state_of(fleet, 2), [ServedModel("base")])

    assert fleet.serving("sql-lora").pods is not fleet.serving("base").pods
    assert fleet.serving("base").pods.is_everyone
    assert not fleet.serving("sql-lora").pods.is_everyone

    fleet.put_models(state_of(fleet, 2), [ServedModel("base"), ServedModel("sql-lora", "base")])
    assert fleet.serving("sql-lora").pods is fleet.serving("base").pods


def test_a_change_of_pods_is_found_by_the_next_lookup() -> None:
    fleet = make_fleet(1)
    assert names(fleet, "base") == ["pod-1"]
    assert len(fleet.catalogs()) == 1

    fleet.remove("pod-1")

    assert names(fleet, "base") == []
    assert fleet.models() == {}
    assert not fleet.catalogs()
