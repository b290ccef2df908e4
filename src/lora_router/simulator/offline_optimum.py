"""The fewest adapter loads that any router could need, if it knew the future."""

import heapq
from collections.abc import Iterable


def fewest_loads(adapters: Iterable[str], slots: int) -> int:
    """Return how often a request finds its adapter in no slot, with optimal eviction.

    All slots of the fleet are treated as one cache. It evicts the adapter that is needed again last
    (Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal
    5(2), 1966). No router does better: here an adapter never needs two slots, however many requests
    it has, and an adapter in use may be evicted.

    Args:
        adapters: The adapter of each request, in order.
        slots: Slots of the whole fleet.
    """
    asked = list(adapters)
    never = len(asked)
    next_use = [never] * len(asked)
    last_seen: dict[str, int] = {}
    for position in range(len(asked) - 1, -1, -1):
        next_use[position] = last_seen.get(asked[position], never)
        last_seen[asked[position]] = position
    resident: dict[str, int] = {}
    by_next_use: list[tuple[int, str]] = []
    loads = 0
    for adapter, needed_again in zip(asked, next_use, strict=True):
        if adapter not in resident:
            loads += 1
            while len(resident) >= slots:
                furthest, evicted = heapq.heappop(by_next_use)
                # An entry is stale if its adapter was used again later.
                if resident.get(evicted) == -furthest:
                    del resident[evicted]
        resident[adapter] = needed_again
        heapq.heappush(by_next_use, (-needed_again, adapter))
    return loads
