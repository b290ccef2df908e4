"""Catalogs are shared, freed, and bounded."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.catalog import (
    EMPTY,
    Catalog,
    CatalogBuilder,
    Catalogs,
    CatalogsFullError,
    ChangedCatalogs,
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


names = st.sampled_from("abcdef")


@given(
    st.sets(names),
    st.lists(
        st.tuples(st.frozensets(names, max_size=3), st.none() | st.tuples(names, st.just("base"))),
        max_size=6,
    ),
)
def test_a_changed_catalog_is_as_if_it_was_made_of_its_models(
    listed: set[str], changes: list[tuple[frozenset[str], tuple[str, str] | None]]
) -> None:
    catalog = Catalog.of(adapters(*sorted(listed)))
    made, expected = [catalog, Catalog.of(adapters("f"))], set(listed)
    for without, with_one in changes:
        catalog = catalog.changed(without, with_one)
        expected = expected - without | ({with_one[0]} if with_one is not None else set())
        anew = Catalog.of(adapters(*sorted(expected)))
        made.append(catalog)

        assert catalog.base_models == {"base"}
        assert catalog.adapters == anew.adapters
        assert (catalog.fingerprint, catalog.bytes) == (anew.fingerprint, anew.bytes)
        for each in made:
            assert each.differing(catalog) == each.adapters.keys() ^ catalog.adapters.keys()
    assert made[0].adapters.keys() == listed, "the first one is as it was"


def test_how_a_catalog_differs_is_known_too_if_its_origin_is_not_in_use_any_more() -> None:
    first = Catalog.of(adapters("a", "b"))
    second = first.changed(("a",))
    del first
    gc.collect()

    third = second.changed((), ("c", "base"))

    assert second.differing(third) == {"c"}
    assert second.differing(Catalog.of(adapters("a"))) == {"a", "b"}


def test_lists_that_change_alike_share_a_catalog_while_it_is_in_use() -> None:
    changed = ChangedCatalogs()
    first = Catalog.of(adapters("a", "b"))
    second = changed.of(first, ("a",))

    assert changed.of(first, ["a"]) is second
    assert changed.of(first, ("unknown",)) is first
    assert changed.of(first, ("b",)) is not second


def test_pods_for_which_discovery_lists_the_same_share_a_catalog() -> None:
    catalogs = Catalogs()
    first = catalogs.of_names(("base", "a"))

    assert first.base_models == {"base"}
    assert first.adapters == {"a": "base"}
    assert catalogs.of_names(("base", "b")) is not first
    assert catalogs.of_names(("base", "a")) is first
