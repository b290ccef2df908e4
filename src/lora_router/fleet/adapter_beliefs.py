"""The best estimate of what is in a pod's adapter slots, from all evidence.

vLLM reports only which adapters are *active*, and it reports this late and incompletely (measured
on 0.32.0). An adapter appears with its first token. It never appears while all its requests wait,
and it disappears when it is idle, although it is still loaded. A router needs to know more than
that. This module combines the following evidence, in order of trust:

- *Expected*: the adapters that this router has in flight on the pod, including those whose requests
  wait there. The source is the ledger, so this is exact and immediate.
- *Active*: the adapters that the last scrape listed. This was correct when the page arrived and is
  as old as that page.
- *Foreign*: the adapters that others have in flight. For peers, these are the adapters in their
  shares (``peers``). For all other senders, they are what scrapes show (``strangers``).
- *Free*: the slots that have neither an expected nor a foreign adapter. No slot is free if by the
  last scrape a request may wait for a slot (``slot_waits``): the page does not name its adapter, so
  it may belong to anyone, unless the ledgers explain it.
- *Resident*: in a slot, active or not. *In host memory*: does not have to be fetched from disk or
  from a remote store. If the server reports both, its report is used, corrected by what routers
  have used since. Otherwise both are estimates, from the order of last use by routers
  (``resident_adapters``, ``host_memory``, ``last_uses``).

After a restart of the server (``server_process``), everything is forgotten except what routers have
in flight. So is an adapter that the server does not list any more (``unlisted_adapters``).
"""

from collections.abc import Collection, Mapping

from lora_router.fleet.host_memory import MOST, HostMemory, Names
from lora_router.fleet.idle_server import IdleServer
from lora_router.fleet.last_uses import ELSEWHERE, HERE, later, merged, use
from lora_router.fleet.load_seconds import ASSUMED, LoadSeconds
from lora_router.fleet.lora_spec import LoraSpec
from lora_router.fleet.peer_ledgers import PodShare
from lora_router.fleet.pod_metrics import LoraResidency, PodMetrics
from lora_router.fleet.pod_peers import PodPeers
from lora_router.fleet.resident_adapters import estimate_resident, seat
from lora_router.fleet.server_process import ServerProcess
from lora_router.fleet.slot_waits import SlotWaits
from lora_router.fleet.strangers import Strangers
from lora_router.fleet.unlisted_adapters import UnlistedAdapters

_NONE: frozenset[str] = frozenset()

IN_SLOT, IN_HOST_MEMORY, AWAY = range(3)
"""Where an adapter can be: in a slot (active or not); evicted to host memory; on disk or in a
remote store."""


