"""What the calls of all methods share: cutting messages out of bytes, the deadline, the end.

A method is a subclass of ``MessageCall``. The rules:

- ``message`` is called for each message, in order. ``request_ended`` is called when the client has
  closed its side of the stream. An exception in either ends this stream with INTERNAL and no other.
- ``closed`` is called exactly once, however the call ends: by ``finish``, at its deadline, when its
  stream is reset, when the connection is lost, or when the server stops.
- A call sends messages with ``stream.send_message``. If the message is not the result of something
  received, it calls ``stream.wake`` afterwards.
"""

import logging
from collections.abc import Callable, Sequence

from lora_router.grpc_server.call_headers import CallHeaders
from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.grpc_messages import (
    Message,
    MessageError,
    MessageReader,
    whole_message,
)
from lora_router.grpc_server.status import DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE
from lora_router.grpc_server.stream import Stream

log = logging.getLogger("lora_router.grpc_server")


class MessageCall:
    """A call that receives messages. See the head of this file for its rules."""

    __slots__ = ("_cancel_deadline", "_encoding", "_max_message", "_reader", "is_open", "stream")

    def __init__(self, stream: Stream, headers: CallHeaders, max_message_bytes: int) -> None:
        self.stream = stream
        self.is_open = True
        """Whether ``closed`` has not been called yet."""
        self._max_message = max_message_bytes
        self._encoding = headers.encoding
        self._reader: MessageReader | None = None
        """Set when the first message arrives in pieces. A whole message needs no reader."""
        self._cancel_deadline: Callable[[], object] | None = None
        if headers.timeout is not None:
            self._cancel_deadline = stream.call_later(headers.timeout, self._deadline_exceeded)

    # Implemented by methods

    def message(self, message: Message) -> None:
        """Handle a message. A ``bytearray`` belongs to the call, which may change it."""
        raise NotImplementedError

    def request_ended(self) -> None:
        """Handle the end of the request: no more messages follow."""
        raise NotImplementedError

    def closed(self) -> None:
        """Release what the call holds."""

    def let_go(self) -> None:
        """End the stream because the server stops."""
        self.finish(UNAVAILABLE, "lora-router: shutting down")

    def finish(self, code: int, message: str = "") -> None:
        """End the call with a status."""
        self._close()
        self.stream.finish(code, message)

    # Called by the stream's connection

    def data(self, payload: Payload) -> None:
        """Handle bytes of the request."""
        try:
            if self._reader is None:
                whole = whole_message(payload, self._max_message)
                if whole is not None:
                    self.message(whole)
                    return
            for message in self._read(payload):
                self.message(message)
                if not self.is_open:
                    return
        except MessageError as error:
            self.finish(error.code, f"lora-router: {error.message}")
        except Exception:
            log.exception("a gRPC call failed; its stream is closed with INTERNAL")
            self.finish(INTERNAL, "lora-router: internal error")

    def end(self) -> None:
        """Handle the end of the client's side of the stream."""
        try:
            if self._reader is not None:
                self._reader.check_end()
            self.request_ended()
        except MessageError as error:
            self.finish(error.code, f"lora-router: {error.message}")
        except Exception:
            log.exception("a gRPC call failed at its end; its stream is closed with INTERNAL")
            self.finish(INTERNAL, "lora-router: internal error")

    def gone(self) -> None:
        """Handle a reset of the stream or the loss of the connection."""
        self._close()

    def _read(self, payload: Payload) -> Sequence[Message]:
        """Cut messages out of the bytes, and count the bytes of an incomplete message."""
        reader = self._reader
        if reader is None:
            reader = self._reader = MessageReader(self._max_message, self._encoding)
        held = reader.held
        messages = reader.feed(payload)
        if reader.held != held:
            self.stream.hold(reader.held - held)
        return messages

    def _deadline_exceeded(self) -> None:
        self._cancel_deadline = None
        if self.is_open:
            self.finish(DEADLINE_EXCEEDED, "lora-router: deadline exceeded")
            self.stream.wake()

    def _close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        if self._cancel_deadline is not None:
            self._cancel_deadline()
        if self._reader is not None and self._reader.held:
            self.stream.hold(-self._reader.held)
        try:
            self.closed()
        except Exception:
            log.exception("a gRPC call could not release everything it held")
