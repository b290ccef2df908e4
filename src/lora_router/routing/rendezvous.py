"""Rendezvous hashing: an order of pods for each adapter that all routers compute alike.

Each pair of an adapter and a pod has a weight, which is a hash of their names. The order of an
adapter is the order of these weights. A pod that leaves removes only itself from each order, and a
pod that joins only inserts itself: no two other pods swap places. (Thaler and Ravishankar, 1998.)
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from heapq import nsmallest
from typing import TypeVar

from lora_router.fleet.pod_group import PodGroup
from lora_router.fleet.pod_state import PodState, PodView

REMEMBERED = 8
"""How many of the first pods in an adapter's order are stored for a large group."""
WHOLE = 32
"""Size in pods up to which a group's whole order is stored."""
_ADAPTERS = 65_536
"""How many adapters have their first pods stored for a group."""
_FACTOR = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1

P = TypeVar("P", bound=PodView)


def rendezvous_order(adapter: str, pods: Sequence[P], count: int | None = None) -> list[P]:
    """Return the first ``count`` pods in the order of an adapter, by default all of them.

    The order depends only on names. It is therefore the same in every process, on every router, and
    after every restart, in whatever sequence ``pods`` are given.
    """
    wanted = len(pods) if count is None else count
    return [pods[position] for position in first_positions(adapter, hashes_of(pods), wanted)]


def precedes(adapter: str, pod: PodView, other: PodView) -> bool:
    """Return whether a pod is before another one in the order of an adapter."""
    weight, others = _weights(adapter, hashes_of((pod, other)))
    return weight < others


def hashes_of(pods: Iterable[PodView]) -> list[int]:
    """Return what ``first_positions`` needs to know of pods."""
    return [_hash(pod.pod.name) for pod in pods]


def first_positions(adapter: str, name_hashes: Sequence[int], count: int) -> list[int]:
    """Return the positions of an adapter's first pods, in its order.

    Args:
        adapter: The adapter.
        name_hashes: The ``hashes_of`` pods.
        count: How many are wanted.
    """
    weights = _weights(adapter, name_hashes)
    if 2 * count >= len(weights):
        return sorted(range(len(weights)), key=weights.__getitem__)[:count]
    return [weights.index(weight) for weight in nsmallest(count, weights)]


def first_of_group(adapter: str, pods: PodGroup) -> tuple[PodState, ...]:
    """Return the first pods of a group in an adapter's order, computed once per group.

    The result contains all pods of a group of at most ``WHOLE`` pods, otherwise ``REMEMBERED``
    pods.
    """
    first = pods.first.get(adapter)
    if first is None:
        if not pods.name_hashes:
            pods.name_hashes.extend(hashes_of(pods))
        count = len(pods) if len(pods) <= WHOLE else REMEMBERED
        positions = first_positions(adapter, pods.name_hashes, count)
        if len(pods.first) >= _ADAPTERS:
            pods.first.clear()  # Clients may ask for adapters that no list bounds.
        first = pods.first[adapter] = tuple([pods[position] for position in positions])
    return first


def _weights(adapter: str, name_hashes: Sequence[int]) -> list[int]:
    """Combine hashes of names: XOR them, then spread the result by Fibonacci hashing.

    (Knuth, "The Art of Computer Programming", volume 3, 6.4.) Two good hashes need no stronger mix,
    and a request may have to weigh a thousand pods. Different names have different weights, because
    the factor is odd, unless all 64 bits of their hashes are equal.
    """
    digest = _hash(adapter)
    return [(digest ^ name) * _FACTOR & _MASK for name in name_hashes]


@lru_cache(maxsize=65_536)
def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
