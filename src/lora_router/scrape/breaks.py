"""Long work of the scraper, done with breaks (``steps``)."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from lora_router.steps import Steps

_Result = TypeVar("_Result")

BREAK = 39
"""A long read pauses this many times as long as it worked: it takes a fortieth of one CPU."""


async def with_breaks(
    steps: Steps[_Result],
    *,
    pause: float = BREAK,
    clock: Callable[[], float] = time.thread_time,
) -> _Result:
    """Do one step after the other, and return the result. Work of a single step has no break.

    Args:
        steps: The work.
        pause: How many times as long as a step took its break is. 0: other work that is ready runs
            in between, and nothing else.
        clock: Returns the seconds that this thread has worked. By the wall clock, breaks would be
            long where other processes use the CPU.
    """
    seconds = 0.0
    started = None
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result
        if started is not None:
            seconds = clock() - started
        await asyncio.sleep(seconds * pause)
        # Most work is one step, for which the time is not taken: it costs a system call.
        started = clock()
