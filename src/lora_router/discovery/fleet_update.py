"""Applies changes to the fleet in chunks, so that requests are served in between."""

import asyncio
from collections.abc import Sequence

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod

PODS_AT_ONCE = 200
"""Pods in a chunk: a few milliseconds of work."""


async def update_fleet(fleet: Fleet, pods: Sequence[Pod], gone: Sequence[str]) -> None:
    """Add or update pods, and remove others by name.

    A small change is applied at once. A large one is applied in chunks. New pods are added before
    old ones are removed, so that the fleet is never empty in between.
    """
    if len(pods) + len(gone) <= PODS_AT_ONCE:
        fleet.update(pods, gone)
        return
    for start in range(0, len(pods), PODS_AT_ONCE):
        fleet.update(pods[start : start + PODS_AT_ONCE])
        await asyncio.sleep(0)
    for start in range(0, len(gone), PODS_AT_ONCE):
        fleet.update((), gone[start : start + PODS_AT_ONCE])
        await asyncio.sleep(0)
