"""Waits for what processes and tasks do in their own time."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition is true.

    Args:
        condition: Asked again and again.
        seconds: A busy machine may need many.

    Raises:
        TimeoutError: It is not true in time.
    """
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
