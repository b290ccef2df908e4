"""Flow control in both directions (RFC 9113, section 5.2).

``Outbox`` holds the output of a connection. Bytes that fit the peer's windows are written at once.
Other bytes wait in the queue of their stream and leave in order when the windows open.

A peer may have many streams whose bytes wait. One frame of it costs no look at all of them: those
that wait for a window of their own are not looked at when the connection's opens, and of the others
some are served at once (``pump``).
"""

from collections import OrderedDict, deque
from collections.abc import Callable

from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.violations import (
    ErrorCode,
    PeerError,
    StreamError,
)

_JOINED = 1024
"""Bytes up to which messages that wait are joined. Thousands of short ones, each with its frame,
would else leave in one go when the windows open."""
_AT_ONCE = 64
"""Streams that ``pump`` serves: about 0.2 ms of work."""


class Flow:
    """The flow-control state of one stream."""

    __slots__ = ("ending", "id", "queue", "receive_window", "send_window")

    def __init__(self, number: int, send_window: int, receive_window: int) -> None:
        self.id = number
        self.send_window = send_window
        """Bytes that this server may send; negative after the peer has reduced its window."""
        self.receive_window = receive_window
        """Bytes that the peer may send."""
        self.queue: deque[Payload | bytearray] | None = None
        """Bytes that wait for a window to open."""
        self.ending: bytes | None = None
        """The frame that ends this server's side, while it waits behind the queue."""

    def ended(self) -> None:
        """Handle that the frame that ends the stream is in the output. For subclasses."""

    def drained(self) -> None:
        """Handle that bytes have waited and have left. For subclasses."""


class Outbox:
    """The output of a connection, and the windows of the peer."""

    __slots__ = (
        "_count",
        "_counted",
        "_waiting",
        "chunks",
        "initial_window",
        "max_frame",
        "queued",
        "window",
    )

    def __init__(self, count: Callable[[int], None] | None = None) -> None:
        """Create an empty output.

        Args:
            count: Called with each change of ``queued``.
        """
        self.chunks: list[Payload | bytearray] = []
        """Bytes to write, in order."""
        self.window = frames.DEFAULT_WINDOW
        """Bytes that this server may send over all streams."""
        self.initial_window = frames.DEFAULT_WINDOW
        self.max_frame = frames.SMALLEST_MAX_FRAME
        self.queued = 0
        """Bytes of all streams that wait for windows to open."""
        self._waiting: OrderedDict[Flow, None] = OrderedDict()
        """Streams that wait for the connection's window, and not for their own."""
        self._count = count
        self._counted = 0

    def send(self, flow: Flow, payload: Payload) -> None:
        """Send bytes of a stream as DATA, now or when the windows open."""
        queue = flow.queue
        if queue is None:
            flow.queue = queue = deque()
        if len(payload) > _JOINED:
            queue.append(payload)
        elif queue and type(queue[-1]) is bytearray and len(queue[-1]) < frames.SMALLEST_MAX_FRAME:
            queue[-1] += payload
        else:
            queue.append(bytearray(payload))
        self.queued += len(payload)
        self._pump(flow)
        self._report()

    def send_parts(self, flow: Flow, start: bytes, rest: memoryview) -> None:
        """Send bytes of a stream as DATA, of which the rest is not copied."""
        size = len(start) + len(rest)
        if flow.queue or size > flow.send_window or size > self.window:
            self.send(flow, start)
            self.send(flow, rest)
            return
        flow.send_window -= size
        self.window -= size
        most, at = self.max_frame, self.max_frame - len(start)
        head = frames.frame_head(frames.DATA, 0, flow.id, min(size, most))
        self.chunks += (head, start, rest[:at])
        while at < len(rest):
            part = rest[at : at + most]
            self.chunks += (frames.frame_head(frames.DATA, 0, flow.id, len(part)), part)
            at += most

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
        self._report()

    def opened(self, increment: int) -> None:
        """Apply a WINDOW_UPDATE of the connection. While ``lags``, ``pump`` is due.

        Raises:
            PeerError: The window exceeds 2^31-1.
        """
        self.window += increment
        if self.window > frames.MAX_WINDOW:
            raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "the connection window exceeds 2^31-1")
        self.pump()

    @property
    def lags(self) -> bool:
        """Whether bytes wait although the windows are open."""
        return self.window > 0 and bool(self._waiting)

    def pump(self) -> None:
        """Send what waits on some streams, those that have waited longest first."""
        for _ in range(_AT_ONCE):
            if not self.lags:
                break
            self._pump_waiting(next(iter(self._waiting)))
        self._report()

    def stream_opened(self, flow: Flow, increment: int) -> None:
        """Apply a WINDOW_UPDATE of a stream.

        Raises:
            StreamError: The window exceeds 2^31-1.
        """
        flow.send_window += increment
        if flow.send_window > frames.MAX_WINDOW:
            raise StreamError(ErrorCode.FLOW_CONTROL_ERROR, "the stream window exceeds 2^31-1")
        if flow.queue:
            self._pump_waiting(flow)
            self._report()

    def resize(self, flows: list[Flow], initial_window: int) -> None:
        """Apply the peer's SETTINGS_INITIAL_WINDOW_SIZE, which changes the window of every stream.

        While ``lags``, ``pump`` is due.

        Raises:
            PeerError: A window exceeds 2^31-1.
        """
        change = initial_window - self.initial_window
        self.initial_window = initial_window
        for flow in flows:
            flow.send_window += change
            if flow.send_window > frames.MAX_WINDOW:
                raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "a stream window exceeds 2^31-1")
            if flow.queue and flow.send_window > 0:
                self._waiting[flow] = None
        self.pump()

    def _pump_waiting(self, flow: Flow) -> None:
        self._pump(flow)
        if flow.queue is None:
            flow.drained()

    def _report(self) -> None:
        change = self.queued - self._counted
        if change and self._count is not None:
            self._counted = self.queued
            self._count(change)

    def _pump(self, flow: Flow) -> None:
        queue = flow.queue
        # A stream that is still blocked goes to the end of the queue.
        self._waiting.pop(flow, None)
        while queue:
            piece = queue[0]
            room = min(flow.send_window, self.window, self.max_frame)
            if room <= 0 < len(piece):
                if flow.send_window > 0:
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

    All bytes return to the window as soon as they are read, whatever becomes of them. What a stream
    may hold is bounded by its own window and by the budget of the process. So the streams that wait
    for room cannot stop the others.

    The owner adds received bytes to ``taken``, and calls ``due`` when ``taken`` has reached
    ``top_up``. So most frames need no call.
    """

    __slots__ = ("_size", "taken", "top_up")

    def __init__(self, size: int) -> None:
        self._size = size
        self.top_up = size // 4
        """Bytes at which ``due`` is to be called. The peer then still has most of the window."""
        self.taken = 0
        """Bytes that have been received and have not returned to the window."""

    def due(self) -> int:
        """Return the increment of the WINDOW_UPDATE to send.

        Raises:
            PeerError: The peer exceeded the window.
        """
        taken = self.taken
        if taken > self._size:
            raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "DATA exceeds the flow-control window")
        self.taken = 0
        return taken
