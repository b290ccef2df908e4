"""Flow control: what may be sent when, and what the peer may send (RFC 9113, section 5.2).

``Outbox`` holds a connection's output. What fits the windows goes straight out; the rest waits in
its stream and leaves in order as windows open.
"""

from collections import deque

from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.violations import (
    ErrorCode,
    PeerError,
    StreamError,
)


class Flow:
    """One stream's side of flow control."""

    __slots__ = ("ending", "id", "queue", "receive_window", "send_window")

    def __init__(self, number: int, send_window: int, receive_window: int) -> None:
        self.id = number
        self.send_window = send_window
        """Bytes that the peer lets us send; negative after it took some back."""
        self.receive_window = receive_window
        """Bytes that we let the peer send."""
        self.queue: deque[Payload] | None = None
        """What waits for a window."""
        self.ending: bytes | None = None
        """The frame that ends the stream from our side, while it waits behind the queue."""

    def ended(self) -> None:
        """Take note that the frame that ends the stream is out. For subclasses."""


class Outbox:
    """A connection's output, and the peer's windows."""

    __slots__ = ("_waiting", "chunks", "initial_window", "max_frame", "queued", "window")

    def __init__(self) -> None:
        self.chunks: list[Payload] = []
        """What is to be written, in order."""
        self.window = frames.DEFAULT_WINDOW
        """Bytes that the peer lets us send over all streams."""
        self.initial_window = frames.DEFAULT_WINDOW
        self.max_frame = frames.SMALLEST_MAX_FRAME
        self.queued = 0
        """Bytes that wait for windows, of all streams."""
        self._waiting: dict[Flow, None] = {}

    def send(self, flow: Flow, payload: Payload) -> None:
        """Send a stream's bytes as DATA, now or as windows open."""
        if flow.queue is None:
            flow.queue = deque()
        flow.queue.append(payload)
        self.queued += len(payload)
        self._pump(flow)

    def end(self, flow: Flow, ending: bytes) -> None:
        """Send the frame that ends a stream, after all that waits."""
        if flow.queue:
            flow.ending = ending
        else:
            self.chunks.append(ending)
            flow.ended()

    def drop(self, flow: Flow) -> None:
        """Forget what waits, because the stream is no more."""
        if flow.queue:
            self.queued -= sum(map(len, flow.queue))
            flow.queue = None
        flow.ending = None
        self._waiting.pop(flow, None)

    def opened(self, increment: int) -> None:
        """Take a WINDOW_UPDATE of the connection.

        Raises:
            PeerError: The window is larger than a window may be.
        """
        self.window += increment
        if self.window > frames.MAX_WINDOW:
            raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is too large")
        self._pump_all()

    def stream_opened(self, flow: Flow, increment: int) -> None:
        """Take a stream's WINDOW_UPDATE.

        Raises:
            StreamError: The window is larger than a window may be.
        """
        flow.send_window += increment
        if flow.send_window > frames.MAX_WINDOW:
            raise StreamError(ErrorCode.FLOW_CONTROL_ERROR, "the window is too large")
        if flow.queue:
            self._pump(flow)

    def resize(self, flows: list[Flow], initial_window: int) -> None:
        """Take the peer's SETTINGS_INITIAL_WINDOW_SIZE, which moves every stream's window.

        Raises:
            PeerError: A window is larger than a window may be.
        """
        change = initial_window - self.initial_window
        self.initial_window = initial_window
        for flow in flows:
            flow.send_window += change
            if flow.send_window > frames.MAX_WINDOW:
                raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window is too large")
        self._pump_all()

    def _pump_all(self) -> None:
        for flow in list(self._waiting):
            if self.window <= 0:
                return
            self._pump(flow)

    def _pump(self, flow: Flow) -> None:
        queue = flow.queue
        # A stream that is still blocked goes to the end of the line.
        self._waiting.pop(flow, None)
        while queue:
            piece = queue[0]
            room = min(flow.send_window, self.window, self.max_frame)
            if room <= 0 < len(piece):
                self._waiting[flow] = None
                return
            if len(piece) > room:
                view = memoryview(piece)
                piece, queue[0] = view[:room], view[room:]
            else:
                queue.popleft()
            size = len(piece)
            flow.send_window -= size
            self.window -= size
            self.queued -= size
            self.chunks += (frames.frame_head(frames.DATA, 0, flow.id, size), piece)
        flow.queue = None
        if flow.ending is not None:
            self.chunks.append(flow.ending)
            flow.ending = None
            flow.ended()


class ReceiveWindow:
    """The connection's window for what the peer sends.

    Its bytes are given back when they are used. Those of messages that are not complete are not:
    so they are bounded by the window, and a peer that has filled it has to complete one or give
    one up.
    """

    __slots__ = ("_held", "_size", "_taken", "_top_up")

    def __init__(self, size: int) -> None:
        self._size = size
        self._top_up = size // 2
        self._taken = 0
        self._held = 0

    def take(self, size: int) -> int:
        """Take bytes; return what to give back, 0 for nothing yet.

        Raises:
            PeerError: The peer sent more than it may.
        """
        self._taken = taken = self._taken + size
        if taken < self._top_up:
            return 0
        if taken > self._size:
            raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than allowed")
        return self._due()

    def hold(self, change: int) -> int:
        """Keep bytes, or (negative) let them go; return what to give back, 0 for nothing yet."""
        self._held += change
        return self._due()

    def _due(self) -> int:
        due = self._taken - self._held
        # A window nearly filled by what is held is topped up by whatever can be.
        if due < self._top_up and (self._taken < self._size - frames.SMALLEST_MAX_FRAME or not due):
            return 0
        self._taken -= due
        return due
