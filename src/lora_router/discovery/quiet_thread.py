"""Lets a thread compute for seconds without delaying the event loop by more than a moment.

Only one thread of a process runs Python code at a time. Two things make the event loop wait for a
thread that computes:

- Each time the loop has slept, it gets the interpreter back after the *switch interval*, 5 ms by
  default. That is longer than most requests take.
- A garbage collection visits all objects that were made since the last one, and the loop waits
  for its end: 100 ms for the pods of a large fleet.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SWITCH_SECONDS = 0.0005


@contextmanager
def quiet_thread() -> Iterator[None]:
    """Run the block with a short switch interval and without garbage collections.

    What exists at its end is never visited by a collection. Objects that are no longer referenced
    are still freed, except those that refer to each other in a cycle. The block must not make any
    that it drops.
    """
    interval, collects = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(min(interval, SWITCH_SECONDS))
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if collects:
            # Otherwise the first collection would visit everything that the block made.
            gc.freeze()
            gc.enable()
