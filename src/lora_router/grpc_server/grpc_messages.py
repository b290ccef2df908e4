"""gRPC's messages in a stream's bytes: a flag, four bytes of length, the message.

Source: grpc/doc/PROTOCOL-HTTP2.md and compression.md.
"""

import struct
from collections.abc import Sequence

from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.status import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED

Message = bytes | bytearray
"""A ``bytearray`` is one that came in pieces."""

prefix = struct.Struct(">BI")
PREFIX_BYTES = prefix.size


class MessageError(Exception):
    """The stream's bytes are no messages that this server takes; with a gRPC status code."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


def whole_message(payload: Payload, limit: int) -> bytes | None:
    """Return the message that a stream's bytes are, if they are just one, and no reader is needed.

    Args:
        payload: A frame's bytes, at the start of a message.
        limit: The longest message, in bytes.
    """
    if len(payload) < PREFIX_BYTES:
        return None
    flag, size = prefix.unpack_from(payload)
    if flag or size != len(payload) - PREFIX_BYTES or size > limit:
        return None
    return bytes(payload[PREFIX_BYTES:])


class MessageReader:
    """Cuts a stream's bytes into messages; keeps what is not complete."""

    __slots__ = ("_encoding", "_limit", "_missing", "_partial", "held")

    def __init__(self, limit: int, encoding: bytes) -> None:
        """Prepare to read.

        Args:
            limit: The longest message, in bytes.
            encoding: What ``grpc-encoding`` said.
        """
        self._limit = limit
        self._encoding = encoding
        self._partial: bytearray | None = None
        self.held = 0
        """Bytes kept of a message that is not complete."""
        self._missing = -1
        """Bytes that the message lacks; -1 while its prefix is not complete."""

    def feed(self, payload: Payload) -> Sequence[Message]:
        """Take some bytes; return the messages that they complete.

        Raises:
            MessageError: A message is too long, or is compressed.
        """
        if self._partial is None:
            message = whole_message(payload, self._limit)
            if message is not None:
                return (message,)
        messages = []
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
                messages.append(partial)
                partial = bytearray()
                self._missing = -1
        self._partial = partial if partial or self._missing >= 0 else None
        self.held = len(partial)
        return messages

    def _length(self, flag: int, size: int) -> int:
        if flag > 1:
            raise MessageError(INTERNAL, "a message's flag is neither 0 nor 1")
        if flag and self._encoding != b"identity":
            raise MessageError(
                UNIMPLEMENTED, "the message's compression is not supported, only identity is"
            )
        if flag:
            raise MessageError(INTERNAL, "a message is compressed and grpc-encoding names no way")
        if size > self._limit:
            raise MessageError(
                RESOURCE_EXHAUSTED, f"a message of {size} bytes; at most {self._limit} are taken"
            )
        return size

    def check_end(self) -> None:
        """Take note that nothing more comes.

        Raises:
            MessageError: A message was begun.
        """
        if self._partial is not None:
            raise MessageError(INTERNAL, "the stream ended within a message")
