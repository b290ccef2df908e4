"""The server's side of one HTTP/2 connection, without I/O (RFC 9113).

Bytes in by ``receive``, bytes out by ``output``. The streams' calls are told what arrives for them
and answer through their streams. The rules:

- Nothing that a peer sends raises out of here. A violation ends its stream or the connection.
- A connection that has failed says GOAWAY, takes nothing more, and is closed by its owner.
- Every call is told its end exactly once: it finishes, or it learns that its stream is gone.
- A stream is forgotten as soon as both sides have ended it. Frames that were on the way to a stream
  that we ended early are ignored; other frames for closed streams are errors.
"""

from collections import deque
from collections.abc import Callable

from lora_router.grpc_server import frames
from lora_router.grpc_server.blocks import OpenBlock, fragment
from lora_router.grpc_server.call_headers import CallHeaders, check_trailers, read_call_headers
from lora_router.grpc_server.control import Control
from lora_router.grpc_server.flow import Outbox, ReceiveWindow
from lora_router.grpc_server.frames import FrameReader, Payload
from lora_router.grpc_server.headers import BlockReader
from lora_router.grpc_server.limits import Allowance, Limits
from lora_router.grpc_server.stream import OVER, Call, CallLater, Stream
from lora_router.grpc_server.violations import ErrorCode, PeerError, StreamError

_REMEMBERED_STREAMS = 256
"""Closed streams that are told from those that never were: more than are on the way at a time."""


