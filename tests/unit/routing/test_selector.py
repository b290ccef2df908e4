"""Label selectors, with Kubernetes' grammar."""

import re
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lora_router.routing.selector import (
    Operator,
    Requirement,
    Selector,
    SelectorError,
    parse_selector,
    selector_pattern,
)

POD = {"gpu": "h100", "zone": "a", "example.com/team": "search", "slots": "8", "empty": ""}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("  ", True),
        ("gpu=h100", True),
        ("gpu==h100", True),
        (" gpu = h100 , zone = a ", True),
        ("gpu=a100", False),
        ("gpu=h100,zone=b", False),
        ("gpu!=a100", True),
        ("gpu!=h100", False),
        ("absent!=x", True),
        ("gpu in (a100, h100)", True),
        ("gpu in (a100)", False),
        ("absent in (x)", False),
        ("gpu notin (a100,l40)", True),
        ("gpu notin (h100)", False),
        ("absent notin (x)", True),
        ("gpu", True),
        ("absent", False),
        ("!absent", True),
        ("! gpu", False),
        ("example.com/team=search", True),
        ("empty=", True),
        ("empty=,gpu", True),
        ("gpu=", False),
        ("empty in ()", True),
        ("empty in (,x)", True),
        ("absent=", False),
        ("slots>4", True),
        ("slots>8", False),
        ("slots<10", True),
        ("gpu<10", False),
        ("absent>1", False),
        ("slots>-1", True),
    ],
)
def test_which_labels_a_selector_matches(text: str, selected: bool) -> None:
    assert parse_selector(text).matches(POD) is selected


@pytest.mark.parametrize("word", ["in", "notin"])
def test_an_operators_name_can_be_a_key(word: str) -> None:
    assert parse_selector(f"{word}={word}").matches({word: word})
    assert parse_selector(f"{word} in ({word})").matches({word: word})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=a", "expected a label key at position 1"),
        ("gpu in a", r"expected '\(' at position 8"),
        ("gpu in (a", r"expected ',' at position 10"),
        ("gpu in (a b)", r"expected ',' at position 11"),
        ("gpu in", r"expected '\(' at position 7"),
        ("gpu h100", "expected one of =, ==, .* at position 5"),
        ("gpu=h100 zone=a", "expected ',' at position 10"),
        ("gpu=h100,", "expected a label key at position 10"),
        (",gpu", "expected a label key at position 1"),
        ("!", "expected a label key at position 2"),
        ("!!gpu", "expected a label key at position 2"),
        ("gpu=!x", "expected a label value at position 5"),
        ("gpu=-x", "invalid label value at position 5"),
        ("-gpu", "invalid label key at position 1"),
        ("UPPER.example/x=1", "invalid label key"),
        ("a/b/c=1", "invalid label key"),
        ("/x=1", "invalid label key"),
        ("k" * 64, "invalid label key"),
        (f"k={'v' * 64}", "invalid label value"),
        ("slots>four", "expected an integer at position 7"),
        ("slots>", "expected an integer at position 7"),
        ("gpu=h\x00", "invalid label value"),
        ("gpu=\u00e9", "invalid label value"),
        ("a=b;c=d", "invalid label value"),
        ("x" * 4097, "longer than 4096"),
    ],
)
def test_an_invalid_selector_raises_an_error_with_the_position(text: str, message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        parse_selector(text)


@given(
    st.lists(
        st.sampled_from([*"a5-/=!<>(), \t\n", "b.c/d", "In/", "in", "notin", "-5", "x_y"]),
        max_size=10,
    ).map("".join)
    | st.text(max_size=5)
)
@example("a in(b , c),!d,e notin (),f>-1")
@example("a=")
@example("in in (in)")
@example("a\u00a0in (b)")
def test_its_regular_expression_allows_what_the_parser_accepts(text: str) -> None:
    try:
        parse_selector(text)
    except SelectorError:
        is_selector = False
    else:
        is_selector = True
    assert (re.fullmatch(selector_pattern(), text) is not None) == is_selector


NAMES = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,8}[A-Za-z0-9])?", fullmatch=True)
REQUIREMENTS = st.one_of(
    st.builds(Requirement, NAMES, st.sampled_from([Operator.EXISTS, Operator.ABSENT])),
    st.builds(
        Requirement,
        NAMES,
        st.sampled_from([Operator.IN, Operator.NOT_IN]),
        st.frozensets(NAMES | st.just(""), min_size=1, max_size=4),
    ),
    st.builds(
        Requirement,
        NAMES,
        st.sampled_from([Operator.GREATER, Operator.LESS]),
        st.integers(-(10**9), 10**9).map(lambda number: frozenset([str(number)])),
    ),
)


@pytest.mark.slow
@given(st.lists(REQUIREMENTS, max_size=5))
def test_a_selector_survives_formatting_and_parsing(requirements: list[Requirement]) -> None:
    selector = Selector(tuple(requirements))

    assert parse_selector(str(selector)) == selector


@given(st.text(max_size=60) | st.text("ab=!<>(), \tin", max_size=60))
def test_no_text_raises_another_error(text: str) -> None:
    with suppress(SelectorError):
        parse_selector(text).matches(POD)
