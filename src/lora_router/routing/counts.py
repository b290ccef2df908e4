"""Counts by some key, in which what is counted no more has no entry."""

from typing import TypeVar

_Key = TypeVar("_Key")


def change(counts: dict[_Key, int], key: _Key, by: int) -> None:
    """Count more for a key, or fewer."""
    left = counts.get(key, 0) + by
    if left:
        counts[key] = left
    else:
        del counts[key]
