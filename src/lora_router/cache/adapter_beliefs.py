"""What is believed of a pod's adapter slots, from all evidence, newest first.

vLLM says which adapters are *active*, late and in part (measured on 0.32.0): an adapter shows with
its first token, never while all its requests wait, and not at all when idle, although it is still
loaded. What a router needs to know is more, and comes from here:

- *Expected*: adapters that this router has in flight on the pod, waiting ones included. Exact and
  immediate (the ledger).
- *Foreign*: what the last scrape showed beyond that: adapters and requests of other routers and of
  whoever else asks the pod. As old as the scrape. An adapter of ours whose last request ended since
  the scrape before is not taken for foreign: it may only be the end of our own that was seen.
- *Resident*: in a slot, active or not. Where the server says so, what it says; else an estimate:
  the pod keeps the adapters that it used last, one for each slot, and evicts in that order
  (``vllm/lora``: LRU caches of ``max_loras`` and ``max_cpu_loras``).
- *Used before*: seen at any time in the pod's life, so probably in host memory.

A pod that restarts, as far as discovery does not say so itself (another uid or address makes a new
record), shows by a page without the series that were there before; then all of it is forgotten.
"""

from collections.abc import Mapping

from lora_router.cache.metrics import PodMetrics

_REMEMBERED = 1024
"""Adapters in the estimate of the order of use, which bounds the memory of a pod's record."""


class AdapterBeliefs:
    """Of one pod. Written by the cache and the ledger only."""

    __slots__ = (
        "_ended_since_scrape",
        "_resident_by_server",
        "_used",
        "foreign_adapters",
        "foreign_requests",
        "slots",
        "somebody_waits",
    )

    def __init__(self) -> None:
        self.slots: int | None = None
        """Distinct adapters that can be in one batch. ``None``: unknown."""
        self.foreign_adapters: frozenset[str] = frozenset()
        self.foreign_requests = 0
        self.somebody_waits = False
        """Whether the last scrape showed a request that waits for a slot."""
        self._used: dict[str, None] = {}
        """Adapters in the order of their last use, the last used last."""
        self._ended_since_scrape: set[str] = set()
        self._resident_by_server: frozenset[str] | None = None

    def is_resident(self, adapter: str) -> bool:
        """Say whether an adapter is in a slot, active or not, as far as is known."""
        if self._resident_by_server is not None:
            return adapter in self._resident_by_server
        if adapter not in self._used:
            return False
        if self.slots is None:
            return True
        for position, used in enumerate(reversed(self._used)):
            if position >= self.slots:
                return False
            if used == adapter:
                return True
        return False

    def was_used(self, adapter: str) -> bool:
        """Say whether the pod ever used an adapter, so that it need not fetch it from far."""
        return adapter in self._used

    # What the cache and the ledger tell

    def reserved(self, adapter: str) -> None:
        """Take note that a request for an adapter was sent."""
        self._touch(adapter)

    def released(self, adapter: str, *, gone: bool) -> None:
        """Take note that a request for an adapter ended; ``gone``: it was the last one of ours."""
        self._touch(adapter)
        if gone:
            self._ended_since_scrape.add(adapter)

    def scraped(
        self, metrics: PodMetrics, in_flight: int, in_flight_adapters: Mapping[str, int]
    ) -> None:
        """Take in a scrape, and what this router had in flight when it came."""
        requests = (metrics.running or 0.0) + (metrics.waiting or 0.0)
        self.foreign_requests = max(0, int(requests) - in_flight)
        self.somebody_waits = bool(metrics.deferred)
        residency = metrics.residency
        self._resident_by_server = None if residency is None else residency.gpu
        lora = metrics.lora
        if lora is None:
            if self.slots is not None:
                self._forget(in_flight_adapters)
            if residency is not None:
                self.slots = residency.max_gpu
            return
        self.slots = lora.max_lora
        active = lora.active
        self.foreign_adapters = (
            active - in_flight_adapters.keys() - self._ended_since_scrape if active else active
        )
        for adapter in self.foreign_adapters:
            self._touch(adapter)
        self._ended_since_scrape.clear()

    def _touch(self, adapter: str) -> None:
        used = self._used
        used.pop(adapter, None)
        used[adapter] = None
        if len(used) > _REMEMBERED:
            del used[next(iter(used))]

    def _forget(self, in_flight_adapters: Mapping[str, int]) -> None:
        """Forget what was, since the series are gone: it is another server than before."""
        self.slots = None
        self.foreign_adapters = frozenset()
        self._used = dict.fromkeys(in_flight_adapters)
        self._ended_since_scrape.clear()