class AdapterBeliefs:
    """What is known about the adapters of one pod. Only the fleet and the ledger write to it."""

    __slots__ = (
        "_fits",
        "_idle_server",
        "_process",
        "_resident",
        "_slot_waits",
        "_strangers",
        "_used_since_scrape",
        "active",
        "are_slots_assumed",
        "expected",
        "foreign_adapters",
        "foreign_requests",
        "free_slots",
        "knows_disk",
        "last_uses",
        "load_seconds",
        "memory",
        "peers",
        "residency",
        "scraped_at",
        "shown",
        "slots",
        "somebody_waits",
        "unlisted",
    )

    def __init__(self, expected: Mapping[str, int]) -> None:
        self.expected = expected
        """The adapters that this router has in flight: the ledger's own counts of requests."""
        self.scraped_at = float("-inf")
        """When the last scrape arrived, on the router's monotonic clock."""
        self.slots: int | None = None
        """How many distinct adapters one batch can contain. ``None``: unknown."""
        self.are_slots_assumed = True
        """Whether neither the pod nor its description has said how many there are."""
        self.active = _NONE
        """The adapters in use by the last scrape (``idle_server``), if the pod reports this."""
        self.shown = _NONE
        """The adapters that are in flight according to the last scrape or the shares of peers."""
        self.foreign_adapters = _NONE
        self.foreign_requests = 0
        self.somebody_waits = False
        """Whether by the last scrape a request of an unknown sender may wait for a slot."""
        self.free_slots: int | None = None
        """The number of free slots. ``None``: the number of slots is unknown. Negative: this many
        more adapters are in flight than there are slots."""
        self.peers = PodPeers()
        """The shares of peers for this pod."""
        self.memory = HostMemory()
        """The estimate of what is in host memory."""
        self.load_seconds: LoadSeconds = ASSUMED
        """How long a load takes, by where the adapter is. The fleet keeps it up to date."""
        self.knows_disk = False
        """Whether that of a load from disk was learned from loads, and is not only assumed."""
        self._strangers = Strangers()
        self._slot_waits = SlotWaits()
        self._idle_server = IdleServer()
        self._resident: dict[str, None] | None = None
        """The estimate of what is in the slots, in order of last use. ``None``: not needed yet."""
        self._fits = True
        """Whether the adapters in flight fit into the slots."""
        self.last_uses: dict[str, float] = {}
        """Adapters with the times of their last uses, the latest one last (``last_uses``)."""
        self._used_since_scrape: set[str] = set()
        """Adapters that this router or a peer used since the last scrape."""
        self.unlisted = UnlistedAdapters()
        """Adapters that the pod does not list any more."""
        self.residency: LoraResidency | None = None
        """What the last scrape reported of what is loaded. ``None``: the server reports nothing."""
        self._process = ServerProcess()
        self._resize()

    # Queries of algorithms

    def may_take_slot(self, adapter: str) -> bool:
        """Return whether this router may take a free slot for an adapter that is not in flight.

        Where routers exchange shares, a free slot can be in another router's allotment
        (``slot_allotment``).
        """
        peers = self.peers
        # Nobody can be allotted slots whose number is unknown.
        if peers.allotment is None or self.slots is None:
            return True
        is_loaded = self.is_resident(adapter)
        return peers.leave_a_slot(self.expected, self.foreign_adapters, is_loaded=is_loaded)

    def where(self, adapter: str) -> int:
        """Return where an adapter is, as far as is known: IN_SLOT, IN_HOST_MEMORY or AWAY."""
        residency = self.residency
        if residency is not None and adapter not in self._used_since_scrape:
            if adapter in residency.gpu:
                return IN_SLOT
            return IN_HOST_MEMORY if adapter in residency.cpu else AWAY
        resident = self._resident
        if resident is None and adapter in self.last_uses:
            if self.slots is None:
                return IN_SLOT
            resident = self._resident = estimate_resident(
                self.last_uses,
                self.expected,
                self.foreign_adapters,
                None if self._fits else self.active,
                self.slots,
            )
        if resident is not None and adapter in resident:
            return IN_SLOT
        memory = self.memory
        return IN_HOST_MEMORY if adapter in memory.held or adapter in memory.fits else AWAY

    def seconds_to_load(self, adapter: str) -> float:
        """Return how long it probably takes to bring an adapter into a slot; 0 if it is in one.

        In seconds. Neither the wait for a free slot nor the queue of the pod is part of it.
        """
        return self.load_seconds[self.where(adapter)]

    def is_resident(self, adapter: str) -> bool:
        """Return whether an adapter is in a slot, active or not, as far as is known."""
        return self.where(adapter) == IN_SLOT

    def in_host_memory(self, adapter: str) -> bool:
        """Return whether an adapter is in host memory or in a slot, as far as is known."""
        return self.where(adapter) != AWAY

    # Updates from the fleet and the ledger

    def told(self, spec: LoraSpec, engine: str | None) -> None:
        """Apply what discovery says of the server."""
        self.memory.tell(spec, engine)
        if spec.slots is not None and self.scraped_at == float("-inf"):
            self.slots, self.are_slots_assumed = spec.slots, False
            self._merge()
        self._resize()

    def assume_slots(self, usual: int | None) -> None:
        """Assume as many slots as other pods of its base model, unless their number is known."""
        # A new pod has no load, and attracts requests before its first scrape.
        if self.are_slots_assumed and usual != self.slots:
            self.slots = usual
            self._merge()
            self._resize()

    def learn_size(self, size: int) -> None:
        """Apply what loads showed of the size of host memory (``learned_size``)."""
        self.memory.learned = size
        self._resize()

    def lists(self, adapters: Names) -> None:
        """Apply the adapters that the server lists. New ones were just loaded into a slot."""
        self.serves(adapters)
        for adapter in self.memory.lists(adapters):
            self._touch(adapter, ELSEWHERE)
        self._resize()
        self._resident = None

    def serves(self, adapters: Collection[str]) -> None:
        """Forget the uses of what the server had and has no more: it has these adapters."""
        self.unlisted.list(adapters, self.last_uses)
        self._forget_unlisted()

    def used(self, adapter: str) -> None:
        """Record that a request of this router for an adapter was sent or ended."""
        self._used_since_scrape.add(adapter)
        self._touch(adapter)
        if self.unlisted.used:
            self._forget_unlisted()
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
            seat(adapter, resident, self.slots, self.expected, self.foreign_adapters)

    def never_used(self, adapter: str) -> None:
        """Forget a use of an adapter that the pod does not have."""
        self.last_uses.pop(adapter, None)
        self.memory.forget(adapter)
        self._resident = None

    def scraped(self, metrics: PodMetrics, in_flight: int) -> bool:
        """Apply a scrape.

        Args:
            metrics: The snapshot.
            in_flight: The number of requests that this router had in flight when the page arrived.

        Returns:
            Whether it shows that the server was started again.
        """
        before = self.slots
        restarted = self._process.is_another(metrics)
        if restarted:
            self.slots = self.memory.spec.slots
            self.are_slots_assumed = self.slots is None
            self.last_uses = dict.fromkeys((*self.expected, *self.peers.adapters), ELSEWHERE)
            self.memory.evictions = 0
        self.scraped_at = metrics.scraped_at
        shown = int((metrics.running or 0.0) + (metrics.waiting or 0.0))
        self.residency = metrics.residency
        # Some pages omit the number of slots. It never changes while a server runs.
        if metrics.slots:
            self.slots, self.are_slots_assumed = metrics.slots, False
        self.active = self._idle_server.active(metrics)
        self._strangers.scraped(
            self.active, (self.expected, self._used_since_scrape), shown - in_flight, self.peers
        )
        known = self.active | self.expected.keys() | self.peers.adapters
        self.somebody_waits = self._slot_waits.scraped(metrics, self.slots, known, self._strangers)
        for adapter in sorted(self._strangers.adapters):
            self._touch(adapter, ELSEWHERE)
        self._used_since_scrape.clear()
        self._merge()
        self._forget_unlisted()
        if restarted or self.slots != before:
            self._resize()
        return restarted

    def put_share(self, router: str, share: PodShare | None, last_at: float) -> bool:
        """Apply a peer's share (``None``: the peer has nothing here).

        Args:
            router: The peer.
            share: Its share for this pod.
            last_at: When its share before this one arrived, on the clock of ``scraped_at``.

        Return whether it changed anything.
        """
        news = self.peers.put(router, share)
        if news is None:
            return False
        moved = sorted(news.started | news.ended)
        self._used_since_scrape.update(moved)
        for adapter in moved:
            self._touch(adapter, ELSEWHERE)
        # The last scrape showed these before the share arrived, so they are not a stranger's.
        self._strangers.explain(news.started, news.more if last_at <= self.scraped_at else 0)
        self._merge()
        return True

    def forget_peer(self, router: str) -> bool:
        """Forget a peer's share because the peer is silent or stopped; return whether it mattered.

        What the last scrape showed of it is a stranger's until the next scrape, as if there had
        never been a share: without a peer, a router knows what scrapes show.
        """
        share = self.peers.share_of(router)
        used_since_scrape = set(self._used_since_scrape)
        if share is None or not self.put_share(router, None, self.scraped_at):
            return False
        # Its requests have not ended: the next scrape is right about them.
        self._used_since_scrape = used_since_scrape
        seen = (self.active & share.adapters.keys()) - self.expected.keys()
        self._strangers.take_over(seen, self.peers)
        self._merge()
        return True

    def used_elsewhere(self, adapters: Collection[str]) -> None:
        """Record that requests of a peer used adapters, and have ended."""
        self._used_since_scrape.update(adapters)
        for adapter in adapters:
            self._touch(adapter, ELSEWHERE)
        # The last scrape may have shown them before the peer could report them.
        self._strangers.explain(adapters)
        self._merge()

    def learn(self, uses: Mapping[str, float]) -> list[str]:
        """Apply what a peer believes of idle adapters: the times of their last uses.

        Return those whose last use was not known here. What is in flight is known better.
        """
        in_flight = self.expected.keys() | self.foreign_adapters
        news = later(uses, self.last_uses, in_flight, self._process.emptied_at)
        if not news:
            return []
        self.last_uses, self._resident = merged(self.last_uses, news, MOST), None
        self._resize()
        return list(news)

    def forget_old(self, now: float, max_age: float) -> bool:
        """Forget what strangers have in flight if the last scrape is too old.

        Return whether anything was forgotten.
        """
        if now - self.scraped_at <= max_age or not (
            self.active or self._strangers.requests or self.somebody_waits
        ):
            return False
        self.active = _NONE
        self._strangers = Strangers()
        self.somebody_waits = False
        self._merge()
        return True

    def _forget_unlisted(self) -> None:
        gone = self.unlisted.without_requests(self.expected, self.foreign_adapters)
        for adapter in gone:
            self.never_used(adapter)
        if gone:  # There is room again for what the server still lists.
            self._resize()

    def _resize(self) -> None:
        self.memory.resize(self.slots, self.last_uses, self.expected.keys(), self.foreign_adapters)

    def _merge(self) -> None:
        self._resident = None
        peers, strangers = self.peers, self._strangers
        self.foreign_requests = strangers.requests + peers.requests
        if peers:
            self.foreign_adapters = strangers.adapters | peers.adapters
            self.shown = self.active | peers.adapters
        else:
            self.foreign_adapters, self.shown = strangers.adapters, self.active
        self._count_free()
        if peers and self.somebody_waits:
            # If more adapters are in flight than there are slots, the ledgers explain who waits.
            # They also show when no request waits any more.
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

    def _touch(self, adapter: str, at: float = HERE) -> None:
        oldest = use(self.last_uses, adapter, at, MOST)
        if oldest is not None and (oldest in self.expected or oldest in self.foreign_adapters):
            self._resident = None
        self.unlisted.use(adapter)
        memory = self.memory
        if not memory.follows:
            memory.use(adapter, self.expected, self.foreign_adapters)
