"""What every method's call has in common: messages out of bytes, the deadline, the end.

A method is written as a subclass of ``MessageCall``. The rules:

- ``message`` is called for each message, in order, and ``request_ended`` when the client has said
  all. What they raise ends the stream with INTERNAL, and only this stream.
- ``closed`` is called exactly once, however the call ends: it finished, its deadline passed, its
  stream was reset, the connection was lost, the server goes.
- Messages are sent by ``stream.send_message``, and ``stream.wake`` after it if nothing that was
  received brought them about.
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
    """A call that takes messages. See the head of this file for its rules."""

    __slots__ = ("_cancel_deadline", "_encoding", "_max_message", "_reader", "is_open", "stream")

    def __init__(self, stream: Stream, headers: CallHeaders, max_message_bytes: int) -> None:
        self.stream = stream
        self.is_open = True
        """Whether the call goes on; ``closed`` has not been called."""
        self._max_message = max_message_bytes
        self._encoding = headers.encoding
        self._reader: MessageReader | None = None
        """Once a message came in pieces."""
        self._cancel_deadline: Callable[[], object] | None = None
        if headers.timeout is not None:
            self._cancel_deadline = stream.call_later(headers.timeout, self._too_late)

    # What a method does

    def message(self, message: Message) -> None:
        """Take a message. A ``bytearray`` is the call's own and may be changed."""
        raise NotImplementedError

    def request_ended(self) -> None:
        """Take note that no more messages come."""
        raise NotImplementedError

    def closed(self) -> None:
        """Give back what the call holds."""

    def let_go(self) -> None:
        """End the stream: the server goes."""
        self.finish(UNAVAILABLE, "lora-router: shutting down")

    def finish(self, code: int, message: str = "") -> None:
        """End the call with a status."""
        self._close()
        self.stream.finish(code, message)

    # What the stream tells

    def data(self, payload: Payload) -> None:
        """Take bytes of the request."""
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
            log.exception("a stream failed; it is ended")
            self.finish(INTERNAL, "lora-router: internal error")

    def end(self) -> None:
        """Take note that the client has said all."""
        try:
            if self._reader is not None:
                self._reader.check_end()
            self.request_ended()
        except MessageError as error:
            self.finish(error.code, f"lora-router: {error.message}")
        except Exception:
            log.exception("a stream failed at its end; it is ended")
            self.finish(INTERNAL, "lora-router: internal error")

    def gone(self) -> None:
        """Take note that the stream was reset or the connection lost."""
        self._close()

    def _read(self, payload: Payload) -> Sequence[Message]:
        """Cut messages out of pieces, and count what is kept."""
        reader = self._reader
        if reader is None:
            reader = self._reader = MessageReader(self._max_message, self._encoding)
        held = reader.held
        messages = reader.feed(payload)
        if reader.held != held:
            self.stream.hold(reader.held - held)
        return messages

    def _too_late(self) -> None:
        self._cancel_deadline = None
        if self.is_open:
            self.finish(DEADLINE_EXCEEDED, "lora-router: grpc-timeout is over")
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
            log.exception("a call failed at its end")
