"""The frames that control a connection: SETTINGS, PING, GOAWAY, WINDOW_UPDATE, PRIORITY."""

from collections.abc import Callable, Mapping

from lora_router.grpc_server import frames
from lora_router.grpc_server.blocks import PRIORITY_BYTES, check_priority
from lora_router.grpc_server.flow import Flow, Outbox
from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.going_away import DRAINING
from lora_router.grpc_server.limits import Allowance, Limits
from lora_router.grpc_server.violations import (
    ErrorCode,
    PeerError,
    StreamError,
)

_PING_BYTES = 8
_GOAWAY_BYTES = 8
_ARE_YOU_THERE = b"there? :"


class Control:
    """Handles the control frames of a connection."""

    def __init__(
        self,
        outbox: Outbox,
        flows: Mapping[int, Flow],
        limits: Limits,
        now: Callable[[], float],
        *,
        check_known: Callable[[int], None],
        on_drained: Callable[[], None],
        on_room: Callable[[], None],
    ) -> None:
        """Create the handler of a connection.

        Args:
            outbox: The output of the connection.
            flows: The streams of the connection, whose windows SETTINGS change.
            limits: Limits of the peer.
            now: Returns seconds, monotonic.
            check_known: Raises ``PeerError`` if a stream was never opened.
            on_drained: Called when the peer has acknowledged the first GOAWAY.
            on_room: Called when bytes that wait can be sent.
        """
        self._outbox = outbox
        self._flows = flows
        self._limits = limits
        self._check_known = check_known
        self._on_drained = on_drained
        self._on_room = on_room
        self._settings = Allowance(limits.settings, now, "SETTINGS")
        self._pings = Allowance(limits.pings, now, "PINGs")
        self._idle = Allowance(limits.idle_frames, now, "frames without effect")
        self.kinds: dict[int, Callable[[int, int, Payload], None]] = {
            frames.PRIORITY: self._on_priority,
            frames.SETTINGS: self.on_settings,
            frames.PUSH_PROMISE: self._on_misplaced,
            frames.PING: self._on_ping,
            frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window_update,
            frames.CONTINUATION: self._on_misplaced,
        }
        """Handlers by frame type. They take the flags, the stream and the payload of a frame."""

    def greet(self) -> None:
        """Send this server's SETTINGS and open the connection's window."""
        limits = self._limits
        values = {
            frames.MAX_CONCURRENT_STREAMS: limits.announced_streams or limits.max_streams,
            frames.INITIAL_WINDOW_SIZE: limits.stream_window,
            frames.MAX_HEADER_LIST_SIZE: limits.header_list_bytes,
        }
        self._outbox.chunks.append(frames.settings(values))
        # A window cannot begin below the default, and an increment of 0 is an error.
        more = limits.connection_window - frames.DEFAULT_WINDOW
        if more > 0:
            self._outbox.chunks.append(frames.window_update(0, more))

    def count_idle(self) -> None:
        """Count a frame without effect."""
        self._idle.spend()

    def on_unknown(self, _flags: int, _number: int, _payload: Payload) -> None:
        """Ignore a frame of an unknown type (RFC 9113, section 5.5)."""
        self._idle.spend()

    def on_settings(self, flags: int, number: int, payload: Payload) -> None:
        """Apply SETTINGS and acknowledge them."""
        _on_connection(number, "SETTINGS")
        if flags & frames.ACK:
            if payload:
                raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK has a payload")
            return
        self._settings.spend()
        values = frames.read_settings(payload)
        # The acknowledgement comes first, because the DATA after it uses the new windows.
        self._outbox.chunks.append(frames.SETTINGS_ACK)
        window = None
        for key, value in values:
            if key == frames.INITIAL_WINDOW_SIZE:
                if value > frames.MAX_WINDOW:
                    raise PeerError(
                        ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE exceeds 2^31-1"
                    )
                window = value
            else:
                self._apply(key, value)
        if window is not None:
            # Only the last of them: each looks at every stream, and a frame has room for thousands.
            self._outbox.resize(list(self._flows.values()), window)
            self._look_for_room()

    def _apply(self, key: int, value: int) -> None:
        if key == frames.MAX_FRAME_SIZE:
            if not frames.SMALLEST_MAX_FRAME <= value <= frames.LARGEST_MAX_FRAME:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of range")
            self._outbox.max_frame = value
        elif key == frames.ENABLE_PUSH and value > 1:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH is neither 0 nor 1")

    def ping(self) -> None:
        """Send a keepalive PING."""
        self._outbox.chunks.append(frames.frame(frames.PING, 0, 0, _ARE_YOU_THERE))

    def _on_ping(self, flags: int, number: int, payload: Payload) -> None:
        _on_connection(number, "PING")
        if len(payload) != _PING_BYTES:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "PING has a wrong length")
        if not flags & frames.ACK:
            self._pings.spend()
            self._outbox.chunks.append(frames.frame(frames.PING, frames.ACK, 0, bytes(payload)))
        elif payload == DRAINING:
            self._on_drained()

    def _on_goaway(self, _flags: int, number: int, payload: Payload) -> None:
        # Open streams continue. A client that leaves closes the connection itself.
        _on_connection(number, "GOAWAY")
        if len(payload) < _GOAWAY_BYTES:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has a wrong length")
        self._idle.spend()

    def _on_window_update(self, _flags: int, number: int, payload: Payload) -> None:
        if len(payload) != frames.number.size:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has a wrong length")
        increment: int = frames.number.unpack(payload)[0] & frames.MAX_WINDOW
        if increment < self._limits.small_increment and self._outbox.queued:
            self._idle.spend()
        if not number:
            if not increment:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE with an increment of 0")
            self._outbox.opened(increment)
            self._look_for_room()
        elif (flow := self._flows.get(number)) is None:
            self._check_known(number)
        elif not increment:
            raise StreamError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE with an increment of 0")
        else:
            self._outbox.stream_opened(flow, increment)

    def _look_for_room(self) -> None:
        if self._outbox.lags:
            self._on_room()

    def _on_priority(self, _flags: int, number: int, payload: Payload) -> None:
        self._idle.spend()
        if not number:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != PRIORITY_BYTES:
            raise StreamError(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has a wrong length")
        check_priority(number, payload)

    def _on_misplaced(self, _flags: int, _number: int, _payload: Payload) -> None:
        raise PeerError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, or CONTINUATION without HEADERS")


def _on_connection(number: int, what: str) -> None:
    if number:
        raise PeerError(ErrorCode.PROTOCOL_ERROR, f"{what} on a stream other than 0")
