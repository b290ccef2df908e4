"""Tells peers which adapters were refused slots early, and takes in what they tell. No I/O.

A router knows that there is overload by how long requests would wait if none had been refused.
Each of several routers refuses a part of them. If each counted only what it refuses itself, all of
them would notice the overload late. A lost message is not sent again: an adapter that is refused
once more, after the time that it counts, is told once more.
"""

from collections.abc import Callable, Collection
from typing import Protocol

from lora_router.clock import Timer
from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.fleet import Fleet
from lora_router.peering.budget import Budgets
from lora_router.peering.hub import Hub
from lora_router.peering.limits import (
    EARLY_REFUSALS_BURST,
    EARLY_REFUSALS_PER_SECOND,
    MAX_EARLY_REFUSALS,
    MAX_NAME_BYTES,
    MAX_REFUSED_SECONDS,
    byte_length,
    is_tellable,
)
from lora_router.peering.pb.peering_pb2 import EarlyRefusal, PeerMessage
from lora_router.peering.report_reader import ReportError

TELL_SECONDS = 0.25
"""How long refusals are gathered for one message."""


class Waits(Protocol):
    """How long requests would wait for slots."""

    on_refused: Callable[[str, float, int], None]
    """Called with an adapter that is refused a slot early, how long it would wait for one, in
    seconds, and the priority, which is between those that clients may state."""

    def hear_refused(self, adapter: str, bases: BaseModels, seconds: float, priority: int) -> None:
        """Count an adapter that a peer refused a slot early."""


class RefusalExchange:
    """Which adapters were refused slots early, as this router and its peers saw it."""

    def __init__(self, hub: Hub, fleet: Fleet, waits: Waits) -> None:
        """Create it.

        Args:
            hub: All peers. It calls this from now on.
            fleet: Knows the base models of adapters.
            waits: Whose refusals are told, and what takes in what peers tell.
        """
        self._hub = hub
        self._fleet = fleet
        self._waits = waits
        self._budgets = Budgets(EARLY_REFUSALS_BURST, EARLY_REFUSALS_PER_SECOND, hub.now)
        self._untold: list[EarlyRefusal] = []
        self._timer: Timer | None = None
        waits.on_refused = self._refused
        hub.early_refusals = self

    def received(self, name: str, message: Collection[EarlyRefusal]) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message exceeds a bound.
        """
        if len(message) > MAX_EARLY_REFUSALS:
            raise ReportError("too-large", f"more than {MAX_EARLY_REFUSALS} early refusals")
        if any(byte_length(each.adapter) > MAX_NAME_BYTES for each in message):
            raise ReportError("too-large", "an early refusal has too long a name")
        if name not in self._hub.peers or not self._budgets.spend(name, len(message)):
            return
        for each in message:
            bases = self._fleet.peers.allotments.bases_of(each.adapter)
            if bases:
                seconds = min(MAX_REFUSED_SECONDS, each.milliseconds / 1000)
                self._waits.hear_refused(each.adapter, bases, seconds, each.priority)

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""
        self._budgets.forget(name)

    def _refused(self, adapter: str, seconds: float, priority: int) -> None:
        is_full = len(self._untold) >= MAX_EARLY_REFUSALS
        if is_full or not self._hub.peers or not is_tellable(adapter):
            return
        milliseconds = round(1000 * min(seconds, MAX_REFUSED_SECONDS))
        refusal = EarlyRefusal(adapter=adapter, milliseconds=milliseconds, priority=priority)
        self._untold.append(refusal)
        if self._timer is None:
            self._timer = self._hub.call_later(TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        message = PeerMessage(early_refusals=self._untold)
        self._untold, self._timer = [], None
        self._hub.send_to_all(message.SerializeToString())
