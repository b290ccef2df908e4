"""Messages on a stream socket: four bytes of length, then the message."""

import asyncio
from collections.abc import Callable
from typing import cast

_LENGTH_BYTES = 4


class FramedProtocol(asyncio.Protocol):
    """One end of a connection. Both ends belong to processes of this router."""

    def __init__(
        self,
        receive: Callable[[bytes], None],
        ended: Callable[[], None],
        *,
        max_bytes: int,
    ) -> None:
        """Create it.

        Args:
            receive: Called with each message.
            ended: Called once, when the connection is closed.
            max_bytes: The maximum length of a message. A longer one ends the connection.
        """
        self.receive = receive
        self._ended = ended
        self._max_bytes = max_bytes
        self._kept = bytearray()
        self._transport: asyncio.Transport | None = None

    @property
    def unsent(self) -> int:
        """Bytes that the other end has not read yet, beyond what the socket holds."""
        transport = self._transport
        return 0 if transport is None else transport.get_write_buffer_size()

    def send(self, message: bytes) -> None:
        """Send a message. Does nothing after the end."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(message).to_bytes(_LENGTH_BYTES) + message)

    def close(self) -> None:
        """Close the connection after what was sent has been written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # A cast, because uvloop's transports are not subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass on each message that is complete."""
        kept = self._kept
        kept += data
        begin = 0
        try:
            while len(kept) - begin >= _LENGTH_BYTES:
                length = int.from_bytes(kept[begin : begin + _LENGTH_BYTES])
                if length > self._max_bytes:
                    self.abort()
                    return
                end = begin + _LENGTH_BYTES + length
                if len(kept) < end:
                    break
                message = bytes(kept[begin + _LENGTH_BYTES : end])
                begin = end
                self.receive(message)
        finally:
            # Also if a message could not be handled: it must not be handled again.
            del kept[:begin]

    def connection_lost(self, _error: Exception | None) -> None:
        """End."""
        self._transport = None
        self._ended()
