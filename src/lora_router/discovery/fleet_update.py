"""Applies changes to the fleet in chunks, so that requests are served in between."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod

PODS_AT_ONCE = 200
"""Pods in a chunk: a few milliseconds of work."""
_MODELS_AS_A_POD = 50
"""Models of pods that discovery lists, and that are as much work as a pod."""


async def update_fleet(fleet: Fleet, pods: Sequence[Pod], gone: Sequence[str]) -> None:
    """Add or update pods, and remove others by name.

    A small change is applied at once. A large one is applied in chunks. New pods are added before
    old ones are removed, so that the fleet is never empty in between.
    """
    if sum(map(_work, pods)) + len(gone) <= PODS_AT_ONCE:
        fleet.update(pods, gone)
        return
    for chunk in _chunks(pods):
        fleet.update(chunk)
        await asyncio.sleep(0)
    for start in range(0, len(gone), PODS_AT_ONCE):
        fleet.update((), gone[start : start + PODS_AT_ONCE])
        await asyncio.sleep(0)


def _work(pod: Pod) -> int:
    """Return how many pods are as much work as this one."""
    return 1 if pod.models is None else 1 + len(pod.models) // _MODELS_AS_A_POD


def _chunks(pods: Iterable[Pod]) -> Iterator[list[Pod]]:
    chunk: list[Pod] = []
    work = 0
    for pod in pods:
        chunk.append(pod)
        work += _work(pod)
        if work >= PODS_AT_ONCE:
            yield chunk
            chunk, work = [], 0
    if chunk:
        yield chunk
