"""What all connections of a process share: bytes, streams, and the rate of wasted streams."""

import time
from collections.abc import Callable

from lora_router.grpc_server.budget import Budget, CallLater
from lora_router.grpc_server.limits import ProcessLimits
from lora_router.grpc_server.resets import Resets
from lora_router.grpc_server.violations import ErrorCode, PeerError


class Bounds:
    """The shared bounds, and how much of each is used."""

    def __init__(
        self,
        limits: ProcessLimits,
        *,
        small: int,
        call_later: CallLater,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create bounds of which nothing is used.

        Args:
            limits: The limits of the process.
            small: Initial window of a stream. A stream that expects no more never waits.
            call_later: Schedules the end of waits.
            now: Returns seconds, monotonic.
        """
        self.limits = limits
        self.budget = Budget(
            limits.buffered_bytes,
            small=small,
            now=now,
            call_later=call_later,
            wait_seconds=limits.wait_seconds,
        )
        self.resets = Resets(limits.resets, now)
        self.max_streams = limits.streams
        self.streams = 0
        """Open streams of all connections."""
        self.refused_streams = 0
        """Streams refused because too many were open, in total."""
        self.refused_connections = 0
        """Connections closed because there were too many, in total."""

    def check_queue(self, queued: int, limit: int) -> None:
        """Check that a peer reads.

        Args:
            queued: The bytes that wait for it.
            limit: The limit of its connection.

        Raises:
            PeerError: Too many bytes wait, for this connection or for its share of the process.
        """
        budget = self.budget
        share = budget.limit / max(1, self.resets.connections)
        if queued > limit or (budget.output > budget.limit and queued > share):
            raise PeerError(
                ErrorCode.ENHANCE_YOUR_CALM, "peer does not read: send queue limit exceeded"
            )
