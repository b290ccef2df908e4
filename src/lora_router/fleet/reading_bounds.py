"""How much one reading of a pod may contain: what the scraper takes, and what is told of it.

The scraper, peers and the parent of workers keep to these, so that what one of them takes is not
rejected by the next.
"""

from dataclasses import dataclass

MAX_MODELS = 50_000
"""Models in one list."""
MAX_NAME_LENGTH = 512
"""Characters of a name. No request can ask for a longer one, so such a model is left out."""
MAX_SLOTS = 100_000
"""A larger number of adapter slots cannot be true, and counts as unknown."""
MAX_LABEL_ADAPTERS = 4096
"""Adapters in one label, which lists those of one batch."""
MAX_SERIES = 8192
"""Series of a page whose labels are read."""


@dataclass(frozen=True, slots=True)
class NameBounds:
    """The bounds of the names of adapters in one snapshot."""

    adapters: int
    characters: int
    """Of all names. A character has at most four bytes."""


_MOST = 2 * MAX_LABEL_ADAPTERS + MAX_SERIES
SCRAPED = NameBounds(_MOST, _MOST * MAX_NAME_LENGTH)
"""What the scraper takes: two labels, and a series for each adapter that is loaded. A worker is
sent as much, because it reads no pods itself."""
TOLD_TO_PEERS = NameBounds(1024, 32 * 1024)
"""What peers are told. A page may list more; such a pod is read by each router itself."""
