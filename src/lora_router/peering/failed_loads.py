"""Tells peers which adapters cannot be loaded, and takes in what they tell. No I/O.

One router loads for all of them. So the others learn from it that their requests would wait in
vain. Nothing is sent again: while requests wait for an adapter, it fails again.
"""

from collections.abc import Collection
from typing import Protocol

from lora_router.peering.budget import Budgets
from lora_router.peering.hub import Hub
from lora_router.peering.limits import (
    FAILED_LOADS_BURST,
    FAILED_LOADS_PER_SECOND,
    MAX_FAILED_LOADS,
    MAX_FAILED_SECONDS,
    MAX_NAME_BYTES,
    byte_length,
    is_tellable,
)
from lora_router.peering.pb.peering_pb2 import FailedLoad, PeerMessage
from lora_router.peering.report_reader import ReportError

_MAX_DETAIL_LENGTH = 200


class Waits(Protocol):
    """Holds requests for adapters that are not loaded."""

    def heard(self, served: str, detail: str, seconds: float) -> None:
        """Refuse requests for an adapter for some time, because it cannot be loaded."""


class FailedLoads:
    """What fails, as this router and its peers know it."""

    def __init__(self, hub: Hub, waits: Waits) -> None:
        """Create it.

        Args:
            hub: All peers. It calls this from now on.
            waits: Takes in what peers tell.
        """
        self._hub = hub
        self._waits = waits
        self._budgets = Budgets(FAILED_LOADS_BURST, FAILED_LOADS_PER_SECOND, hub.now)
        hub.failed_loads = self

    def tell(self, served: str, detail: str, seconds: float) -> None:
        """Tell peers that an adapter cannot be loaded."""
        if not is_tellable(served):
            return
        failed = FailedLoad(
            adapter=served,
            detail=detail[:_MAX_DETAIL_LENGTH],
            milliseconds=int(1000 * min(MAX_FAILED_SECONDS, max(0.0, seconds))),
        )
        self._hub.send_to_all(PeerMessage(failed_loads=[failed]).SerializeToString())

    def received(self, name: str, message: Collection[FailedLoad]) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message exceeds a bound.
        """
        if len(message) > MAX_FAILED_LOADS:
            raise ReportError("too-large", f"more than {MAX_FAILED_LOADS} failed loads")
        if name not in self._hub.peers or not self._budgets.spend(name, len(message)):
            return
        for each in message:
            if byte_length(each.adapter) > MAX_NAME_BYTES or len(each.detail) > _MAX_DETAIL_LENGTH:
                raise ReportError("too-large", "a failed load has too long a text")
            detail = "".join(filter(str.isprintable, each.detail))
            seconds = min(MAX_FAILED_SECONDS, each.milliseconds / 1000)
            self._waits.heard(each.adapter, detail, seconds)

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""
        self._budgets.forget(name)
