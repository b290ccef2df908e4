"""Routers that publish to each other in memory, on one manual clock."""

from collections import deque
from dataclasses import dataclass, field

from lora_router.peering.broadcast import Broadcasts
from lora_router.peering.hub import Hub
from lora_router.peering.secret import Secret
from lora_router.steps import all_at_once
from tests.fleet import ManualClock
from tests.unit.peering.routers import DELAY, Router

STARTED = 1_800_000_000.0
"""The time of the server when the clock of the test shows 0."""


@dataclass
class MemoryServer:
    """Carries what is published to all members, and stores states."""

    clock: ManualClock
    members: list["MemoryChannel"] = field(default_factory=list)
    states: dict[str, bytes] = field(default_factory=dict)
    published: list[bytes] = field(default_factory=list)

    def time(self) -> float:
        return STARTED + self.clock.now()

    def publish(self, data: bytes) -> None:
        self.published.append(data)
        for member in tuple(self.members):
            self.clock.call_later(DELAY, lambda member=member: member.deliver(data))  # type: ignore[misc]


@dataclass
class MemoryChannel:
    """One router's connection to the server."""

    server: MemoryServer
    name: str
    broadcasts: Broadcasts
    is_deaf: bool = False
    is_slow: bool = False
    given_up: str = ""
    waiting: deque[bytes] = field(default_factory=deque)

    @property
    def is_ready(self) -> bool:
        return not self.waiting

    def publish(self, data: bytes) -> None:
        if self.is_slow:
            self.waiting.append(data)
        else:
            self.server.publish(data)

    def store(self, state: bytes) -> None:
        self.server.states[self.name] = state

    def give_up(self, why: str) -> None:
        self.given_up = self.given_up or why

    def deliver(self, data: bytes) -> None:
        if not self.is_deaf and self in self.server.members:
            self.broadcasts.arrived(data)

    def connect(self) -> None:
        self.given_up = ""
        self.waiting.clear()
        self.server.members.append(self)
        self.broadcasts.set_time(self.server.time())
        for state in self.server.states.values():
            all_at_once(self.broadcasts.use_state(state))
        self.broadcasts.connected(self, self.server.states.keys())

    def disconnect(self) -> None:
        self.server.members.remove(self)
        self.broadcasts.disconnected()


class Publisher(Router):
    """A router on a channel."""

    def __init__(self, name: str, server: MemoryServer, secret: Secret | None = None) -> None:
        super().__init__(name, server.clock)
        # Without the mesh that the other routers of these tests have.
        self.hub = Hub(name, self.fleet, lambda: self.held, self.clock)
        self.channel = MemoryChannel(server, name, Broadcasts(self.hub, secret))
        self.channel.connect()


def publishers(server: MemoryServer, *names: str, secret: Secret | None = None) -> list[Publisher]:
    """Return routers that have met."""
    routers = [Publisher(name, server, secret) for name in names]
    server.clock.advance(0.3)
    return routers
