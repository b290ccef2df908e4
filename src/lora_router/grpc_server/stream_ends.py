"""The streams of one HTTP/2 connection, and how they end.

The rules:

- Every call ends exactly once: it finishes, or it is told that its stream is gone.
- A stream is removed as soon as both sides have ended it. Frames in transit to a stream that this
  server ended early are ignored. Other frames for closed streams are errors.
- A peer that wastes streams faster than it may is read more slowly (``resets``).
- A connection may have many streams. When it is lost, they are removed at once, and their calls are
  told in turns.
"""

from collections import deque
from collections.abc import Callable

from lora_router.grpc_server import frames
from lora_router.grpc_server.bounds import Bounds
from lora_router.grpc_server.flow import Outbox
from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.going_away import GoingAway
from lora_router.grpc_server.resets import ResetShare
from lora_router.grpc_server.stream import OVER, Stream
from lora_router.grpc_server.turns import Turns
from lora_router.grpc_server.violations import ErrorCode, PeerError, StreamError
from lora_router.steps import Steps

_REMEMBERED_STREAMS = 256
"""Closed streams that are remembered, to distinguish them from streams that never existed. More
than can have frames in transit at the same time."""


class TurnOver(Exception):  # noqa: N818 -- no error: the turn ends early
    """The turn took its time, or the peer wastes streams faster than it may."""


_AT_ONCE = 32
"""Calls that are ended in one go. Each releases what it holds, which takes about 20 µs."""


class _Ending:
    """Calls that are told that their streams are gone, in turns."""

    __slots__ = ("_drop", "_streams", "_turns")

    def __init__(
        self, streams: deque[Stream], drop: Callable[[Stream], None], turns: Turns
    ) -> None:
        self._streams = streams
        self._drop = drop
        self._turns = turns

    def take_turn(self) -> None:
        """Tell some of them, and join again if more are left."""
        streams = self._streams
        try:
            for _ in range(min(_AT_ONCE, len(streams))):
                self._drop(streams.popleft())
        finally:
            if streams:
                self._turns.join(self)


class StreamEnds:
    """The open streams of a connection. See the head of this file for the rules."""

    def __init__(self, bounds: Bounds, turns: Turns) -> None:
        """Create a connection without streams, whose output is empty.

        Args:
            bounds: What all connections share.
            turns: Gives turns to what takes long.
        """
        self._bounds = bounds
        self._turns = turns
        self.outbox = Outbox(bounds.budget.count_output)
        self.streams: dict[int, Stream] = {}
        self.pause = 0.0
        """Seconds for which frames that are not handled have to wait."""
        self._last = 0
        """The last stream that the peer opened."""
        self._last_seen = 0
        """The last stream of earlier turns, whose peer can have seen an answer."""
        self._going_away = GoingAway(self.outbox)
        self._answered_early: deque[int] = deque(maxlen=_REMEMBERED_STREAMS)
        self._closed: deque[int] = deque(maxlen=_REMEMBERED_STREAMS)
        self._wasted = ResetShare(bounds.resets)

    # Called by the owner

    def drain(self) -> None:
        """Ask the peer to open no more streams. Once it has read that, new ones are refused."""
        self._going_away.ask()

    def refuse_new(self) -> None:
        """Refuse new streams from now on."""
        self._going_away.refuse(self._last)

    def let_go(self) -> Steps[int]:
        """End all open calls with a status, in steps; return their number."""
        ended = 0
        for number, stream in enumerate(tuple(self.streams.values()), 1):
            if stream.call is not OVER:
                stream.call.let_go()
                ended += 1
            if not number % _AT_ONCE:
                yield
        return ended

    @property
    def done(self) -> bool:
        """Whether the connection can be closed: no stream is open, and new ones are refused."""
        return not self.streams and self._going_away.refuses

    # Called by streams

    def closed(self, stream: Stream) -> None:
        """Remove a stream that both sides have ended, or that this server ended early."""
        if self.streams.pop(stream.id, None) is not None:
            self._bounds.streams -= 1
            (self._closed if stream.remote_ended else self._answered_early).append(stream.id)

    # Frames

    def _on_rst_stream(self, _flags: int, number: int, payload: Payload) -> None:
        if len(payload) != frames.number.size:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has a wrong length")
        stream = self.streams.pop(number, None)
        if stream is None:
            self._check_known(number)
            return
        self._bounds.streams -= 1
        self._closed.append(number)
        # Whoever resets a stream in the same breath never waited for its answer.
        wasted = not stream.answered or number > self._last_seen
        self._drop(stream)
        if wasted:
            self._waste()

    def _on_closed(self, number: int) -> None:
        """Handle DATA for a stream that accepts none."""
        if number in self._answered_early:
            return
        self._check_known(number)
        raise StreamError(ErrorCode.STREAM_CLOSED, "DATA on a closed stream")

    def _check_known(self, number: int) -> None:
        """Check that a stream existed. Envoy resets each stream after its end.

        Raises:
            PeerError: The stream was never opened.
        """
        if not number & 1 or number > self._last:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "frame for a stream that was never opened")

    def _on_drained(self) -> None:
        """Handle that the peer has read that it should open no more streams."""
        if self._going_away.asked:
            self.refuse_new()

    # Ending streams

    def _end_streams(self) -> None:
        streams = deque(self.streams.values())
        self.streams.clear()
        self._bounds.streams -= len(streams)
        _Ending(streams, self._drop, self._turns).take_turn()

    def _reset(self, number: int, violation: StreamError) -> None:
        self.outbox.chunks.append(frames.rst_stream(number, violation.code))
        stream = self.streams.pop(number, None)
        if stream is not None:
            self._bounds.streams -= 1
            self._drop(stream)
        if number not in self._answered_early:
            self._answered_early.append(number)
        self._waste()

    def _refuse(self, number: int) -> None:
        """Refuse a stream because the process has too many, for which its peer is not to blame."""
        self._bounds.refused_streams += 1
        self.outbox.chunks.append(frames.rst_stream(number, ErrorCode.REFUSED_STREAM))
        self._answered_early.append(number)

    def _waste(self) -> None:
        pause = self._wasted.spend()
        if pause:
            self.pause = pause
            raise TurnOver

    def _drop(self, stream: Stream) -> None:
        self.outbox.drop(stream)
        call, stream.call = stream.call, OVER
        call.gone()
