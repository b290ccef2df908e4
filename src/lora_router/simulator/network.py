"""The network between simulated routers.

- A packet takes the delay, and up to the jitter more.
- A packet that does not arrive is sent again after a time that doubles with each attempt, as TCP
  does. So the packets of a stream are late, but none of them is missing.
- No packet passes between a router that is parted and the others.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from lora_router.simulator.events import EventQueue

RESEND_SECONDS = 0.2
"""Time until a packet is sent again: the least that Linux waits."""
CONNECT_AGAIN_SECONDS = 1.0
"""Time until the first packet of a connection is sent again."""


@dataclass(frozen=True, slots=True)
class WireOptions:
    """What happens to messages between routers."""

    delay_seconds: float = 0.005
    jitter_seconds: float = 0.005
    """The most that is added to the delay, evenly."""
    loss: float = 0.0
    """Share of the messages that never arrive, although later ones do."""
    late: float = 0.0
    """Share of the packets that are sent again. The messages behind them in their stream wait."""


class Place:
    """Where a router is in the network."""

    __slots__ = ("parted_until",)

    def __init__(self) -> None:
        self.parted_until = 0.0
        """Until when no packet passes between this router and the others."""


class Network:
    """Carries packets."""

    def __init__(self, options: WireOptions, events: EventQueue, rng: random.Random) -> None:
        self._options = options
        self._events = events
        self._rng = rng

    def loses(self) -> bool:
        """Return whether the next message never arrives."""
        return self._options.loss > 0 and self._rng.random() < self._options.loss

    def carry(
        self,
        here: Place,
        there: Place,
        arrive: Callable[[], None],
        again: float = RESEND_SECONDS,
    ) -> None:
        """Carry a packet from one router to another.

        Args:
            here: The sender.
            there: The receiver.
            arrive: Called when it arrives.
            again: Seconds until it is sent again if it does not.
        """
        now = self._events.time
        options, rng = self._options, self._rng
        parted = now < here.parted_until or now < there.parted_until
        if parted or (options.late > 0 and rng.random() < options.late):
            self._events.call_later(again, lambda: self.carry(here, there, arrive, 2 * again))
            return
        self._events.call_later(
            options.delay_seconds + options.jitter_seconds * rng.random(), arrive
        )
