"""gRPC messages in the bytes of a stream: a flag, four bytes of length, the message.

Sources: grpc/doc/PROTOCOL-HTTP2.md and grpc/doc/compression.md.
"""

import struct
import zlib
from collections.abc import Sequence

from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.status import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED

Message = bytes | bytearray
"""A message that arrives in pieces is a ``bytearray``."""

_WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
"""What zlib calls the encodings that can be read."""
_RATIO = 100
"""How much longer than its compressed form a message may be. Text is about 10 times as long.
Without a bound, a short message could take a second to decompress."""
_ALWAYS_BYTES = 64 * 1024
_AT_ONCE = 32
"""Messages that are handled before the owner may look at the clock. They are in one frame, which
has room for thousands of empty ones."""

prefix = struct.Struct(">BI")
PREFIX_BYTES = prefix.size


class MessageError(Exception):
    """The bytes of a stream are not messages that this server accepts. Has a gRPC status code."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


def whole_message(payload: Payload, limit: int) -> bytes | None:
    """Return the message if the bytes are exactly one; ``None``: a ``MessageReader`` is needed.

    Args:
        payload: The bytes of a frame, at the start of a message.
        limit: Maximum length of a message in bytes.
    """
    if len(payload) < PREFIX_BYTES:
        return None
    flag, size = prefix.unpack_from(payload)
    if flag or size != len(payload) - PREFIX_BYTES or size > limit:
        return None
    return bytes(payload[PREFIX_BYTES:])


def decompressed(data: bytearray, encoding: bytes, limit: int) -> bytearray:
    """Return the message that was compressed. Its length is bounded, whatever it contains.

    Raises:
        MessageError: It is too long, or it is not compressed in this way.
    """
    limit = min(limit, _RATIO * len(data) + _ALWAYS_BYTES)
    inflate = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        message = bytearray(inflate.decompress(data, limit + 1))
    except zlib.error:
        raise MessageError(INTERNAL, "a message cannot be decompressed") from None
    if len(message) > limit:
        raise MessageError(
            RESOURCE_EXHAUSTED, f"a message has more than {limit} bytes after decompression"
        )
    if not inflate.eof or inflate.unused_data:
        raise MessageError(INTERNAL, "a message cannot be decompressed")
    return message


class MessageReader:
    """Cuts the bytes of a stream into messages, and holds the start of an incomplete one."""

    __slots__ = (
        "_compressed",
        "_encoding",
        "_limit",
        "_missing",
        "_partial",
        "held",
        "length",
        "rest",
    )

    def __init__(self, limit: int, encoding: bytes) -> None:
        """Create a reader at the start of a stream.

        Args:
            limit: Maximum length of a message in bytes.
            encoding: The value of ``grpc-encoding``.
        """
        self._limit = limit
        self._encoding = encoding
        self._compressed = False
        """Whether the incomplete message is compressed."""
        self._partial: bytearray | None = None
        self.held = 0
        """Bytes of the incomplete message."""
        self.length = 0
        """Bytes that it will have, as far as its prefix says."""
        self._missing = -1
        """Bytes that the message still lacks; -1 while its prefix is incomplete."""
        self.rest: Payload | None = None
        """The bytes of the last call that are not added yet, because there are many messages."""

    def feed(self, payload: Payload) -> Sequence[Message]:
        """Add bytes; return the messages that they complete, or the first of many.

        Raises:
            MessageError: A message is too long, or its compression cannot be read.
        """
        if self._partial is None:
            message = whole_message(payload, self._limit)
            if message is not None:
                return (message,)
        messages = []
        inflated = 0  # All messages of one call together are within the limit of one.
        partial = bytearray() if self._partial is None else self._partial
        at, end = 0, len(payload)
        while at < end:
            if self._missing < 0:
                start, at = at, at + PREFIX_BYTES - len(partial)
                partial += payload[start:at]
                if len(partial) < PREFIX_BYTES:
                    break
                self._missing = self._length(*prefix.unpack(partial))
                partial = bytearray()
            start, at = at, at + self._missing
            partial += payload[start:at]
            self._missing -= min(at, end) - start
            if not self._missing:
                if self._compressed:
                    partial = decompressed(partial, self._encoding, self._limit - inflated)
                    inflated += len(partial)
                messages.append(partial)
                partial = bytearray()
                self._missing = -1
                if len(messages) == _AT_ONCE:
                    break
        self.rest = payload[at:] if at < end else None
        self._partial = partial if partial or self._missing >= 0 else None
        self.held = len(partial)
        self.length = self.held + max(self._missing, 0)
        return messages

    def _length(self, flag: int, size: int) -> int:
        if flag > 1:
            raise MessageError(INTERNAL, "the compressed flag of a message is neither 0 nor 1")
        if flag and self._encoding == b"identity":
            raise MessageError(
                INTERNAL, "a message is compressed, but grpc-encoding names no compression"
            )
        if flag and self._encoding not in _WINDOW_BITS:
            raise MessageError(
                UNIMPLEMENTED,
                "unknown compression of messages; use grpc-encoding identity, gzip or deflate",
            )
        self._compressed = bool(flag)
        if size > self._limit:
            raise MessageError(
                RESOURCE_EXHAUSTED, f"a message has {size} bytes; the limit is {self._limit}"
            )
        return size

    def check_end(self) -> None:
        """Check that the stream may end here.

        Raises:
            MessageError: A message is incomplete.
        """
        if self._partial is not None:
            raise MessageError(INTERNAL, "the stream ended inside a message")


class Discarding(MessageReader):
    """The reader of a stream whose further bytes are not used."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(0, b"identity")

    def feed(self, _payload: Payload) -> Sequence[Message]:
        """Return no message."""
        return ()

    def check_end(self) -> None:
        """Allow the end anywhere."""
