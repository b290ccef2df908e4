"""Header blocks, from HEADERS and the CONTINUATION frames that follow."""

from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.limits import Limits
from lora_router.grpc_server.violations import ErrorCode, PeerError

PRIORITY_BYTES = 5


class OpenBlock:
    """An incomplete header block. No other frame may arrive before its end."""

    __slots__ = ("_data", "_frames", "_limits", "flags", "stream")

    def __init__(self, limits: Limits, stream: int, flags: int, start: Payload) -> None:
        self._limits = limits
        self._data = bytearray(start)
        self._frames = 0
        self.stream = stream
        self.flags = flags
        """The flags of the HEADERS frame."""

    def add(self, kind: int, flags: int, stream: int, payload: Payload) -> bytes | None:
        """Add the next frame; return the block when it is complete.

        Raises:
            PeerError: The frame is not a continuation of this block, or the block is too long.
        """
        if kind != frames.CONTINUATION or stream != self.stream:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "another frame inside a header block")
        self._frames += 1
        self._data += payload
        if (
            self._frames > self._limits.continuations
            or len(self._data) > self._limits.header_block_bytes
        ):
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, "header block too long")
        return bytes(self._data) if flags & frames.END_HEADERS else None


def fragment(flags: int, stream: int, payload: Payload) -> Payload:
    """Return a HEADERS payload without padding and priority.

    Raises:
        PeerError: The padding or the priority is malformed.
    """
    payload = frames.unpadded(flags, payload)
    if not flags & frames.WITH_PRIORITY:
        return payload
    if len(payload) < PRIORITY_BYTES:
        raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
    check_priority(stream, payload)
    return payload[PRIORITY_BYTES:]


def check_priority(stream: int, priority: Payload) -> None:
    """Check a priority. It has no other effect (RFC 9113, section 5.3.2).

    Raises:
        PeerError: The stream depends on itself.
    """
    parent: int = frames.number.unpack_from(priority)[0]
    if parent & frames.MAX_WINDOW == stream:
        raise PeerError(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
