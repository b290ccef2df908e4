"""What loading an adapter into a slot is assumed to take, and what was seen. Records only."""

from collections import deque
from typing import TypeAlias

LoadSeconds: TypeAlias = tuple[float, float, float]
"""Seconds from a slot (none), from host memory, and from disk or a remote store. The indexes are
``IN_SLOT``, ``IN_HOST_MEMORY`` and ``AWAY``."""

HOST_SECONDS = 0.08
"""Seconds that a load from host memory is assumed to take."""
DISK_SECONDS = 1.5
"""Seconds that a load from disk is assumed to take. Published figures are tens to hundreds of
milliseconds from host memory, and seconds from disk or a hub."""
SLOW_SECONDS = 0.3
"""A load from host memory takes less, one from disk or a remote store more."""
HIGHEST_SECONDS = 60.0
"""No load is believed to take longer."""
ASSUMED: LoadSeconds = (0.0, HOST_SECONDS, DISK_SECONDS)
_KEPT = 32
"""First bytes and loads that are kept of each pod and base model, the last ones."""


class Loads:
    """The last loads on one pod, or on all pods with the same base model."""

    __slots__ = ("count", "first_bytes", "from_disk", "from_host", "seen", "usual", "usual_of")

    def __init__(self) -> None:
        self.first_bytes: deque[float] = deque(maxlen=_KEPT)
        """Seconds until the first byte of requests that needed no load: on a pod, those of this
        router, and of a base model, those that peers told."""
        self.usual = 0.0
        """Their median, derived again after some loads."""
        self.usual_of = 0
        """The number of loads at which it was derived last; 0: never."""
        self.from_host: deque[float] = deque(maxlen=_KEPT)
        """Seconds that loads from host memory took."""
        self.from_disk: deque[float] = deque(maxlen=_KEPT)
        """Seconds that loads from disk or a remote store took."""
        self.count = 0
        """The number of loads so far."""
        self.seen: tuple[int, float | None] = (-1, None)
        """What the pod's times were derived from last: how often its base model's loads were
        counted, and what the pod reported."""


def reported_or(seconds: float, otherwise: LoadSeconds) -> LoadSeconds:
    """Return the times of loads if their mean is known.

    It is taken for the time of loads from host memory if it is short, and otherwise for that of
    loads from disk.

    Args:
        seconds: The mean.
        otherwise: The times that the mean does not tell.
    """
    _, host, disk = otherwise
    seconds = min(seconds, HIGHEST_SECONDS)
    if seconds > SLOW_SECONDS:
        return 0.0, min(host, seconds), seconds
    return 0.0, seconds, max(disk, seconds)
