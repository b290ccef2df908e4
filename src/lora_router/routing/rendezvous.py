"""Rendezvous hashing: for each adapter an order of pods that everyone works out alike.

Each pair of adapter and pod has a weight, a hash of their names; the order of an adapter is that of
its weights. A pod that leaves takes only its own place in each order with it, one that joins only
takes a place: no two other pods change sides. (Thaler and Ravishankar, 1998.)
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

from lora_router.cache.state import PodView


def rendezvous_order(
    adapter: str, pods: Sequence[PodView], count: int | None = None
) -> list[PodView]:
    """Return the first ``count`` pods in the order of an adapter, all of them by default.

    The order depends on the names alone, so it is the same in every process, on every router and
    after every restart, in whatever sequence ``pods`` come.
    """
    positions = _positions(adapter, tuple([pod.pod.name for pod in pods]))
    return [pods[position] for position in positions[:count]]


@lru_cache(maxsize=2048)
def _positions(adapter: str, names: tuple[str, ...]) -> tuple[int, ...]:
    """Remembered by names, so that no pod outlives its place in the fleet for having an order."""
    # A hash of fixed length first: "a" + "bc" and "ab" + "c" are different pairs.
    start = hashlib.blake2b(hashlib.blake2b(adapter.encode(), digest_size=16).digest())

    def weight(position: int) -> tuple[bytes, str]:
        name = names[position]
        pair = start.copy()
        pair.update(name.encode())
        return pair.digest(), name

    return tuple(sorted(range(len(names)), key=weight))
