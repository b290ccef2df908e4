"""The shares of peers for one pod, and this router's allotment of the pod's free slots."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from lora_router.fleet.peer_ledgers import PodShare

_NONE: frozenset[str] = frozenset()


UNTOUCHED = 20
"""If the free slots of a pod stay unchanged for this many shares, another router is unlikely to
take one of them before the next share. A lower value causes more conflicts between routers. A
higher value causes more loads."""


class Allotment(NamedTuple):
    """The allotment of this router: the slots, free according to all shares, that it may take.

    See ``slot_allotment``.
    """

    slots: int
    """The number of slots that it may take for any adapter."""
    slots_if_loaded: int
    """The number of slots that it may take for an adapter that is still loaded on the pod."""
    may_reuse: bool
    """Whether this router may reuse the slots that it has freed since its last share."""

    @classmethod
    def of(
        cls, allotted: int, unclaimed: int, untouched: float, every: float, *, may_reuse: bool
    ) -> "Allotment":
        """Return the allotment on a pod.

        Args:
            allotted: The slots of this router.
            unclaimed: The free slots that nobody claims.
            untouched: For how many seconds they have been as many.
            every: The interval between two shares.
            may_reuse: Whether this router may reuse the slots that it frees.
        """
        spare = unclaimed > 1 or untouched >= UNTOUCHED * every
        return cls(allotted, max(allotted, unclaimed) if spare else allotted, may_reuse)


class News(NamedTuple):
    """What a peer's new share changed about a pod."""

    started: frozenset[str]
    """Adapters that came in flight."""
    ended: frozenset[str]
    """Adapters that are no longer in flight."""
    more: int
    """By how many the peer's requests in flight increased; negative for a decrease."""


class PodPeers:
    """The merged shares of all peers for one pod.

    They are merged when a share arrives, so that a request does not have to add anything up. Only
    the fleet writes to it.
    """

    __slots__ = (
        "_counts",
        "_shares",
        "adapters",
        "allotment",
        "closed",
        "closed_since",
        "reported",
        "requests",
    )

    def __init__(self) -> None:
        self.adapters = _NONE
        """Adapters that peers have in flight."""
        self.requests = 0
        """The number of requests that peers have in flight."""
        self.closed = _NONE
        """Adapters that receive no further requests here, because a peer waits for their slot."""
        self.closed_since: Mapping[str, float] = {}
        """When this router learned of each of them, in seconds, monotonic."""
        self.reported = _NONE
        """Adapters that were in flight in this router's own last share."""
        self.allotment: Allotment | None = None
        """``None``: no peer sends shares, so this router may take every free slot."""
        self._shares: dict[str, PodShare] = {}
        self._counts: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._shares)

    def in_flight(self, adapter: str) -> int:
        """Return the number of an adapter's requests that peers have in flight."""
        return self._counts.get(adapter, 0)

    def share_of(self, router: str) -> PodShare | None:
        """Return the last share of a peer, or ``None`` if it has nothing here."""
        return self._shares.get(router)

    def leave_a_slot(
        self, expected: Collection[str], foreign: Collection[str], *, is_loaded: bool
    ) -> bool:
        """Return whether this router may take a free slot for a further adapter.

        Args:
            expected: Adapters that this router has in flight.
            foreign: Adapters that others have in flight.
            is_loaded: Whether the further adapter is still loaded on the pod.
        """
        allotment = self.allotment
        if allotment is None:
            return True
        reported = self.reported
        left = allotment.slots_if_loaded if is_loaded else allotment.slots
        for adapter in expected:
            left -= adapter not in reported and adapter not in foreign
        if left <= 0 and allotment.may_reuse:
            for adapter in reported:
                left += adapter not in expected and adapter not in foreign
        return left > 0

    def put(self, router: str, share: PodShare | None) -> News | None:
        """Store a peer's share (``None``: it has nothing here).

        Return what changed, or ``None``.
        """
        old = self._shares.get(router)
        if share is old:
            return None
        if share == old and share is not None:
            # A complete report makes new objects of what is the same. Keep the new one: the next
            # report has it again, and is then found to be the same without a comparison.
            self._shares[router] = share
            return None
        if share is None:
            del self._shares[router]
        else:
            self._shares[router] = share
        before: Mapping[str, int] = {} if old is None else old.adapters
        after: Mapping[str, int] = {} if share is None else share.adapters
        more = (0 if share is None else share.requests) - (0 if old is None else old.requests)
        self.requests += more
        if before == after:
            return News(_NONE, _NONE, more)
        started, ended = after.keys() - before.keys(), before.keys() - after.keys()
        counts = self._counts
        known = len(counts)
        for adapter, requests in after.items():
            counts[adapter] = counts.get(adapter, 0) + requests - before.get(adapter, 0)
        for adapter in ended:
            counts[adapter] -= before[adapter]
            if not counts[adapter]:
                del counts[adapter]
        if ended or len(counts) != known:
            self.adapters = frozenset(counts)
        return News(frozenset(started), frozenset(ended), more)
