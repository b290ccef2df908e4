"""What is believed of a pod's adapter slots, from all evidence, newest first.

vLLM says which adapters are *active*, late and in part (measured on 0.32.0): an adapter shows with
its first token, never while all its requests wait, and not at all when idle, although it is still
loaded. What a router needs to know is more, and comes from here. In the order of trust:

- *Expected*: adapters that this router has in flight on the pod, waiting ones included. Exact and
  immediate (the ledger).
- *Active*: what the last scrape named. True when it came, and as old as the scrape since.
- *Foreign*: what others have in flight. Of routers that tell of their ledgers, what they told
  (``peers``). Of other routers and of whoever else asks the pod (*strangers*), what the last scrape
  showed beyond all known ledgers. An adapter whose last request ended since the scrape before is
  not taken for a stranger's: it may only be its end that was seen. Nor is what a router tells of
  soon after: it was on its way to be told. When scrapes fail for long, strangers are forgotten.
- *Free*: slots with neither an expected nor a foreign adapter. None while the last scrape showed a
  request that waits for a slot: the adapter that waits shows nowhere, so it may be anybody's,
  unless ledgers explain it.
- *Resident*: in a slot, active or not. *In host memory*: so that it need not be fetched from far.
  Where the server says so, what it says, but for what routers used since. Else estimates: the
  slots have what is in flight and, in those that are left, what was used last; host memory has
  whatever was used (``vllm/lora``: LRU caches of ``max_loras`` and ``max_cpu_loras``). The estimate
  of slots is exact for a router that is alone and keeps within them.

A server that restarts has nothing loaded. Discovery tells by another uid or address, which makes a
new record; else the page tells, by another start time, or by a counter that fell, or, where it has
neither, by missing what was on it before. Then all is forgotten but what routers have in flight.
"""

from collections.abc import Mapping

from lora_router.fleet.peer_ledgers import PodShare
from lora_router.fleet.pod_metrics import LoraResidency, PodMetrics
from lora_router.fleet.pod_peers import PodPeers

_REMEMBERED = 1024
"""Adapters in the estimate of the order of use, which bounds the memory of a pod's record."""
_NONE: frozenset[str] = frozenset()

IN_SLOT, IN_HOST_MEMORY, AWAY = range(3)
"""Where an adapter can be: active or not; evicted; on disk or farther."""


