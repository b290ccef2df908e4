"""How long it takes to bring an adapter into a slot, by where the adapter is."""

from typing import TypeAlias

LoadSeconds: TypeAlias = tuple[float, float, float]
"""Seconds from a slot (none), from host memory, and from disk or a remote store. The indexes are
``IN_SLOT``, ``IN_HOST_MEMORY`` and ``AWAY``."""

HOST_SECONDS = 0.08
"""Seconds that a load from host memory is assumed to take."""
DISK_SECONDS = 1.5
"""Seconds that a load from disk is assumed to take. Published figures are tens to hundreds of
milliseconds from host memory, and seconds from disk or a hub."""
ASSUMED: LoadSeconds = (0.0, HOST_SECONDS, DISK_SECONDS)
