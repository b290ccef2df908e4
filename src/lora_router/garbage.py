"""Garbage collection in a process that serves requests."""

import gc


def collect_less_often() -> None:
    """Exclude the objects of the startup from garbage collection, and collect less often.

    A request leaves no reference cycles, but allocates enough objects to trigger many collections
    a second. Collections of the oldest generation would visit all pods and models each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