class AdapterBeliefs:
    """Of one pod. Written by the cache and the ledger only."""

    __slots__ = (
        "_fits",
        "_generated_tokens",
        "_named_adapters",
        "_residency",
        "_resident",
        "_started_at",
        "_stranger_requests",
        "_strangers",
        "_told_since_scrape",
        "_used",
        "_used_since_scrape",
        "active",
        "expected",
        "foreign_adapters",
        "foreign_requests",
        "free_slots",
        "peers",
        "scraped_at",
        "shown",
        "slots",
        "somebody_waits",
    )

    def __init__(self, expected: Mapping[str, int], usual_slots: int | None = None) -> None:
        self.expected = expected
        """Adapters that this router has in flight, with how many requests: the ledger's count."""
        self.scraped_at = float("-inf")
        """When the evidence in the attributes below came, on the router's monotonic clock."""
        self.slots = usual_slots
        """Distinct adapters that can be in one batch, until the pod says itself as many as other
        pods have: a new pod without load attracts requests, and knows nothing better. ``None``:
        nobody knows."""
        self.active = _NONE
        """Adapters with a first token out and not finished. None also where nobody says."""
        self.shown = _NONE
        """Adapters in flight by the last scrape, or by what other routers told."""
        self.foreign_adapters = _NONE
        self.foreign_requests = 0
        self.somebody_waits = False
        """Whether the last scrape showed a request that waits for a slot, nobody knows whose."""
        self.free_slots = usual_slots
        """Slots to spare; ``None`` if nobody knows how many slots there are.

        Negative: so many adapters more than slots are in flight."""
        self.peers = PodPeers()
        """What other routers told."""
        self._strangers = _NONE
        self._stranger_requests = 0
        self._told_since_scrape: set[str] = set()
        """Routers."""
        self._resident: dict[str, None] | None = None
        """The estimate, once somebody asked, in the order of last use."""
        self._fits = True
        """Whether no more adapters are in flight than there are slots."""
        self._used: dict[str, None] = {}
        """Adapters in the order of their last use, the last used last."""
        self._used_since_scrape: set[str] = set()
        """By this router, and by those that tell."""
        self._residency: LoraResidency | None = None
        self._started_at: float | None = None
        self._generated_tokens: float | None = None
        self._named_adapters = False
        """Whether the server ever said which adapters are active."""

    # What algorithms ask

    def may_take_slot(self, adapter: str) -> bool:
        """Say whether a slot, if one is free, may be taken for an adapter that is not in flight.

        Where routers tell each other of their ledgers, it may be another's turn (``slot_turns``).
        """
        peers = self.peers
        return peers.turn is None or peers.leave_a_slot(
            self.expected, self.foreign_adapters, is_loaded=self.is_resident(adapter)
        )

    def told_free_slots(self) -> int:
        """Return the slots that are free by what was told, this router's own word included."""
        if self.slots is None or self.somebody_waits:
            return 0
        return max(0, self.slots - len(self.peers.told | self.foreign_adapters))

    def where(self, adapter: str) -> int:
        """Say where an adapter is, as far as is known: IN_SLOT, IN_HOST_MEMORY or AWAY."""
        residency = self._residency
        if residency is not None and adapter not in self._used_since_scrape:
            if adapter in residency.gpu:
                return IN_SLOT
            return IN_HOST_MEMORY if adapter in residency.cpu else AWAY
        if adapter not in self._used:
            return AWAY
        if self.slots is None:
            return IN_SLOT
        if self._resident is None:
            self._resident = self._estimate_resident(self.slots)
        return IN_SLOT if adapter in self._resident else IN_HOST_MEMORY

    def is_resident(self, adapter: str) -> bool:
        """Say whether an adapter is in a slot, active or not, as far as is known."""
        return self.where(adapter) == IN_SLOT

    def in_host_memory(self, adapter: str) -> bool:
        """Say whether an adapter is in host memory, in a slot too or not, as far as is known."""
        return self.where(adapter) != AWAY

    # What the cache and the ledger tell

    def used(self, adapter: str) -> None:
        """Take note that a request of this router for an adapter was sent, or ended."""
        self._used_since_scrape.add(adapter)
        self._touch(adapter)
        self._count_free()
        resident = self._resident
        if resident is None:
            return
        if not self._fits:
            self._resident = None
        elif adapter in resident:
            del resident[adapter]
            resident[adapter] = None
        else:
            self._load(adapter, resident)

    def scraped(self, metrics: PodMetrics, in_flight: int) -> None:
        """Take in a scrape, and how many requests this router had in flight when it came."""
        if self._is_of_another_server(metrics):
            self.slots = None
            self._used = dict.fromkeys((*self.expected, *self.peers.adapters))
            self._named_adapters = False
        self.scraped_at = metrics.scraped_at
        self._started_at = metrics.started_at
        self._generated_tokens = metrics.generated_tokens
        shown = int((metrics.running or 0.0) + (metrics.waiting or 0.0))
        self._stranger_requests = max(0, shown - in_flight - self.peers.requests)
        self._told_since_scrape.clear()
        self.somebody_waits = bool(metrics.deferred)
        lora, residency = metrics.lora, metrics.residency
        self._residency = residency
        slots = lora.max_lora if lora is not None else None
        if slots is None and residency is not None:
            slots = residency.max_gpu
        # A page need not say it each time, and they do not change.
        self.slots = slots or self.slots
        self.active = lora.active if lora is not None else _NONE
        self._named_adapters = self._named_adapters or lora is not None
        self._strangers = (
            self.active - self.expected.keys() - self._used_since_scrape - self.peers.adapters
            if self.active
            else _NONE
        )
        for adapter in self._strangers:
            self._touch(adapter)
        self._used_since_scrape.clear()
        self._merge()

    def told(self, router: str, share: PodShare | None) -> bool:
        """Take in what another router told (``None``: it has nothing here); say if it is new."""
        first_since_scrape = router not in self._told_since_scrape
        self._told_since_scrape.add(router)
        news = self.peers.put(router, share)
        if news is None:
            return False
        moved = sorted(news.started | news.ended)
        self._used_since_scrape.update(moved)
        for adapter in moved:
            self._touch(adapter)
        # What a scrape showed before it was told of, was no stranger's.
        self._strangers -= news.started
        if first_since_scrape and news.more > 0:
            self._stranger_requests = max(0, self._stranger_requests - news.more)
        self._merge()
        return True

    def forget_old(self, now: float, max_age: float) -> bool:
        """Forget what others have in flight, if the last scrape is too old; say whether it was."""
        if now - self.scraped_at <= max_age or not (
            self.active or self._stranger_requests or self.somebody_waits
        ):
            return False
        self.active = self._strangers = _NONE
        self._stranger_requests = 0
        self.somebody_waits = False
        self._merge()
        return True

    def _merge(self) -> None:
        self._resident = None
        peers = self.peers
        self.foreign_requests = self._stranger_requests + peers.requests
        if peers:
            self.foreign_adapters = self._strangers | peers.adapters
            self.shown = self.active | peers.adapters
        else:
            self.foreign_adapters, self.shown = self._strangers, self.active
        self._count_free()
        if peers and self.somebody_waits:
            # With more in flight than slots it is known who waits, and when nobody does any more.
            self.somebody_waits = self._fits
            self._count_free()

    def _count_free(self) -> None:
        slots, foreign = self.slots, self.foreign_adapters
        if slots is None:
            self.free_slots = None
            return
        expected = self.expected
        taken = len(expected)
        for adapter in foreign:
            taken += adapter not in expected
        fits = taken <= slots
        if fits is not self._fits:
            self._fits, self._resident = fits, None
        self.free_slots = 0 if self.somebody_waits else slots - taken

    def _estimate_resident(self, slots: int) -> dict[str, None]:
        """Work out what is in slots, in the order of last use."""
        foreign = self.foreign_adapters
        busy = self.expected.keys() | foreign if foreign else self.expected
        left, missing = slots - len(busy), len(busy)
        resident = []
        for name in reversed(self._used):
            if name in busy:
                missing -= 1
                # With more in flight than slots, some wait; only a first token tells which do not.
                if self._fits or name in self.active:
                    resident.append(name)
            elif left > 0:
                resident.append(name)
                left -= 1
            if left <= 0 and missing <= 0:
                break
        return dict.fromkeys(reversed(resident))

    def _touch(self, adapter: str) -> None:
        used = self._used
        if adapter in used:
            del used[adapter]
        used[adapter] = None
        if len(used) > _REMEMBERED:
            oldest = next(iter(used))
            del used[oldest]
            if oldest in self.expected or oldest in self.foreign_adapters:
                self._resident = None

    def _load(self, adapter: str, resident: dict[str, None]) -> None:
        """Take an adapter into the estimate, for the one that was used longest ago."""
        if self.slots is not None and len(resident) >= self.slots:
            expected, foreign = self.expected, self.foreign_adapters
            for name in resident:
                if name not in expected and name not in foreign:
                    del resident[name]
                    break
        resident[adapter] = None

    def _is_of_another_server(self, metrics: PodMetrics) -> bool:
        """Say whether a page is of a server that began after the last page came."""
        if self._started_at is not None and metrics.started_at is not None:
            return metrics.started_at != self._started_at
        if self._generated_tokens is not None and metrics.generated_tokens is not None:
            return metrics.generated_tokens < self._generated_tokens
        return self._named_adapters and metrics.lora is None
