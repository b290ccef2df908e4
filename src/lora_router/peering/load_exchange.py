"""Tells peers how long loads of adapters took, and takes in what they tell. No I/O.

A router sees only the loads that its own requests wait for, and first bytes of its own requests
that need none, with which it compares them. If several routers learned alone, each of them would
see few. For minutes it would place adapters by what loads are assumed to take.
A lost message is not sent again, because the next loads tell the same.
"""

from collections.abc import Collection, MutableSequence

from lora_router.clock import Timer
from lora_router.fleet.adapter_beliefs import AWAY, IN_HOST_MEMORY, IN_SLOT
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.load_seconds import HIGHEST_SECONDS
from lora_router.fleet.load_times import base_model_of
from lora_router.peering.budget import Budgets
from lora_router.peering.hub import Hub
from lora_router.peering.limits import (
    LOAD_TIMES_BURST,
    LOAD_TIMES_PER_SECOND,
    MAX_LOAD_TIMES,
    MAX_NAME_BYTES,
    byte_length,
    is_tellable,
)
from lora_router.peering.pb.peering_pb2 import LoadTimes, PeerMessage
from lora_router.peering.report_reader import ReportError

TELL_SECONDS = 1.0
"""How long loads are gathered for one message."""
MOST_FIRST_BYTES = 4
"""How many first bytes without a load one message has of a base model. They are many, and their
median is enough."""


class LoadExchange:
    """How long loads took, as this router and its peers saw it."""

    def __init__(self, hub: Hub, fleet: Fleet) -> None:
        """Create it.

        Args:
            hub: All peers. It calls this from now on.
            fleet: Whose loads are told, and what peers tell is applied to.
        """
        self._hub = hub
        self._fleet = fleet
        self._load_times = fleet.ledger.load_times
        self._budgets = Budgets(LOAD_TIMES_BURST, LOAD_TIMES_PER_SECOND, hub.now)
        self._untold: dict[str, LoadTimes] = {}
        """By base model."""
        self._rows = 0
        self._timer: Timer | None = None
        self._load_times.on_seen = self._seen
        hub.load_times = self

    def received(self, name: str, message: Collection[LoadTimes]) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message exceeds a bound.
        """
        rows = sum(len(each.host) + len(each.disk) + len(each.in_slot) for each in message)
        if len(message) > MAX_LOAD_TIMES or rows > MAX_LOAD_TIMES:
            raise ReportError("too-large", f"more than {MAX_LOAD_TIMES} times of loads")
        if any(byte_length(each.base_model) > MAX_NAME_BYTES for each in message):
            raise ReportError("too-large", "the time of a load has too long a name")
        if name not in self._hub.peers or not self._budgets.spend(name, max(rows, len(message))):
            return
        known = {base_model_of(state) for state in self._fleet}
        for each in message:
            if each.base_model in known:
                for place in (IN_SLOT, IN_HOST_MEMORY, AWAY):
                    for milliseconds in _times_of(each, place):
                        seconds = max(-HIGHEST_SECONDS, min(HIGHEST_SECONDS, milliseconds / 1000))
                        self._load_times.heard(each.base_model, place, seconds)

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more. What it told stays."""
        self._budgets.forget(name)

    def _seen(self, base_model: str, place: int, seconds: float) -> None:
        if not self._hub.peers or self._rows >= MAX_LOAD_TIMES:
            return
        row = self._untold.get(base_model)
        if row is None:
            if not is_tellable(base_model):
                return
            row = self._untold[base_model] = LoadTimes(base_model=base_model)
        if place == IN_SLOT and len(row.in_slot) >= MOST_FIRST_BYTES:
            return  # So it is with most answers.
        _times_of(row, place).append(round(1000 * min(seconds, HIGHEST_SECONDS)))
        self._rows += 1
        if self._timer is None:
            self._timer = self._hub.call_later(TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        message = PeerMessage(load_times=self._untold.values())
        self._untold, self._rows, self._timer = {}, 0, None
        self._hub.send_to_all(message.SerializeToString())


def _times_of(row: LoadTimes, place: int) -> MutableSequence[int]:
    """Return the times of loads from a place."""
    return {IN_SLOT: row.in_slot, IN_HOST_MEMORY: row.host, AWAY: row.disk}[place]
