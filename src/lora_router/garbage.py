"""Garbage collection in a process that serves requests."""

import gc

_SELDOM = 50_000, 20, 100
"""Thresholds of the three generations."""


def collect_seldom_at_start() -> None:
    """Collect much less often, for a process that begins to import its modules.

    What modules make stays until the end, so that every collection during the imports is in vain.
    """
    gc.set_threshold(*_SELDOM)


def collect_less_often() -> None:
    """Exclude the objects of the startup from garbage collection, and collect less often.

    A request leaves no reference cycles, but allocates enough objects to trigger many collections
    a second. Collections of the oldest generation would visit all pods and models each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_SELDOM)