class Connection:
    """One connection. See the head of this file for its rules."""

    def __init__(
        self,
        open_call: Callable[[Stream, CallHeaders], Call],
        now: Callable[[], float],
        *,
        limits: Limits,
        call_later: CallLater,
        wake: Callable[[], None],
    ) -> None:
        """Begin; the first output is there at once.

        Args:
            open_call: Makes the call of a new stream.
            now: Seconds, monotonic.
            limits: What the peer may do.
            call_later: For calls' deadlines.
            wake: Called when there is output that no ``receive`` brought about.
        """
        self._open_call = open_call
        self._limits = limits
        self.call_later = call_later
        self.wake = wake
        self.outbox = Outbox()
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
        """Whether the peer has said that it speaks HTTP/2, by preface and SETTINGS."""
        self.failure: PeerError | None = None
        """Why the connection ended, if the peer is to blame."""
        self._reader = FrameReader()
        self._blocks = BlockReader(read_call_headers, 4 * limits.header_list_bytes)
        self._window = ReceiveWindow(limits.held_bytes)
        self._stream_top_up = limits.stream_window // 2
        self._open_block: OpenBlock | None = None
        self._plain = False
        """Whether any frame may come: after the first SETTINGS, outside a block of headers."""
        self._last = 0
        self._last_allowed = frames.MAX_WINDOW
        self._answered_early: deque[int] = deque(maxlen=_REMEMBERED_STREAMS)
        self._closed: deque[int] = deque(maxlen=_REMEMBERED_STREAMS)
        self._resets = Allowance(limits.resets, now, "streams for nothing")
        self._kinds = {**self.control.kinds, frames.RST_STREAM: self._on_rst_stream}
        self.control.greet()

    # What the owner does

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer."""
        if self.failure is not None:
            return
        try:
            for kind, flags, number, payload in self._reader.feed(data):
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
            if self.outbox.queued > self._limits.queued_bytes:
                raise PeerError(
                    ErrorCode.ENHANCE_YOUR_CALM, "answers pile up, the windows stay shut"
                )
        except PeerError as violation:
            self.fail(violation)

    def output(self) -> bytes:
        """Take what is to be written."""
        data = b"".join(self.outbox.chunks)
        self.outbox.chunks.clear()
        return data

    def fail(self, violation: PeerError) -> None:
        """End the connection, and all its streams with it."""
        if self.failure is None:
            self.failure = violation
            self.outbox.chunks.append(frames.goaway(self._last, violation.code, violation.message))
            self.lost()

    def lost(self) -> None:
        """Take note that the connection is no more."""
        while self.streams:
            _, stream = self.streams.popitem()
            self._drop(stream)

    def refuse_new(self) -> None:
        """Take no stream after those that there are."""
        if self._last_allowed == frames.MAX_WINDOW:
            self._last_allowed = self._last
            self.outbox.chunks.append(frames.goaway(self._last, ErrorCode.NO_ERROR))

    def let_go(self) -> int:
        """End all calls by their status; return how many there were."""
        ended = 0
        for stream in tuple(self.streams.values()):
            if stream.call is not OVER:
                stream.call.let_go()
                ended += 1
        return ended

    @property
    def done(self) -> bool:
        """Whether nothing is left to do: all streams have ended, and no new one is taken."""
        return not self.streams and self._last_allowed != frames.MAX_WINDOW

    # What streams do

    def closed(self, stream: Stream) -> None:
        """Forget a stream that has ended from both sides, or that we ended early."""
        if self.streams.pop(stream.id, None) is not None:
            (self._closed if stream.remote_ended else self._answered_early).append(stream.id)

    def hold(self, change: int) -> None:
        """Count bytes that a stream keeps: messages that are not complete."""
        due = self._window.hold(change)
        if due:
            self.outbox.chunks.append(frames.window_update(0, due))

    def _on_special(self, kind: int, flags: int, number: int, payload: Payload) -> None:
        block = self._open_block
        if block is None:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, "no SETTINGS at the start")
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
        due = self._window.take(size)
        if due:
            self.outbox.chunks.append(frames.window_update(0, due))
        stream = self.streams.get(number)
        if stream is None or stream.remote_ended:
            self._on_closed(number)
            return
        if flags & frames.PADDED:
            payload = frames.unpadded(flags, payload)
        ends = flags & frames.END_STREAM
        stream.receive_window -= size
        if stream.receive_window < self._stream_top_up and not ends:
            self._top_up(stream)
        if stream.content_left is not None:
            stream.count_content(len(payload), ends=bool(ends))
        if ends:
            stream.remote_ended = True
            if payload:
                stream.call.data(payload)
            stream.call.end()
        elif payload:
            stream.call.data(payload)
        else:
            self.control.count_idle()

    def _top_up(self, stream: Stream) -> None:
        if stream.receive_window < 0:
            raise StreamError(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than allowed")
        due = self._limits.stream_window - stream.receive_window
        stream.receive_window += due
        self.outbox.chunks.append(frames.window_update(stream.id, due))

    def _on_headers(self, flags: int, number: int, payload: Payload) -> None:
        if not number & 1:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "HEADERS on no client's stream")
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
        if number > self._last_allowed or len(self.streams) >= self._limits.max_streams:
            raise StreamError(ErrorCode.REFUSED_STREAM, "one stream too many")
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
                raise PeerError(ErrorCode.PROTOCOL_ERROR, "a stream's number went back")
            self.control.count_idle()
            return
        if stream.remote_ended:
            raise StreamError(ErrorCode.STREAM_CLOSED, "HEADERS after the end")
        if not ends:
            raise StreamError(ErrorCode.PROTOCOL_ERROR, "trailers that end nothing")
        check_trailers(headers)
        if stream.content_left is not None:
            stream.count_content(0, ends=ends)
        stream.remote_ended = True
        stream.call.end()

    def _on_rst_stream(self, _flags: int, number: int, payload: Payload) -> None:
        if len(payload) != frames.number.size:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of a wrong length")
        stream = self.streams.pop(number, None)
        if stream is None:
            self._check_known(number)
            return
        self._closed.append(number)
        answered = stream.answered
        self._drop(stream)
        if not answered:
            self._resets.spend()

    def _on_closed(self, number: int) -> None:
        """Take DATA for a stream that takes none."""
        if number in self._answered_early:
            return
        self._check_known(number)
        raise StreamError(ErrorCode.STREAM_CLOSED, "DATA on a closed stream")

    def _check_known(self, number: int) -> None:
        """Ignore a frame for a closed stream: Envoy resets each stream after its end."""
        if not number & 1 or number > self._last:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "a frame for an unopened stream")

    # Ending streams

    def _reset(self, number: int, violation: StreamError) -> None:
        self.outbox.chunks.append(frames.rst_stream(number, violation.code))
        stream = self.streams.pop(number, None)
        if stream is not None:
            self._drop(stream)
        if number not in self._answered_early:
            self._answered_early.append(number)
        self._resets.spend()

    def _drop(self, stream: Stream) -> None:
        self.outbox.drop(stream)
        call, stream.call = stream.call, OVER
        call.gone()
