"""Flow control in both directions (RFC 9113, section 5.2).

``Outbox`` holds the output of a connection. Bytes that fit the peer's windows are written at once.
Other bytes wait in the queue of their stream and leave in order when the windows open.
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
    """The flow-control state of one stream."""

    __slots__ = ("ending", "id", "queue", "receive_window", "send_window")

    def __init__(self, number: int, send_window: int, receive_window: int) -> None:
        self.id = number
        self.send_window = send_window
        """Bytes that this server may send; negative after the peer has reduced its window."""
        self.receive_window = receive_window
        """Bytes that the peer may send."""
        self.queue: deque[Payload] | None = None
        """Bytes that wait for a window to open."""
        self.ending: bytes | None = None
        """The frame that ends this server's side, while it waits behind the queue."""

    def ended(self) -> None:
        """Handle that the frame that ends the stream is in the output. For subclasses."""


class Outbox:
    """The output of a connection, and the windows of the peer."""

    __slots__ = ("_waiting", "chunks", "initial_window", "max_frame", "queued", "window")

    def __init__(self) -> None:
        self.chunks: list[Payload] = []
        """Bytes to write, in order."""
        self.window = frames.DEFAULT_WINDOW
        """Bytes that this server may send over all streams."""
        self.initial_window = frames.DEFAULT_WINDOW
        self.max_frame = frames.SMALLEST_MAX_FRAME
        self.queued = 0
        """Bytes of all streams that wait for windows to open."""
        self._waiting: dict[Flow, None] = {}

    def send(self, flow: Flow, payload: Payload) -> None:
        """Send bytes of a stream as DATA, now or when the windows open."""
        if flow.queue is None:
            flow.queue = deque()
        flow.queue.append(payload)
        self.queued += len(payload)
        self._pump(flow)

    def end(self, flow: Flow, ending: bytes) -> None:
        """Send the frame that ends a stream, after all bytes that wait."""
        if flow.queue:
            flow.ending = ending
        else:
            self.chunks.append(ending)
            flow.ended()

    def drop(self, flow: Flow) -> None:
        """Discard the bytes that wait, because the stream no longer exists."""
        if flow.queue:
            self.queued -= sum(map(len, flow.queue))
            flow.queue = None
        flow.ending = None
        self._waiting.pop(flow, None)

    def opened(self, increment: int) -> None:
        """Apply a WINDOW_UPDATE of the connection.

        Raises:
            PeerError: The window exceeds 2^31-1.
        """
        self.window += increment
        if self.window > frames.MAX_WINDOW:
            raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "the connection window exceeds 2^31-1")
        self._pump_all()

    def stream_opened(self, flow: Flow, increment: int) -> None:
        """Apply a WINDOW_UPDATE of a stream.

        Raises:
            StreamError: The window exceeds 2^31-1.
        """
        flow.send_window += increment
        if flow.send_window > frames.MAX_WINDOW:
            raise StreamError(ErrorCode.FLOW_CONTROL_ERROR, "the stream window exceeds 2^31-1")
        if flow.queue:
            self._pump(flow)

    def resize(self, flows: list[Flow], initial_window: int) -> None:
        """Apply the peer's SETTINGS_INITIAL_WINDOW_SIZE, which changes the window of every stream.

        Raises:
            PeerError: A window exceeds 2^31-1.
        """
        change = initial_window - self.initial_window
        self.initial_window = initial_window
        for flow in flows:
            flow.send_window += change
            if flow.send_window > frames.MAX_WINDOW:
                raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "a stream window exceeds 2^31-1")
        self._pump_all()

    def _pump_all(self) -> None:
        for flow in list(self._waiting):
            if self.window <= 0:
                return
            self._pump(flow)

    def _pump(self, flow: Flow) -> None:
        queue = flow.queue
        # A stream that is still blocked goes to the end of the queue.
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
    """The window of the connection for bytes that the peer sends.

    Bytes return to the window when they are used. Bytes of incomplete messages do not return, so
    the window bounds them. A peer that has filled the window must complete a message or reset a
    stream.

    The owner adds received bytes to ``taken``, and calls ``due`` when ``taken`` has reached
    ``top_up``. So most frames need no call.
    """

    __slots__ = ("_held", "_size", "taken", "top_up")

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = 0
        self.top_up = size // 2
        """Bytes at which ``due`` may have something to return."""
        self.taken = 0
        """Bytes that have been received and have not returned to the window."""

    def due(self) -> int:
        """Return the increment of the WINDOW_UPDATE to send, 0 for none.

        Raises:
            PeerError: The peer exceeded the window.
        """
        if self.taken > self._size:
            raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "DATA exceeds the flow-control window")
        return self._return_bytes()

    def hold(self, change: int) -> int:
        """Hold bytes or (negative) release them; return the increment to send, 0 for none."""
        self._held += change
        return self._return_bytes()

    def _return_bytes(self) -> int:
        due = self.taken - self._held
        # A window that is almost filled by held bytes is topped up with any amount.
        if due < self.top_up and (self.taken < self._size - frames.SMALLEST_MAX_FRAME or not due):
            return 0
        self.taken -= due
        return due
