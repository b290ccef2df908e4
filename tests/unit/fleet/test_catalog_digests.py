"""Digests of lists of models: equal for equal lists, in every process."""

import gc

from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.catalog import Catalog, ServedModel
from lora_router.fleet.catalog_digests import DIGEST_BYTES, CatalogDigests

MODELS = [ServedModel("base"), *(ServedModel(f"adapter-{n}", "base") for n in range(5))]


def test_equal_lists_have_the_same_digest_whatever_their_order() -> None:
    digests = CatalogDigests()

    assert digests.of(Catalog.of(MODELS)) == digests.of(Catalog.of(reversed(MODELS)))
    assert digests.of(Catalog.of(MODELS)) != digests.of(Catalog.of(MODELS[:-1]))


def test_a_digest_is_the_same_in_another_process() -> None:
    digest = CatalogDigests().of(Catalog.of([ServedModel("base"), ServedModel("a", "base")]))

    assert digest.hex() == "5ec7988ae7d62984622a4ec2c97943d5"
    assert len(digest) == DIGEST_BYTES


@given(
    st.lists(st.tuples(st.text(max_size=3), st.none() | st.text(max_size=3)), max_size=4),
    st.lists(st.tuples(st.text(max_size=3), st.none() | st.text(max_size=3)), max_size=4),
)
def test_different_lists_have_different_digests(
    ones: list[tuple[str, str | None]], others: list[tuple[str, str | None]]
) -> None:
    one, other = (
        Catalog.of(ServedModel(name, base) for name, base in each) for each in (ones, others)
    )
    equal = (one.base_models, one.adapters) == (other.base_models, other.adapters)

    digests = CatalogDigests()

    assert (digests.of(one) == digests.of(other)) is equal


def test_a_long_list_is_hashed_in_steps_and_once() -> None:
    digests = CatalogDigests()
    catalog = Catalog.of(ServedModel(f"adapter-{n}", "base") for n in range(5000))

    assert len(list(digests.in_steps(catalog))) == 5
    assert not list(digests.in_steps(catalog))
    assert digests.known(catalog) == digests.of(catalog)


def test_a_list_is_found_by_its_digest_while_it_is_in_use() -> None:
    digests = CatalogDigests()
    catalog = Catalog.of(MODELS)
    digest = digests.of(catalog)
    assert digests.find(digest) is catalog

    del catalog
    gc.collect()

    assert digests.find(digest) is None
