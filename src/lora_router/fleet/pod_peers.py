"""What other routers told of one pod, and which of its free slots are this router's to take."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from lora_router.fleet.peer_ledgers import PodShare

_NONE: frozenset[str] = frozenset()


class Turn(NamedTuple):
    """The part of the slots that are free by what was told. See ``slot_turns``."""

    slots: int
    """For any adapter."""
    slots_if_loaded: int
    """For an adapter that is still loaded there."""
    may_reuse: bool
    """Whether what this router has freed since it told is its own."""


class News(NamedTuple):
    """What a telling changed about a pod."""

    started: frozenset[str]
    """Adapters that the router had not in flight before."""
    ended: frozenset[str]
    """Adapters that it has in flight no more."""
    more: int
    """Requests that it has in flight more than before; fewer if negative."""


class PodPeers:
    """Of one pod. Merged when somebody tells, so that a request has nothing to add up.

    Written by the cache only.
    """

    __slots__ = ("_counts", "_shares", "adapters", "closed", "requests", "told", "turn")

    def __init__(self) -> None:
        self.adapters = _NONE
        """Adapters that other routers have in flight."""
        self.requests = 0
        """Requests that other routers have in flight."""
        self.closed = _NONE
        """Adapters that get no further requests here, as another router waits for their slot."""
        self.told = _NONE
        """Adapters in flight by what this router told last."""
        self.turn: Turn | None = None
        """``None``: all that is free may be taken, since nobody else tells."""
        self._shares: dict[str, PodShare] = {}
        self._counts: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._shares)

    def in_flight(self, adapter: str) -> int:
        """Return the requests of an adapter that other routers have in flight."""
        return self._counts.get(adapter, 0)

    def leave_a_slot(
        self, expected: Collection[str], foreign: Collection[str], *, is_loaded: bool
    ) -> bool:
        """Say whether a slot, if one is free, is this router's to take for a further adapter.

        Args:
            expected: Adapters that this router has in flight.
            foreign: Adapters that others have.
            is_loaded: Whether the further adapter is still loaded.
        """
        turn = self.turn
        if turn is None:
            return True
        told = self.told
        left = turn.slots_if_loaded if is_loaded else turn.slots
        for adapter in expected:
            left -= adapter not in told and adapter not in foreign
        if left <= 0 and turn.may_reuse:
            for adapter in told:
                left += adapter not in expected and adapter not in foreign
        return left > 0

    def put(self, router: str, share: PodShare | None) -> News | None:
        """Take what a router told; ``None``: it has nothing here. Return what is new."""
        old = self._shares.get(router)
        if share == old:
            return None
        if share is None:
            del self._shares[router]
        else:
            self._shares[router] = share
        before: Mapping[str, int] = {} if old is None else old.adapters
        after: Mapping[str, int] = {} if share is None else share.adapters
        more = (0 if share is None else share.requests) - (0 if old is None else old.requests)
        self.requests += more
        self._counts = {}
        for each in self._shares.values():
            for adapter, requests in each.adapters.items():
                self._counts[adapter] = self._counts.get(adapter, 0) + requests
        self.adapters = frozenset(self._counts)
        started = frozenset(after.keys() - before.keys())
        return News(started, frozenset(before.keys() - after.keys()), more)
