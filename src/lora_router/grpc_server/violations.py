"""What a peer does wrong, with the code that tells it (RFC 9113, section 7)."""

from enum import IntEnum


class ErrorCode(IntEnum):
    """HTTP/2's error codes, as far as this server says them."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    FLOW_CONTROL_ERROR = 0x3
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class PeerError(Exception):
    """The connection cannot go on: GOAWAY, and closed."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


class StreamError(Exception):
    """One stream cannot go on: RST_STREAM. The others do not notice."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)
