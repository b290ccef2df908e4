"""What the peer of a connection was told of the streams that it must not open. No I/O.

A peer is first asked to open no more, so that streams in transit are served, and later told which
stream was the last (RFC 9113, section 6.8). The last stream of a GOAWAY never rises: Envoy ends all
streams of a connection on which it does.
"""

from lora_router.grpc_server import frames
from lora_router.grpc_server.flow import Outbox
from lora_router.grpc_server.violations import ErrorCode, PeerError

DRAINING = b"draining"
"""The payload of the PING after the first GOAWAY. Its acknowledgement shows that the peer has read
both."""


class GoingAway:
    """The GOAWAY frames of a connection."""

    __slots__ = ("_outbox", "asked", "last_allowed")

    def __init__(self, outbox: Outbox) -> None:
        """Create it for a connection on which the peer may open streams.

        Args:
            outbox: The output of the connection.
        """
        self._outbox = outbox
        self.asked = False
        """Whether the peer was told anything."""
        self.last_allowed = frames.MAX_WINDOW
        """The last stream that the peer may open."""

    @property
    def refuses(self) -> bool:
        """Whether further streams are refused."""
        return self.last_allowed != frames.MAX_WINDOW

    def ask(self) -> None:
        """Ask the peer to open no more streams. Those in transit are served."""
        if not self.asked:
            self._tell(frames.MAX_WINDOW, ErrorCode.NO_ERROR)
            self._outbox.chunks.append(frames.frame(frames.PING, 0, 0, DRAINING))

    def refuse(self, last: int) -> None:
        """Tell the peer that no stream after ``last`` is served."""
        if not self.refuses:
            self._tell(last, ErrorCode.NO_ERROR)

    def fail(self, last: int, violation: PeerError) -> None:
        """Tell the peer why the connection ends. ``last`` is the last stream that it opened."""
        self._tell(min(last, self.last_allowed), violation.code, violation.message)

    def _tell(self, last: int, code: ErrorCode, message: str = "") -> None:
        self.asked = True
        self.last_allowed = last
        self._outbox.chunks.append(frames.goaway(last, code, message))
