"""Protocol violations by a peer, with their error codes (RFC 9113, section 7)."""

from enum import IntEnum


class ErrorCode(IntEnum):
    """The HTTP/2 error codes that this server sends."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    FLOW_CONTROL_ERROR = 0x3
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class PeerError(Exception):
    """The connection must end: the peer receives GOAWAY, and the connection is closed."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


class StreamError(Exception):
    """One stream must end: the peer receives RST_STREAM. Other streams are not affected."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)
