"""Rendezvous hashing: for each adapter an order of pods that everyone works out alike.

Each pair of adapter and pod has a weight, a hash of their names; the order of an adapter is that of
its weights. A pod that leaves takes only its own place in each order with it, one that joins only
takes a place: no two other pods change sides. (Thaler and Ravishankar, 1998.)
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from heapq import nsmallest
from typing import TypeVar

from lora_router.fleet.pod_group import PodGroup
from lora_router.fleet.pod_state import PodState, PodView

REMEMBERED = 8
"""Of a large group, so many pods are remembered as an adapter's first ones."""
WHOLE = 32
"""Of a group of at most so many pods, the whole order is remembered."""
_FACTOR = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1

P = TypeVar("P", bound=PodView)


def rendezvous_order(adapter: str, pods: Sequence[P], count: int | None = None) -> list[P]:
    """Return the first ``count`` pods in the order of an adapter, all of them by default.

    The order depends on the names alone, so it is the same in every process, on every router and
    after every restart, in whatever sequence ``pods`` come.
    """
    weights = _weights(adapter, [_hash(pod.pod.name) for pod in pods])
    order = sorted(range(len(weights)), key=weights.__getitem__)
    return [pods[position] for position in order[:count]]


def first_of_group(adapter: str, pods: PodGroup) -> tuple[PodState, ...]:
    """Return the first pods of a group in an adapter's order, computed once in the group's life.

    They are all of its pods if there are at most ``WHOLE``, else ``REMEMBERED``.
    """
    first = pods.first.get(adapter)
    if first is None:
        if not pods.name_hashes:
            pods.name_hashes.extend(_hash(pod.pod.name) for pod in pods)
        weights = _weights(adapter, pods.name_hashes)
        count = len(pods) if len(pods) <= WHOLE else REMEMBERED
        lowest = nsmallest(count, weights)
        first = pods.first[adapter] = tuple([pods[weights.index(weight)] for weight in lowest])
    return first


def _weights(adapter: str, name_hashes: Sequence[int]) -> list[int]:
    """Mix hashes of names: their difference in all bits, spread by Fibonacci hashing.

    (Knuth, "The Art of Computer Programming", volume 3, 6.4.) Two good hashes need no better mix,
    and a request may have to weigh a thousand pods. Different names have different weights, since
    the factor is odd, unless 64 bits of their hashes are alike.
    """
    digest = _hash(adapter)
    return [(digest ^ name) * _FACTOR & _MASK for name in name_hashes]


@lru_cache(maxsize=65_536)
def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
