"""Work on many things in the router's loop, in slices between which it serves requests."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


async def in_slices(items: Sequence[Item], size: int) -> AsyncIterator[Sequence[Item]]:
    """Yield slices of at most ``size`` items. The loop runs between two of them."""
    for start in range(0, len(items), size):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + size]
