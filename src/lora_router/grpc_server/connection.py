"""The server's side of one HTTP/2 connection, without I/O (RFC 9113).

``receive`` takes bytes, and ``output`` returns bytes. Calls receive what arrives on their streams,
and answer through their streams. The rules:

- No input raises an exception out of this module. A violation ends its stream or the connection.
- ``receive`` handles a bounded number of frames. While ``behind``, the owner gives the connection
  further turns with ``proceed``, and not before ``pause`` seconds have passed.
- A failed connection sends GOAWAY, ignores further input, and is closed by its owner.
- Every call ends exactly once: it finishes, or it is told that its stream is gone.
- A stream is removed as soon as both sides have ended it. Frames in transit to a stream that this
  server ended early are ignored. Other frames for closed streams are errors.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from lora_router.grpc_server import frames
from lora_router.grpc_server.blocks import OpenBlock, fragment
from lora_router.grpc_server.bounds import Bounds
from lora_router.grpc_server.budget import CallLater
from lora_router.grpc_server.call_headers import CallHeaders, check_trailers, read_call_headers
from lora_router.grpc_server.control import Control
from lora_router.grpc_server.flow import Outbox, ReceiveWindow
from lora_router.grpc_server.frames import Frame, FrameReader, Payload
from lora_router.grpc_server.headers import BlockReader
from lora_router.grpc_server.limits import Limits
from lora_router.grpc_server.resets import ResetShare
from lora_router.grpc_server.stream import OVER, Call, Stream
from lora_router.grpc_server.violations import ErrorCode, PeerError, StreamError

_REMEMBERED_STREAMS = 256
"""Closed streams that are remembered, to distinguish them from streams that never existed. More
than can have frames in transit at the same time."""
_SHORT = 4096
"""Bytes of a read that is handled in one turn, whatever it contains: its frames are few."""


class _TurnOver(Exception):  # noqa: N818 -- no error: the turn ends early
    """The peer wastes streams faster than it may."""


class Connection:
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
    ) -> None:
        """Create a connection. Its first output is available immediately.

        Args:
            open_call: Opens the call of a new stream.
            now: Returns seconds, monotonic.
            limits: Limits of the peer.
            bounds: What all connections share.
            call_later: Schedules the deadlines of calls.
            wake: Called when there is output that is not the result of ``receive``.
        """
        self._open_call = open_call
        self._limits = limits
        self._bounds = bounds
        self.call_later = call_later
        self.wake = wake
        self.budget = bounds.budget
        self.outbox = Outbox(bounds.budget.count_output)
        self.streams: dict[int, Stream] = {}
        self.control = Control(
            self.outbox,
            self.streams,
            limits,
            now,
            check_known=self._check_known,
            on_drained=self.refuse_new,
        )
        self.greeted = False
        """Whether the peer has sent the HTTP/2 preface and SETTINGS."""
        self.failure: PeerError | None = None
        """The violation by the peer that ended the connection, if there was one."""
        self.behind = False
        """Whether frames have arrived that are not handled yet."""
        self.pause = 0.0
        """Seconds for which these frames have to wait."""
        self._reader = FrameReader()
        self._input: Iterator[Frame] = iter(())
        self._more: deque[bytes] = deque()
        self._blocks = BlockReader(read_call_headers, 4 * limits.header_list_bytes)
        self._window = ReceiveWindow(max(limits.connection_window, frames.DEFAULT_WINDOW))
        self._stream_top_up = limits.stream_window // 2
        self._open_block: OpenBlock | None = None
        self._plain = False
        """Whether any frame type may arrive: after the first SETTINGS, outside a header block."""
        self._last = 0
        self._last_seen = 0
        """The last stream of earlier turns, whose peer can have seen an answer."""
        self._last_allowed = frames.MAX_WINDOW
        self._answered_early: deque[int] = deque(maxlen=_REMEMBERED_STREAMS)
        self._closed: deque[int] = deque(maxlen=_REMEMBERED_STREAMS)
        self._wasted = ResetShare(bounds.resets)
        self._kinds = {**self.control.kinds, frames.RST_STREAM: self._on_rst_stream}
        self.control.greet()

    # Called by the owner

    def receive(self, data: bytes, turn: Iterable[Frame] | None = None) -> None:
        """Handle bytes from the peer, as many as one turn allows; ``turn``: earlier frames."""
        if turn is None:
            if self.behind or self.failure is not None or len(data) > _SHORT:
                self._receive_much(data)
                return
            self._input = turn = self._reader.feed(data)
        self._last_seen = self._last
        try:
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
            if self.outbox.queued:
                self._bounds.check_queue(self.outbox.queued, self._limits.queued_bytes)
        except _TurnOver:
            self.behind = True
        except PeerError as violation:
            self.fail(violation)

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
            self.failure, self.behind = violation, False
            self.outbox.chunks.append(frames.goaway(self._last, violation.code, violation.message))
            self._end_streams()

    def lost(self) -> None:
        """Handle the loss of the connection: end all streams, and free its bytes."""
        self._end_streams()
        self.behind, self._input = False, iter(())
        self._more.clear()
        self.outbox.chunks.clear()

    def _end_streams(self) -> None:
        while self.streams:
            _, stream = self.streams.popitem()
            self._bounds.streams -= 1
            self._drop(stream)

    def refuse_new(self) -> None:
        """Refuse new streams from now on."""
        if self._last_allowed == frames.MAX_WINDOW:
            self._last_allowed = self._last
            self.outbox.chunks.append(frames.goaway(self._last, ErrorCode.NO_ERROR))

    def let_go(self) -> int:
        """End all open calls with a status; return their number."""
        ended = 0
        for stream in tuple(self.streams.values()):
            if stream.call is not OVER:
                stream.call.let_go()
                ended += 1
        return ended

    @property
    def done(self) -> bool:
        """Whether the connection can be closed: no stream is open, and new ones are refused."""
        return not self.streams and self._last_allowed != frames.MAX_WINDOW

    # Called by streams

    def closed(self, stream: Stream) -> None:
        """Remove a stream that both sides have ended, or that this server ended early."""
        if self.streams.pop(stream.id, None) is not None:
            self._bounds.streams -= 1
            (self._closed if stream.remote_ended else self._answered_early).append(stream.id)

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
            if payload:
                stream.call.data(payload)
            stream.call.end()
            return
        if payload:
            stream.call.data(payload)
        else:
            self.control.count_idle()
        if left < self._stream_top_up and number in self.streams:
            self.refill(stream)

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
        headers = self._blocks.read(block)
        bounds = self._bounds
        if number > self._last_allowed or len(self.streams) >= self._limits.max_streams:
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

    # Ending streams

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
            raise _TurnOver

    def _drop(self, stream: Stream) -> None:
        self.outbox.drop(stream)
        call, stream.call = stream.call, OVER
        call.gone()
