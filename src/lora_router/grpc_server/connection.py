"""The server's side of one HTTP/2 connection, without I/O (RFC 9113).

``receive`` takes bytes, and ``output`` returns bytes. Calls receive what arrives on their streams,
and answer through their streams. The rules:

- No input raises an exception out of this module. A violation ends its stream or the connection.
- ``receive`` handles a bounded number of frames, and no further one when the turn has taken its
  time (``Limits.turn_seconds``). A frame with many messages is handled in parts. While ``behind``,
  the owner gives the connection further turns with ``proceed``, and not before ``pause`` seconds
  have passed.
- A failed connection sends GOAWAY, ignores further input, and is closed by its owner.
- ``stream_ends`` has the rules about the ends of streams.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice

from lora_router.grpc_server import frames
from lora_router.grpc_server.blocks import OpenBlock, fragment
from lora_router.grpc_server.bounds import Bounds
from lora_router.grpc_server.budget import CallLater
from lora_router.grpc_server.call_headers import CallHeaders, check_trailers, read_call_headers
from lora_router.grpc_server.control import Control
from lora_router.grpc_server.flow import ReceiveWindow
from lora_router.grpc_server.frames import Frame, FrameReader, Payload
from lora_router.grpc_server.headers import BlockReader, ListTooLongError
from lora_router.grpc_server.limits import Limits
from lora_router.grpc_server.stream import OVER, Call, Stream
from lora_router.grpc_server.stream_ends import StreamEnds, TurnOver
from lora_router.grpc_server.turns import Turns
from lora_router.grpc_server.violations import ErrorCode, PeerError, StreamError

_UNTIMED = 2
"""Frames after which the clock is looked at. Most reads have no more, and pay nothing for it."""
_SHORT = 4096
"""Bytes of a read that is handled in one turn, whatever it contains: its frames are few."""


class Connection(StreamEnds):
    """One connection. See the head of this file for its rules."""

    def __init__(
        self,
        open_call: Callable[[Stream, CallHeaders], Call],
        now: Callable[[], float],
        *,
        limits: Limits,
        bounds: Bounds,
        call_later: CallLater,
        wake: Callable[[], None],
        turns: Turns,
    ) -> None:
        """Create a connection. Its first output is available immediately.

        Args:
            open_call: Opens the call of a new stream.
            now: Returns seconds, monotonic.
            limits: Limits of the peer.
            bounds: What all connections share.
            call_later: Schedules the deadlines of calls.
            wake: Called when there is output that is not the result of ``receive``.
            turns: Gives turns to what takes long after the connection was lost.
        """
        super().__init__(bounds, turns)
        self._open_call = open_call
        self._now = now
        self._limits = limits
        self.call_later = call_later
        self.wake = wake
        self.budget = bounds.budget
        self.control = Control(
            self.outbox,
            self.streams,
            limits,
            now,
            check_known=self._check_known,
            on_drained=self._on_drained,
            on_room=self._pump,
        )
        self.greeted = False
        """Whether the peer has sent the HTTP/2 preface and SETTINGS."""
        self.failure: PeerError | None = None
        """The violation by the peer that ended the connection, if there was one."""
        self.behind = False
        """Whether frames have arrived that are not handled yet."""
        self._turn_seconds = limits.turn_seconds
        self._turn_ends = 0.0
        """When the turn has taken its time; 0: nobody has looked at the clock yet."""
        self._unfinished: Callable[[], None] | None = None
        """Handles what is left of the last frame. No other frame is handled before it."""
        self._reader = FrameReader()
        self._input: Iterator[Frame] = iter(())
        self._more: deque[bytes] = deque()
        self._blocks = BlockReader(
            read_call_headers, 4 * limits.header_list_bytes, limits.header_list_bytes
        )
        self._window = ReceiveWindow(max(limits.connection_window, frames.DEFAULT_WINDOW))
        self._stream_top_up = limits.stream_window // 2
        self._open_block: OpenBlock | None = None
        self._plain = False
        """Whether any frame type may arrive: after the first SETTINGS, outside a header block."""
        self._kinds = {**self.control.kinds, frames.RST_STREAM: self._on_rst_stream}
        self.control.greet()

    # Called by the owner

    # Every frame passes here, so that parts of it are no calls.
    def receive(  # noqa: C901, PLR0912
        self, data: bytes, turn: Iterable[Frame] | None = None
    ) -> None:
        """Handle bytes from the peer, as many as one turn allows; ``turn``: earlier frames."""
        if turn is None:
            if self.behind or self.failure is not None or len(data) > _SHORT:
                self._receive_much(data)
                return
            self._input = turn = self._reader.feed(data)
            self._turn_ends = 0.0
        else:
            self._turn_ends = self._now() + self._turn_seconds
        self._last_seen = self._last
        handled = 0
        try:
            try:
                if self._unfinished is not None:
                    unfinished, self._unfinished = self._unfinished, None
                    unfinished()
                for kind, flags, number, payload in turn:
                    try:
                        if not self._plain:
                            self._on_special(kind, flags, number, payload)
                        elif kind == frames.DATA:
                            self._on_data(flags, number, payload)
                        elif kind == frames.HEADERS:
                            self._on_headers(flags, number, payload)
                        else:
                            on_kind = self._kinds.get(kind, self.control.on_unknown)
                            on_kind(flags, number, payload)
                    except StreamError as violation:
                        self._reset(number, violation)
                    handled += 1
                    if handled > _UNTIMED and self._is_late():
                        raise TurnOver
            except TurnOver:
                self.behind = True
            if self.outbox.queued:
                self._bounds.check_queue(self.outbox.queued, self._limits.queued_bytes)
        except PeerError as violation:
            self.fail(violation)

    def _is_late(self) -> bool:
        """Return whether the turn has taken its time, from its start or the first call."""
        now = self._now()
        if not self._turn_ends:
            self._turn_ends = now + self._turn_seconds
        return now > self._turn_ends

    def proceed(self) -> None:
        """Handle frames that have arrived, as many as one turn allows."""
        self.behind = False
        self.receive(b"", islice(self._input, self._limits.frames_per_turn))
        if self.behind or self.failure is not None:
            return
        try:
            following = next(self._input, None)
            if following is not None:
                self._input = chain((following,), self._input)
            elif self._more:
                self._input = self._reader.feed(self._more.popleft())
            else:
                return
            self.behind = True
        except PeerError as violation:
            self.fail(violation)

    def _receive_much(self, data: bytes) -> None:
        if self.behind:
            self._more.append(data)
        elif self.failure is None:
            self._input = self._reader.feed(data)
            self.proceed()

    def output(self) -> bytes:
        """Remove and return the bytes that are to be written."""
        data = b"".join(self.outbox.chunks)
        self.outbox.chunks.clear()
        return data

    def fail(self, violation: PeerError) -> None:
        """End the connection and all its streams."""
        if self.failure is None:
            self.failure, self.behind, self._unfinished = violation, False, None
            self._going_away.fail(self._last, violation)
            self._end_streams()

    def lost(self) -> None:
        """Handle the loss of the connection: end all streams, and free its bytes."""
        self._end_streams()
        self.behind, self._input, self._unfinished = False, iter(()), None
        self._more.clear()
        self.outbox.chunks.clear()

    # Called by streams

    def refill(self, stream: Stream) -> None:
        """Let the peer send more on a stream, as far as the budget lets it in."""
        if stream.receive_window >= self._stream_top_up or stream.queue:
            return  # Who does not take what is sent back sends no more.
        limits, account = self._limits, stream.account
        window = limits.stream_window
        if account is not None:
            if not account.lets_in():
                return
            if account.reserved:
                window = max(window, min(limits.body_window, window + account.lacks))
        due = window - stream.receive_window
        stream.receive_window = window
        self.outbox.chunks.append(frames.window_update(stream.id, due))

    def _on_special(self, kind: int, flags: int, number: int, payload: Payload) -> None:
        block = self._open_block
        if block is None:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, "first frame is not SETTINGS")
            self.control.on_settings(flags, number, payload)
            self._plain = self.greeted = True
            return
        complete = block.add(kind, flags, number, payload)
        if complete is not None:
            self._open_block = None
            self._plain = True
            self._on_block(block.flags, number, complete)

    # Frames of streams

    def _on_data(self, flags: int, number: int, payload: Payload) -> None:
        size = len(payload)
        window = self._window
        window.taken += size
        if window.taken >= window.top_up and (due := window.due()):
            self.outbox.chunks.append(frames.window_update(0, due))
        stream = self.streams.get(number)
        if stream is None or stream.remote_ended:
            self._on_closed(number)
            return
        if flags & frames.PADDED:
            payload = frames.unpadded(flags, payload)
        ends = flags & frames.END_STREAM
        stream.receive_window = left = stream.receive_window - size
        if left < 0:
            raise StreamError(ErrorCode.FLOW_CONTROL_ERROR, "DATA exceeds the flow-control window")
        if stream.content_left is not None:
            stream.count_content(len(payload), ends=bool(ends))
        if ends:
            stream.remote_ended = True
            if payload and (rest := stream.call.data(payload)) is not None:
                self._take_rest(stream, rest, True)
                return
            stream.call.end()
            return
        if not payload:
            self.control.count_idle()
        elif (rest := stream.call.data(payload)) is not None:
            self._take_rest(stream, rest, False)
            return
        if left < self._stream_top_up and number in self.streams:
            self.refill(stream)

    def _take_rest(self, stream: Stream, rest: Payload | None, ends: bool) -> None:
        """Handle the rest of a DATA frame with many messages, as far as the turn allows."""
        while rest is not None:
            if self._is_late():
                self._unfinished = partial(self._take_rest, stream, rest, ends)
                raise TurnOver
            rest = stream.call.data(rest)
        if ends:
            stream.call.end()
        elif stream.receive_window < self._stream_top_up and stream.id in self.streams:
            self.refill(stream)

    def _pump(self) -> None:
        """Send what waits on streams whose windows have opened, as far as the turn allows."""
        outbox = self.outbox
        while outbox.lags:
            if self._is_late():
                self._unfinished = self._pump
                raise TurnOver
            outbox.pump()

    def _on_headers(self, flags: int, number: int, payload: Payload) -> None:
        if not number & 1:
            raise PeerError(
                ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream that a client cannot open"
            )
        if flags & (frames.PADDED | frames.WITH_PRIORITY):
            payload = fragment(flags, number, payload)
        if not flags & frames.END_HEADERS:
            self._plain = False
            self._open_block = OpenBlock(self._limits, number, flags, payload)
        else:
            self._on_block(flags, number, bytes(payload))

    def _on_block(self, flags: int, number: int, block: bytes) -> None:
        ends = bool(flags & frames.END_STREAM)
        if number <= self._last:
            self._on_trailers(number, block, ends=ends)
            return
        self._last = number
        try:
            headers = self._blocks.read(block)
        except ListTooLongError as error:
            # Refused as any other list that is too long (``methods``).
            headers = CallHeaders(path="", list_bytes=error.list_bytes)
        bounds = self._bounds
        if number > self._going_away.last_allowed or len(self.streams) >= self._limits.max_streams:
            raise StreamError(ErrorCode.REFUSED_STREAM, "too many streams")
        if bounds.streams >= bounds.max_streams:
            self._refuse(number)
            return
        bounds.streams += 1
        stream = self.streams[number] = Stream(
            self, number, self.outbox.initial_window, self._limits.stream_window
        )
        stream.remote_ended = ends
        if headers.content_length is not None:
            stream.content_left = headers.content_length
            stream.count_content(0, ends=ends)
        call = self._open_call(stream, headers)
        if call is not OVER:
            stream.call = call
            if ends:
                call.end()

    def _on_trailers(self, number: int, block: bytes, *, ends: bool) -> None:
        headers = self._blocks.decode(block)
        stream = self.streams.get(number)
        if stream is None:
            if number in self._closed:
                raise PeerError(ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream")
            if number not in self._answered_early:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, "stream numbers are not increasing")
            self.control.count_idle()
            return
        if stream.remote_ended:
            raise StreamError(ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM")
        if not ends:
            raise StreamError(ErrorCode.PROTOCOL_ERROR, "trailers without END_STREAM")
        check_trailers(headers)
        if stream.content_left is not None:
            stream.count_content(0, ends=ends)
        stream.remote_ended = True
        stream.call.end()
