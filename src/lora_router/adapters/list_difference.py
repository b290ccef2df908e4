"""What two lists of pods do not have in common."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from lora_router.adapters.declared import VERSION_MARK
from lora_router.fleet.catalog import Catalog


class ListDifference(NamedTuple):
    """What two lists of pods do not have in common."""

    before: Catalog
    after: Catalog
    names: AbstractSet[str]
    versions: Sequence[str]
    """Those of the names that have a version."""

    @classmethod
    def between(cls, before: Catalog, after: Catalog) -> "ListDifference":
        """Compare two lists."""
        names = before.differing(after)
        return cls(before, after, names, [name for name in names if VERSION_MARK in name])
