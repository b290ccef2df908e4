"""Records that routers exchange. This module does not know how they are transported.

A share always contains the complete state, not a difference. A lost share therefore costs only
freshness, and no router has to remember what it sent before. Past uses of adapters and prompts that
were sent are the exceptions: they are no state that ends, and a share without them takes nothing
back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import Struct


@dataclass(frozen=True, slots=True)
class PodShare:
    """What one router has in flight on one pod."""

    server: tuple[str, str]
    """The pod's address and uid. The share does not apply to another server of the same name."""
    requests: int
    adapters: Mapping[str, int]
    """The number of these requests for each adapter. Adapters without requests are omitted."""


@dataclass(frozen=True, slots=True)
class UsedShare:
    """Adapters that were used on one pod, and that one router has not in flight there."""

    server: tuple[str, str]
    """As in ``PodShare``."""
    adapters: dict[str, float]
    """For each adapter the seconds since its last use, as far as the router knows. The adapter that
    was used last comes last."""


@dataclass(frozen=True, slots=True)
class SentShare:
    """Prompts that one router has sent to one pod since its last share."""

    server: tuple[str, str]
    """As in ``PodShare``."""
    seconds: float
    """How long the pod needs for those that it has not processed yet, as the router believes."""


class HeldShare(Struct, frozen=True):
    """The requests for one adapter that one router holds. One is made for each, for each report."""

    seconds: float
    """How long the first of them has waited, in seconds."""
    wanted: str | None = None
    """The name of the pod whose free slot these requests would take if that slot were in the
    router's allotment."""
    closed: tuple[str, str] | None = None
    """The slot that is closed so that it becomes free for these requests, if one was chosen: a
    pod's name, and the adapter that receives no further requests there. The requests may wait on
    that pod already."""
    priority: int = 0
    """That of the first of them. Requests of a higher one get slots first."""

    @property
    def place(self) -> tuple[int, float]:
        """What decides who is served first: the higher."""
        return self.priority, self.seconds


@dataclass(frozen=True, slots=True)
class LedgerShare:
    """One router's share: its ledger at one moment."""

    router: str
    """The router's name. It is unique among the routers of the fleet."""
    number: int
    """Sequence number of the share, starting at 1."""
    every: float
    """Seconds until the next share. A router that misses several shares is treated as gone."""
    pods: Mapping[str, PodShare]
    """By pod name. Pods without requests in flight may be omitted."""
    held: Mapping[str, HeldShare]
    """The held requests, by adapter."""
    heard: Mapping[str, int]
    """Acknowledgements: for each peer, the number of the last share that arrived here."""
    ejected: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """The pods that the router has ejected because they failed: for each name, the server's address
    and uid."""
    used: Mapping[str, UsedShare] = field(default_factory=dict)
    """By pod name: adapters whose requests, all of this router, began and ended since its last
    share. So no share has them in flight."""
    idle: Mapping[str, UsedShare] = field(default_factory=dict)
    """By pod name: idle adapters that the router believes to be loaded. Only some shares have them:
    the first one that a peer gets, and one every few seconds."""
    sent: Mapping[str, SentShare] = field(default_factory=dict)
    """By pod name. Pods that got few prompts are omitted."""
    may_load: bool = True
    """Whether the router would load adapters for all routers, if it is the one to do so."""

    def has_sent(self, adapter: str, held: HeldShare) -> bool:
        """Return whether an adapter waits on the pod with the slot that is closed for it.

        It then needs no other slot.
        """
        pod = None if held.closed is None else self.pods.get(held.closed[0])
        return pod is not None and adapter in pod.adapters
