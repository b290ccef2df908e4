"""Tells peers that join what they have missed: soon after they joined, and not too often."""

from collections.abc import Callable

from lora_router.clock import Timer
from lora_router.peering.hub import Hub

JOIN_SECONDS = 0.5
"""From the first peer that joins until all of them are told."""


class Newcomers:
    """The peers that joined and have not been told yet. One message serves all of them."""

    def __init__(self, hub: Hub, again_seconds: float, tell: Callable[[], None]) -> None:
        """Create it.

        Args:
            hub: All peers.
            again_seconds: The shortest time from one call of ``tell`` to the next.
            tell: Tells all peers.
        """
        self._hub = hub
        self._again_seconds = again_seconds
        self._tell = tell
        self._timer: Timer | None = None
        self._told_at = float("-inf")

    def joined(self) -> None:
        """Take in that a peer joined."""
        if self._timer is None:
            now = self._hub.now()
            due = max(now + JOIN_SECONDS, self._told_at + self._again_seconds)
            self._timer = self._hub.call_later(due - now, self._due)

    def _due(self) -> None:
        self._timer = None
        self._told_at = self._hub.now()
        self._tell()
