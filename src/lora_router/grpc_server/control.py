"""The frames that are about the connection: SETTINGS, PING, GOAWAY, and those that do nothing."""

from collections.abc import Callable, Mapping

from lora_router.grpc_server import frames
from lora_router.grpc_server.blocks import PRIORITY_BYTES, check_priority
from lora_router.grpc_server.flow import Flow, Outbox
from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.limits import Allowance, Limits
from lora_router.grpc_server.violations import (
    ErrorCode,
    PeerError,
    StreamError,
)

_PING_BYTES = 8
_GOAWAY_BYTES = 8
_LAST_PING = b"draining"
_ARE_YOU_THERE = b"there? :"


class Control:
    """Takes a connection's control frames."""

    def __init__(
        self,
        outbox: Outbox,
        flows: Mapping[int, Flow],
        limits: Limits,
        now: Callable[[], float],
        *,
        check_known: Callable[[int], None],
        on_drained: Callable[[], None],
    ) -> None:
        """Prepare.

        Args:
            outbox: The connection's output.
            flows: Its streams, whose windows SETTINGS move.
            limits: What the peer may do.
            now: Seconds, monotonic.
            check_known: Raises if a stream was never opened.
            on_drained: Called when the peer has seen that no more streams are wanted.
        """
        self._outbox = outbox
        self._flows = flows
        self._limits = limits
        self._check_known = check_known
        self._on_drained = on_drained
        self._settings = Allowance(limits.settings, now, "SETTINGS")
        self._pings = Allowance(limits.pings, now, "PINGs")
        self._idle = Allowance(limits.idle_frames, now, "frames that do nothing")
        self.kinds: dict[int, Callable[[int, int, Payload], None]] = {
            frames.PRIORITY: self._on_priority,
            frames.SETTINGS: self.on_settings,
            frames.PUSH_PROMISE: self._on_misplaced,
            frames.PING: self._on_ping,
            frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window_update,
            frames.CONTINUATION: self._on_misplaced,
        }
        """What takes a frame's flags, stream and payload, by the frame's type."""

    def greet(self) -> None:
        """Say what this server takes."""
        limits = self._limits
        values = {
            frames.MAX_CONCURRENT_STREAMS: limits.max_streams,
            frames.INITIAL_WINDOW_SIZE: limits.stream_window,
            frames.MAX_HEADER_LIST_SIZE: limits.header_list_bytes,
        }
        self._outbox.chunks += (
            frames.settings(values),
            frames.window_update(0, limits.held_bytes - frames.DEFAULT_WINDOW),
        )

    def count_idle(self) -> None:
        """Count a frame that does nothing."""
        self._idle.spend()

    def on_unknown(self, _flags: int, _number: int, _payload: Payload) -> None:
        """Ignore a frame of a type that is not known (RFC 9113, section 5.5)."""
        self._idle.spend()

    def on_settings(self, flags: int, number: int, payload: Payload) -> None:
        """Take SETTINGS."""
        _on_connection(number, "SETTINGS")
        if flags & frames.ACK:
            if payload:
                raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with payload")
            return
        self._settings.spend()
        values = frames.read_settings(payload)
        # First, so that the peer knows by which windows the DATA after it goes.
        self._outbox.chunks.append(frames.SETTINGS_ACK)
        for key, value in values:
            self._apply(key, value)

    def _apply(self, key: int, value: int) -> None:
        if key == frames.INITIAL_WINDOW_SIZE:
            if value > frames.MAX_WINDOW:
                raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")
            self._outbox.resize(list(self._flows.values()), value)
        elif key == frames.MAX_FRAME_SIZE:
            if not frames.SMALLEST_MAX_FRAME <= value <= frames.LARGEST_MAX_FRAME:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, "a frame size out of range")
            self._outbox.max_frame = value
        elif key == frames.ENABLE_PUSH and value > 1:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")

    def ping(self) -> None:
        """Ask whether the peer is there."""
        self._outbox.chunks.append(frames.frame(frames.PING, 0, 0, _ARE_YOU_THERE))

    def drain(self) -> None:
        """Ask the peer to open no more streams; those that it has opened meanwhile still count.

        When it answers the PING, it has seen the GOAWAY (RFC 9113, section 6.8).
        """
        self._outbox.chunks += (
            frames.goaway(frames.MAX_WINDOW, ErrorCode.NO_ERROR),
            frames.frame(frames.PING, 0, 0, _LAST_PING),
        )

    def _on_ping(self, flags: int, number: int, payload: Payload) -> None:
        _on_connection(number, "PING")
        if len(payload) != _PING_BYTES:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong length")
        if not flags & frames.ACK:
            self._pings.spend()
            self._outbox.chunks.append(frames.frame(frames.PING, frames.ACK, 0, bytes(payload)))
        elif payload == _LAST_PING:
            self._on_drained()

    def _on_goaway(self, _flags: int, number: int, payload: Payload) -> None:
        # The streams that there are go on; a client that leaves closes the connection.
        _on_connection(number, "GOAWAY")
        if len(payload) < _GOAWAY_BYTES:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY of a wrong length")
        self._idle.spend()

    def _on_window_update(self, _flags: int, number: int, payload: Payload) -> None:
        if len(payload) != frames.number.size:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong length")
        increment: int = frames.number.unpack(payload)[0] & frames.MAX_WINDOW
        if increment < self._limits.small_increment and self._outbox.queued:
            self._idle.spend()
        if not number:
            if not increment:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, "a window opened by nothing")
            self._outbox.opened(increment)
        elif (flow := self._flows.get(number)) is None:
            self._check_known(number)
        elif not increment:
            raise StreamError(ErrorCode.PROTOCOL_ERROR, "a window opened by nothing")
        else:
            self._outbox.stream_opened(flow, increment)

    def _on_priority(self, _flags: int, number: int, payload: Payload) -> None:
        self._idle.spend()
        if not number:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "PRIORITY on the connection")
        if len(payload) != PRIORITY_BYTES:
            raise StreamError(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of a wrong length")
        check_priority(number, payload)

    def _on_misplaced(self, _flags: int, _number: int, _payload: Payload) -> None:
        raise PeerError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, or CONTINUATION of nothing")


def _on_connection(number: int, what: str) -> None:
    if number:
        raise PeerError(ErrorCode.PROTOCOL_ERROR, f"{what} on a stream")
