"""The union of catalogs, sorted, in steps."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet import model_list
from lora_router.fleet.catalog import Catalog, ServedModel
from lora_router.fleet.model_list import ModelList, list_in_steps

_MODELS = st.lists(
    st.builds(
        ServedModel, st.text(alphabet="abcé/", min_size=1, max_size=4), st.none() | st.just("base")
    ),
    max_size=12,
)


def made(catalogs: Iterable[Catalog]) -> tuple[ModelList, int]:
    """Return the list, and the number of steps that it took."""
    steps, count = list_in_steps(tuple(catalogs)), 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            listed: ModelList = end.value
            return listed, count
        count += 1


def test_a_model_of_several_catalogs_is_listed_once() -> None:
    first = Catalog.of([ServedModel("base"), ServedModel("sql", "base")])
    second = Catalog.of([ServedModel("base"), ServedModel("chat", "base")])

    listed, _ = made([first, second])

    assert list(zip(listed.names, listed.bases, strict=True)) == [
        ("base", None),
        ("chat", "base"),
        ("sql", "base"),
    ]


def test_an_adapter_on_some_pods_and_a_base_model_on_others_is_an_adapter() -> None:
    catalogs = [Catalog.of([ServedModel("m", "base")]), Catalog.of([ServedModel("m")])]

    assert made(catalogs)[0].bases == ["base"]
    assert made(catalogs[::-1])[0].bases == ["base"]


def test_no_catalog_is_an_empty_list() -> None:
    assert made([])[0] == ModelList([], [])


def test_a_long_list_takes_many_steps() -> None:
    names = [f"adapter-{number}" for number in range(3 * model_list.AT_ONCE)]

    listed, steps = made([Catalog.of(ServedModel(name, "base") for name in names)])

    assert listed.names == sorted(names)
    assert steps >= 9


@given(st.lists(_MODELS, max_size=4))
def test_the_union_is_complete_and_sorted(catalogs: list[list[ServedModel]]) -> None:
    usual, model_list.AT_ONCE = model_list.AT_ONCE, 3
    try:
        listed, _ = made(map(Catalog.of, catalogs))
    finally:
        model_list.AT_ONCE = usual

    assert listed.names == sorted({model.name for models in catalogs for model in models})
    assert len(listed.bases) == len(listed.names)
