"""Names that mean two things are found, shown, and warned of once."""

import logging
from collections.abc import Collection

import pytest

from lora_router.fleet.ambiguous_names import (
    MAX_NAMES,
    SERVED_ALIAS,
    TWO_KINDS,
    TWO_PARENTS,
    AmbiguousNames,
)
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from tests.fleet import make_fleet, state_of


def serve(fleet: Fleet, number: int, *models: ServedModel) -> None:
    fleet.put_models(state_of(fleet, number), models)


def ambiguous(fleet: Fleet, **aliases: Collection[str]) -> AmbiguousNames:
    return AmbiguousNames(fleet, lambda: aliases)


def test_in_a_usual_fleet_no_name_is_ambiguous() -> None:
    names = ambiguous(make_fleet(3))

    assert (names.count(), names.status()) == (0, {})


def test_a_base_model_that_is_an_adapter_elsewhere_counts_as_an_adapter() -> None:
    fleet = make_fleet(2)
    serve(fleet, 1, ServedModel("base"), ServedModel("other", "base"))
    serve(fleet, 2, ServedModel("other"))

    assert ambiguous(fleet).find() == {"other": TWO_KINDS}
    assert fleet.serving("other").is_adapter


def test_an_adapter_of_two_base_models() -> None:
    fleet = make_fleet(2)
    serve(fleet, 2, ServedModel("llama"), ServedModel("sql-lora", "llama"))

    assert ambiguous(fleet).find() == {"sql-lora": TWO_PARENTS}
    assert len(fleet.serving("sql-lora").pods) == 2


def test_a_pod_with_adapters_of_several_base_models() -> None:
    fleet = make_fleet(2)
    serve(
        fleet, 2, ServedModel("llama"), ServedModel("sql-lora", "llama"), ServedModel("x", "base")
    )

    assert ambiguous(fleet).find() == {"sql-lora": TWO_PARENTS}


def test_an_alias_that_pods_serve_unless_it_leads_to_itself() -> None:
    fleet = make_fleet(1)

    assert ambiguous(fleet, **{"sql-lora": ("base",)}).find() == {"sql-lora": SERVED_ALIAS}
    assert ambiguous(fleet, **{"sql-lora": ("sql-lora", "base")}).find() == {}


def test_each_name_is_logged_once_and_a_change_of_pods_is_noticed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = make_fleet(2)
    names = ambiguous(fleet)
    assert names.count() == 0
    with caplog.at_level(logging.WARNING):
        serve(fleet, 2, ServedModel("llama"), ServedModel("sql-lora", "llama"))
        assert names.status()["ambiguous_models"] == 1
        serve(fleet, 2, ServedModel("llama"), ServedModel("sql-lora", "llama"), ServedModel("x"))
        assert names.count() == 1
        serve(fleet, 2, ServedModel("base"))
        assert names.count() == 0

    assert len(caplog.records) == 1
    assert "sql-lora" in caplog.text


def test_what_is_shown_and_logged_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    fleet = make_fleet(2)
    for number, base in ((1, "a"), (2, "b")):
        adapters = (ServedModel(f"lora-{each}", base) for each in range(1000))
        serve(fleet, number, ServedModel(base), *adapters)
    names = ambiguous(fleet)

    status = names.status()

    assert status["ambiguous_models"] == 1000
    assert isinstance(status["ambiguous"], dict)
    assert len(status["ambiguous"]) == 10
    assert len(caplog.records) == 256


@pytest.mark.slow
def test_more_names_than_can_be_compared_are_left_out() -> None:
    fleet = make_fleet(2)
    many = (ServedModel(f"lora-{each}", "base") for each in range(MAX_NAMES))
    serve(fleet, 1, ServedModel("base"), *many)
    serve(fleet, 2, ServedModel("lora-1"))

    assert ambiguous(fleet).find() == {}
