"""Catalogs are shared, freed, and bounded."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.catalog import (
    EMPTY,
    CatalogBuilder,
    Catalogs,
    CatalogsFullError,
    ServedModel,
)

BASE = ServedModel("base")


def adapters(*names: str) -> list[ServedModel]:
    return [BASE, *(ServedModel(name, "base") for name in names)]


def test_equal_lists_share_a_catalog_in_any_order() -> None:
    catalogs = Catalogs()
    first = catalogs.of(adapters("a", "b"))

    assert catalogs.of(reversed(adapters("a", "b"))) is first
    assert catalogs.of(adapters("a")) is not first
    assert catalogs.of([]) is EMPTY


models = st.builds(
    ServedModel, st.sampled_from("abc"), st.sampled_from([None, "x", "y"]) | st.none()
)


@given(st.lists(models, max_size=8), st.lists(models, max_size=8))
def test_catalogs_are_shared_exactly_if_they_are_equal(
    one: list[ServedModel], two: list[ServedModel]
) -> None:
    catalogs = Catalogs()
    first, second = catalogs.of(one), catalogs.of(two)

    equal = first.base_models == second.base_models and first.adapters == second.adapters
    assert (first is second) is equal
    assert first.bytes == EMPTY.bytes if not one else first.bytes > 0


def test_catalogs_with_the_same_fingerprint_are_not_confused() -> None:
    catalogs = Catalogs()
    first, second = (CatalogBuilder() for _ in range(2))
    first.add("a", None)
    second.add("b", None)
    second._fingerprint = first._fingerprint

    assert catalogs.of(first.catalog()).base_models == {"a"}
    assert catalogs.of(second.catalog()).base_models == {"b"}


def test_a_catalog_that_nobody_uses_is_freed() -> None:
    catalogs = Catalogs()
    used = catalogs.of(adapters("a"))
    for number in range(100):
        catalogs.of(adapters(f"other-{number}"))
    gc.collect()

    assert len(catalogs._known) == 2
    assert catalogs.of(adapters("a")) is used


def test_the_memory_of_all_catalogs_is_bounded() -> None:
    catalogs = Catalogs()
    one = catalogs.of(adapters("a"), max_bytes=1000)
    other = catalogs.of(adapters("b"), max_bytes=1000)
    with pytest.raises(CatalogsFullError, match="more than 1000 bytes"):
        catalogs.of(adapters("c", "d"), max_bytes=1000)

    assert catalogs.of(adapters("a"), max_bytes=1) is one
    del other
    gc.collect()
    catalogs.of(adapters("c", "d"), max_bytes=1000)
