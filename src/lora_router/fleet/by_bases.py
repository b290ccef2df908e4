"""What is usual on the pods that serve the same base models, for each of these.

A fleet may serve several base models. What is usual for a large one is slow for a small one.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from lora_router.fleet.catalog import BaseModels

_MOST = 256
"""Sets of base models of which something is kept. Lists of pods may change, and lie."""

_Usual = TypeVar("_Usual")


class ByBases(Generic[_Usual]):
    """One record for each set of base models."""

    __slots__ = ("_make", "_records")

    def __init__(self, make: Callable[[], _Usual]) -> None:
        """Begin without any.

        Args:
            make: Makes a new record.
        """
        self._make = make
        self._records: dict[BaseModels, _Usual] = {}

    def of(self, bases: BaseModels) -> _Usual:
        """Return the record of the pods that serve some base models."""
        record = self._records.get(bases)
        if record is None:
            if len(self._records) >= _MOST:
                del self._records[next(iter(self._records))]
            record = self._records[bases] = self._make()
        return record
