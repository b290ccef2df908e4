"""Figures that have no value, such as the p99 of no requests.

They are not a number, so that no comparison takes them for the best one. People see a dash, and
programs ``null``.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import TypeGuard

NO_VALUE = math.nan


def has_value(value: object) -> bool:
    """Return whether a figure has a value."""
    return not _is_none(value)


def ratio(part: float, whole: float) -> float:
    """Return a share or an average. It has no value if there is nothing to divide by."""
    return part / whole if whole else NO_VALUE


def median(values: Iterable[float]) -> float:
    """Return the median of the figures that have a value."""
    known = [value for value in values if has_value(value)]
    return float(statistics.median(known)) if known else NO_VALUE


def shown(value: float, form: str, unit: str = "") -> str:
    """Return a figure as people see it.

    Args:
        value: The figure.
        form: How a value is formatted: ``.2f``.
        unit: What follows a value.
    """
    return f"{value:{form}}{unit}" if has_value(value) else "-"


def for_json(document: object) -> object:
    """Return a document in which figures without a value are ``None``."""
    if isinstance(document, Mapping):
        return {key: for_json(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [for_json(value) for value in document]
    return None if _is_none(document) else document


def from_json(document: object) -> object:
    """Return a document of ``for_json`` as it was."""
    if isinstance(document, Mapping):
        return {key: from_json(value) for key, value in document.items()}
    return NO_VALUE if document is None else document


def _is_none(value: object) -> TypeGuard[float]:
    return isinstance(value, float) and math.isnan(value)
