"""What the calls of all methods share: cutting messages out of bytes, the deadline, the end.

A method is a subclass of ``MessageCall``. The rules:

- ``message`` is called for each message, in order. ``request_ended`` is called when the client has
  closed its side of the stream. An exception in either ends this stream with INTERNAL and no other.
- ``closed`` is called exactly once, however the call ends: by ``finish``, at its deadline, when its
  stream is reset, when the connection is lost, or when the server stops.
- The budget of the process counts what a call holds. A call for which there is no room receives
  ``overloaded``, and afterwards no message.
- A call sends messages with ``stream.send_message``. If the message is not the result of something
  received, it calls ``stream.wake`` afterwards.
"""

import logging
from collections.abc import Callable, Sequence

from lora_router.grpc_server.budget import Account
from lora_router.grpc_server.call_headers import CallHeaders
from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.grpc_messages import (
    Discarding,
    Message,
    MessageError,
    MessageReader,
    whole_message,
)
from lora_router.grpc_server.status import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
)
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

    def delayed(self, seconds: float) -> None:
        """Handle that the rest of a message may come so many seconds later, for want of room."""

    def overloaded(self) -> None:
        """Answer that there is no room for the messages of this call."""
        self.finish(RESOURCE_EXHAUSTED, "lora-router: too many bytes are buffered; retry later")

    def let_go(self) -> None:
        """End the stream because the server stops."""
        self.finish(UNAVAILABLE, "lora-router: shutting down")

    def failed(self, code: int, message: str) -> None:
        """End the call with an error that is not the method's. A method may answer first."""
        self.finish(code, message)

    def finish(self, code: int, message: str = "") -> None:
        """End the call with a status."""
        self._close()
        self.stream.finish(code, message)

    # Called by the stream's connection

    def data(self, payload: Payload) -> Payload | None:
        """Handle bytes of the request; return those that are left after many messages."""
        try:
            if self._reader is None:
                whole = whole_message(payload, self._max_message)
                if whole is not None:
                    self.message(whole)
                    return None
            for message in self._read(payload):
                if not self.is_open:
                    return None
                self.message(message)
            account = self.stream.account
            if account is not None:
                account.settle()
            if self._reader is not None:
                return self._reader.rest
        except MessageError as error:
            self.failed(error.code, f"lora-router: {error.message}")
        except Exception:
            log.exception("a gRPC call failed; its stream is closed with INTERNAL")
            self.failed(INTERNAL, "lora-router: internal error")
        return None

    def end(self) -> None:
        """Handle the end of the client's side of the stream."""
        try:
            if self._reader is not None:
                self._reader.check_end()
            self.request_ended()
        except MessageError as error:
            self.failed(error.code, f"lora-router: {error.message}")
        except Exception:
            log.exception("a gRPC call failed at its end; its stream is closed with INTERNAL")
            self.failed(INTERNAL, "lora-router: internal error")

    def gone(self) -> None:
        """Handle a reset of the stream or the loss of the connection."""
        self._close()

    # Called by the budget

    def admitted(self) -> None:
        """Let the peer send the rest of what was begun."""
        self.stream.refill()
        self.stream.wake()

    def must_wait(self) -> None:
        """Handle that the rest has to wait."""
        self._guarded(lambda: self.delayed(self.stream.budget.wait_seconds))

    def refused(self) -> None:
        """Forget what has arrived, and answer that there is no room for it."""
        self._reader = Discarding()
        if self.is_open:
            self._guarded(self.overloaded)

    def _guarded(self, answer: Callable[[], None]) -> None:
        try:
            answer()
        except Exception:
            log.exception("a gRPC call failed; its stream is closed with INTERNAL")
            self.failed(INTERNAL, "lora-router: internal error")
        self.stream.wake()

    def _read(self, payload: Payload) -> Sequence[Message]:
        """Cut messages out of the bytes, and count the bytes of an incomplete message."""
        reader = self._reader
        if reader is None:
            reader = self._reader = MessageReader(self._max_message, self._encoding)
        messages = reader.feed(payload)
        account = self.stream.account
        if messages and account is not None:
            account.taken(reader.held, reader.length)
        elif account is not None or reader.held:
            self.account().hold(reader.held, reader.length)
        return messages

    def account(self) -> Account:
        """Return the account of what this call holds."""
        account = self.stream.account
        if account is None:
            account = self.stream.account = Account(self.stream.budget, self)
        return account

    def _deadline_exceeded(self) -> None:
        self._cancel_deadline = None
        if self.is_open:
            self.failed(DEADLINE_EXCEEDED, "lora-router: deadline exceeded")
            self.stream.wake()

    def _close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        if self._cancel_deadline is not None:
            self._cancel_deadline()
        # The account refers to this call, and the call to its stream. Without this reference there
        # is no cycle to collect, so an unfinished message is freed now.
        account, self.stream.account = self.stream.account, None
        self._reader = None
        if account is not None:
            account.clear()
        try:
            self.closed()
        except Exception:
            log.exception("a gRPC call could not release everything it held")
