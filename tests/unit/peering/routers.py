"""Routers that exchange reports over streams in memory, on one manual clock."""

from collections import deque
from dataclasses import dataclass, field

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HealthRules
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.peering.conversation import Conversation
from lora_router.peering.hub import Hub
from lora_router.peering.link import Ending
from lora_router.peering.mesh import Mesh
from tests.fleet import ManualClock, make_fleet

DELAY = 0.001


@dataclass
class MemoryLink:
    """One side of a stream. What it sends arrives after ``DELAY``, unless it is cut or stuck."""

    clock: ManualClock
    other: "MemoryLink | None" = None
    conversation: Conversation | None = None
    ending: Ending | None = None
    cut: bool = False
    """Whether everything that is sent is lost."""
    stuck: bool = False
    """Whether the other side does not read."""
    waiting: deque[bytes] = field(default_factory=deque)
    sent: list[bytes] = field(default_factory=list)

    @property
    def is_ready(self) -> bool:
        return not self.waiting

    def send(self, message: bytes) -> None:
        assert self.ending is None, "nothing is sent on a stream that ended"
        self.sent.append(message)
        if self.stuck:
            self.waiting.append(message)
        elif not self.cut:
            self.clock.call_later(DELAY, lambda: self._arrive(message))

    def close(self, ending: Ending) -> None:
        assert self.ending is None, "a stream is closed once"
        self.ending = ending
        if not self.cut:
            self.clock.call_later(DELAY, self._end_other)

    def _arrive(self, message: bytes) -> None:
        there = self.other
        if there is None or there.conversation is None or not there.conversation.is_open:
            return
        ending = there.conversation.receive(message)
        if ending is not None and there.ending is None:
            there.conversation.ended()
            there.close(ending)

    def _end_other(self) -> None:
        there = self.other
        if there is not None and there.conversation is not None and there.ending is None:
            there.ending = Ending(0, "the other side ended the stream")
            there.conversation.ended()


class Router:
    """A router's fleet and hub."""

    def __init__(
        self, name: str, clock: ManualClock, *, pods: int = 2, rules: HealthRules | None = None
    ) -> None:
        self.clock = clock
        outliers = Outliers(rules or HealthRules(), clock.now)
        self.fleet: Fleet = make_fleet(pods, adapters=("a", "b", "c"), outliers=outliers)
        self.outliers = outliers
        self.held: dict[str, HeldShare] = {}
        self.hub = Hub(name, self.fleet, lambda: self.held, clock)
        self.mesh = Mesh(self.hub)

    def connect(self, other: "Router") -> MemoryLink:
        """Open a stream to another router; return this side of it."""
        here, there = self.link(), other.link()
        here.other, there.other = there, here
        refusal = other.mesh.refusal()
        assert refusal is None, refusal
        there.conversation = other.mesh.accept(there)
        here.conversation = self.mesh.open(here)
        here.conversation.greet()
        return here

    def link(self) -> MemoryLink:
        return MemoryLink(self.clock)

    def peers(self) -> list[str]:
        return sorted(self.hub.peers)


def mesh(clock: ManualClock, *names: str, pods: int = 2) -> list[Router]:
    """Return routers that all opened streams to each other, and have reported."""
    routers = [Router(name, clock, pods=pods) for name in names]
    for router in routers:
        for other in routers:
            if other is not router:
                router.connect(other)
    clock.advance(0.3)
    return routers
