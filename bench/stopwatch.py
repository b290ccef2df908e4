"""Measures the CPU time of a call that is too short for the clock."""

import time
from collections.abc import Callable

_ROUND_SECONDS = 0.05


def microseconds(call: Callable[[], object], rounds: int) -> float:
    """Return CPU µs per call: the best of some rounds, each with as many calls as are needed."""
    calls = 1
    best = float("inf")
    while rounds > 0:
        started = time.process_time()
        for _ in range(calls):
            call()
        taken = time.process_time() - started
        if taken < _ROUND_SECONDS:
            # Too short for the resolution of the clock.
            calls *= 2
            continue
        rounds -= 1
        best = min(best, taken / calls)
    return best * 1e6
