"""What contradicts what this router has read."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.scrape.contradictions import contradiction
from tests.fleet import make_metrics
from tests.unit.scrape.sharing_routers import list_of

USUAL = replace(make_metrics(("a", "b", "c", "d", "e")), running=30.0, waiting=2.0, started_at=1e9)


@pytest.mark.parametrize(
    ("told", "what"),
    [
        (replace(USUAL, started_at=1e9 + 60), "start of the server"),
        (replace(USUAL, lora=make_metrics(max_lora=16).lora), "number of slots"),
        (replace(USUAL, running=0.0, waiting=0.0), "number of requests"),
        (replace(USUAL, running=400.0), "number of requests"),
        (replace(USUAL, lora=make_metrics().lora), "active adapters"),
        (replace(USUAL, lora=make_metrics("vwxyz").lora), "active adapters"),
    ],
)
def test_a_large_difference_before_and_after_is_a_contradiction(
    told: PodMetrics, what: str
) -> None:
    assert contradiction([USUAL], [told, told]) == what
    assert contradiction([USUAL, USUAL], [told, told, told]) == what
    assert contradiction([USUAL], [USUAL, told]) is None, "the pod changed after this router's read"
    assert contradiction([USUAL], [told, USUAL]) is None, "or before it"
    assert contradiction([USUAL, told], [told, told, told]) is None, "or changed for a moment"


@given(
    st.lists(st.floats(0, 200), min_size=3, max_size=3),
    st.sets(st.sampled_from("abcdefgh"), max_size=6),
    st.sets(st.sampled_from("abcdefgh"), max_size=2),
)
def test_numbers_that_move_and_adapters_that_come_and_go_are_none(
    loads: list[float], active: set[str], moved: set[str]
) -> None:
    low, middle, high = sorted(loads)
    before = replace(make_metrics(active), running=low)
    own = replace(make_metrics(active ^ moved), running=middle)
    after = replace(make_metrics(active), running=high)

    assert contradiction([own], [before, after]) is None
    assert contradiction([own], [after, before]) is None


def test_what_a_page_does_not_have_contradicts_nothing() -> None:
    nothing = PodMetrics(scraped_at=0.0, running=30.0)

    assert contradiction([nothing], [USUAL, USUAL]) is None
    assert contradiction([USUAL], [nothing, nothing]) is None


def test_a_list_is_contradicted_by_what_always_or_never_was_in_it() -> None:
    assert contradiction([list_of("a")], [list_of("a"), list_of("a", "b")]) is None
    assert contradiction([list_of("a")], [list_of("a", "b"), list_of("a")]) is None
    assert contradiction([list_of("a")], [list_of("b"), list_of("b", "c")]) == "list of models"
    assert contradiction([list_of("a")], [list_of(), list_of()]) == "list of models"


def test_a_list_that_changes_again_and_again_is_not_contradicted_by_what_it_was_before() -> None:
    # The pod loaded b, this router read it, and then the pod loaded c.
    told = [list_of("a"), list_of("a", "b", "c")]

    assert contradiction([list_of("a", "b")], told) is None


def test_adapters_that_change_within_each_interval_contradict_nothing() -> None:
    rng = random.Random(1)
    names = [f"adapter-{n}" for n in range(100)]
    for _ in range(300):
        before, own, between, again, after = (
            make_metrics(rng.sample(names, 16), max_lora=16) for _ in range(5)
        )
        assert contradiction([own, again], [before, between, between, after]) is None


@pytest.mark.parametrize("own", [USUAL, list_of("a")])
def test_pages_of_different_kinds_are_not_compared(own: PodMetrics | Catalog) -> None:
    other: PodMetrics | Catalog = list_of("b") if isinstance(own, PodMetrics) else USUAL

    assert contradiction([own], [other, other]) is None
