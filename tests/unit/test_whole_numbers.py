"""Whole numbers in texts that others wrote."""

import pytest

from lora_router.whole_numbers import whole_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("100", 100),
        ("0", None),
        ("101", None),
        ("00100", 100),
        ("0" * 30 + "101", None),
        ("0" * 30 + "7", 7),
        ("9" * 100_000, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.0", None),
        ("1_0", None),
        (" 1", None),
        ("٣", None),
        ("²", None),
    ],
)
def test_a_number_is_within_its_bounds_whatever_zeros_it_begins_with(
    text: str, number: int | None
) -> None:
    assert whole_number(text, 1, 100) == number
