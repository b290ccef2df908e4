"""Parameters of tests of which ``make test-fast`` runs only a few."""

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(values: Iterable[Any], quick: int = 1) -> list[Any]:
    """Return the values, marked as slow after the first ``quick`` ones."""
    listed = list(values)
    slow = (
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in listed[quick:]
    )
    return [*listed[:quick], *slow]
