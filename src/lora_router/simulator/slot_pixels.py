"""The pixels of a plot of slots: a row for each slot, a column for each sample.

The row above the slots of a pod is coloured while requests wait there for a slot. The row below
them is white.
"""

from collections.abc import Sequence
from functools import cache

from lora_router.simulator.timeline import PodSample, Timeline

Pixel = tuple[int, int, int]
"""Red, green, blue, from 0 to 255."""

WAITING = "#D55E00"
OTHERS = "#A9A9A9"
"""All adapters but the popular ones."""
POPULAR = ("#0072B2", "#56B4E9", "#009E73", "#F0E442", "#CC79A7")
"""The most popular adapters. These and the above are the colours of Okabe and Ito (2008)."""
LOADED = "#E8E8E8"
"""Another adapter that is loaded and not in use."""
_SHADES = (OTHERS, "#BCBCBC", "#B2B2B2", "#C5C5C5")
"""The other adapters, in turn, so that neighbours differ."""
_WHITE: Pixel = (255, 255, 255)
_PALE = 0.25
"""Strength of the colour of an adapter that is loaded and not in use."""


def adapter_colours(popular: Sequence[str]) -> dict[str, str]:
    """Return the colours of adapters, given in order of popularity."""
    return {
        name: POPULAR[rank] if rank < len(POPULAR) else _SHADES[rank % len(_SHADES)]
        for rank, name in enumerate(popular)
    }


def slot_pixels(timeline: Timeline, colours: dict[str, str]) -> list[list[Pixel]]:
    """Return the pixels, row by row."""
    columns = [
        [pixel for pod in sample.pods for pixel in _column(pod, colours)]
        for sample in timeline.samples
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def pod_middles(timeline: Timeline) -> list[float]:
    """Return the row of the middle of each pod."""
    middles: list[float] = []
    top = 0
    for pod in timeline.samples[0].pods:
        middles.append(top + 1 + len(pod.slots) / 2)
        top += len(pod.slots) + 2
    return middles


def _column(pod: PodSample, colours: dict[str, str]) -> list[Pixel]:
    slots = [
        _WHITE
        if slot is None
        else _on_white(colours.get(slot.adapter, OTHERS), 1.0 if slot.in_use else _PALE)
        for slot in pod.slots
    ]
    return [_on_white(WAITING) if pod.deferred else _WHITE, *slots, _WHITE]


@cache
def _on_white(colour: str, strength: float = 1.0) -> Pixel:
    red, green, blue = (
        round(255 - strength * (255 - int(colour[at : at + 2], 16))) for at in (1, 3, 5)
    )
    return red, green, blue
