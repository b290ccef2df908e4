"""What the streams are to gRPC: ext_proc conversations, health checks, or something unknown.

No I/O: a call is told what arrives, and answers through its stream.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from lora_router.extproc.session import (
    EndStream,
    Output,
    Session,
    SessionContext,
)
from lora_router.extproc.transport import SERVICE
from lora_router.grpc_server.call_headers import CallHeaders
from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.grpc_messages import (
    INTERNAL,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    MessageError,
    MessageReader,
    whole_message,
)
from lora_router.grpc_server.stream import NOT_GRPC, OVER, Call, Stream

log = logging.getLogger("lora_router.extproc")

OK = 0
DEADLINE_EXCEEDED = 4

_PROCESS = f"/{SERVICE}/Process"


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Make it not happen."""


CallLater = Callable[[float, Callable[[], None]], Timer]
Method = Callable[[Stream, CallHeaders], Call]


class Calls:
    """All calls of a server."""

    def __init__(
        self,
        context: SessionContext,
        *,
        max_message_bytes: int,
        max_header_list_bytes: int,
        call_later: CallLater,
        others: Mapping[str, Method],
    ) -> None:
        """Prepare.

        Args:
            context: What all sessions share.
            max_message_bytes: The longest message taken.
            max_header_list_bytes: The longest list of request headers taken.
            call_later: Calls once, after some seconds; for ``grpc-timeout``.
            others: Further methods, by their paths.
        """
        self.context = context
        self.max_message_bytes = max_message_bytes
        self.call_later = call_later
        self.open = 0
        """ext_proc calls that are open now."""
        self._max_header_list = max_header_list_bytes
        self._methods = {_PROCESS: self._process, **others}

    def begin(self, stream: Stream, head: CallHeaders) -> Call:
        """Make a stream's call, or refuse it."""
        method = self._methods.get(head.path)
        if head.http_error:
            return _NotGrpc(stream, head.http_error)
        if head.list_bytes > self._max_header_list:
            stream.finish(
                RESOURCE_EXHAUSTED,
                f"metadata of {head.list_bytes} bytes; at most {self._max_header_list} are taken",
            )
        elif method is None:
            stream.finish(UNIMPLEMENTED, "there is no such method")
        elif head.bad_timeout:
            stream.finish(INTERNAL, "grpc-timeout is malformed")
        else:
            try:
                return method(stream, head)
            except Exception:
                log.exception("a stream could not be begun; it is ended")
                stream.finish(INTERNAL, "lora-router: internal error")
        return OVER

    def _process(self, stream: Stream, head: CallHeaders) -> Call:
        return Process(self, stream, head)


class Process:
    """One ext_proc stream: carries its session's messages."""

    __slots__ = ("_calls", "_encoding", "_reader", "_session", "_stream", "_timer")

    def __init__(self, calls: Calls, stream: Stream, head: CallHeaders) -> None:
        self._calls = calls
        self._stream = stream
        self._encoding = head.encoding
        self._reader: MessageReader | None = None
        """Once a message came in pieces."""
        self._session: Session | None = Session(calls.context, self._send_late)
        self._timer = (
            None if head.timeout is None else calls.call_later(head.timeout, self._too_late)
        )
        calls.open += 1

    def data(self, payload: Payload) -> None:
        """Take bytes of the conversation."""
        session = self._session
        assert session is not None  # noqa: S101 -- nothing is asked of a call that is over
        try:
            if self._reader is None:
                whole = whole_message(payload, self._calls.max_message_bytes)
                if whole is not None:
                    self._send(session.receive(whole))
                    return
            for message in self._read(payload):
                self._send(session.receive(message))
                if self._session is None:
                    return
        except MessageError as error:
            self._finish(error.code, f"lora-router: {error.message}")
        except Exception:
            log.exception("a stream failed; it is ended")
            self._finish(INTERNAL, "lora-router: internal error")

    def end(self) -> None:
        """End the conversation: Envoy's request is over."""
        try:
            if self._reader is not None:
                self._reader.check_end()
        except MessageError as error:
            self._finish(error.code, f"lora-router: {error.message}")
        else:
            self._finish(OK)

    def gone(self) -> None:
        """Give back what the request holds: its stream was reset or the connection lost."""
        self._close()

    def let_go(self) -> None:
        """End the stream with status OK, which Envoy takes as "nothing more to say"."""
        self._finish(OK)

    def _read(self, payload: Payload) -> Sequence[bytes | bytearray]:
        """Cut messages out of pieces, and count what is kept."""
        reader = self._reader
        if reader is None:
            reader = MessageReader(self._calls.max_message_bytes, self._encoding)
            self._reader = reader
        held = reader.held
        messages = reader.feed(payload)
        if reader.held != held:
            self._stream.hold(reader.held - held)
        return messages

    def _send(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            if isinstance(output, EndStream):
                self._finish(output.code, output.message)
                return
            self._stream.send_message(output)

    def _send_late(self, outputs: Sequence[Output]) -> None:
        if self._session is None:
            return
        try:
            self._send(outputs)
        except Exception:
            log.exception("a late answer could not be sent; its stream is ended")
            self._finish(INTERNAL, "lora-router: internal error")
        self._stream.wake()

    def _too_late(self) -> None:
        self._timer = None
        if self._session is not None:
            self._finish(DEADLINE_EXCEEDED, "lora-router: grpc-timeout is over")
            self._stream.wake()

    def _finish(self, code: int, message: str = "") -> None:
        self._close()
        self._stream.finish(code, message)

    def _close(self) -> None:
        session = self._session
        if session is None:
            return
        # The session knows this call; letting go of it here spares the garbage collector a circle.
        self._session = None
        self._calls.open -= 1
        if self._timer is not None:
            self._timer.cancel()
        if self._reader is not None and self._reader.held:
            self._stream.hold(-self._reader.held)
        try:
            session.end()
        except Exception:
            log.exception("a session failed at its end")


class _NotGrpc:
    """A request that is none for us. It is answered when it is complete."""

    __slots__ = ("_status", "_stream")

    def __init__(self, stream: Stream, status: int) -> None:
        self._stream = stream
        self._status = status

    def data(self, payload: Payload) -> None:
        """Ignore the body."""

    def end(self) -> None:
        """Say what is spoken here."""
        self._stream.respond(self._status, NOT_GRPC[self._status])

    def gone(self) -> None:
        """Nothing was kept."""

    def let_go(self) -> None:
        """Answer now."""
        self.end()
