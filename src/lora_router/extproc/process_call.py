"""The method ``Process`` on the built-in gRPC server. Each call carries a session. No I/O."""

import logging
from collections.abc import Callable

from lora_router.extproc.context import SessionContext
from lora_router.extproc.outputs import BodyPiece, Outputs
from lora_router.extproc.session import Session
from lora_router.extproc.states import HELD, HELD_WITH_TRAILERS, PIECES
from lora_router.grpc_server.call_headers import CallHeaders
from lora_router.grpc_server.grpc_messages import Message
from lora_router.grpc_server.message_call import MessageCall
from lora_router.grpc_server.status import INTERNAL, OK
from lora_router.grpc_server.stream import Stream

log = logging.getLogger("lora_router.extproc")

_COLLECTS = (PIECES, HELD, HELD_WITH_TRAILERS)
"""The states in which a session collects pieces of a body, or will answer late."""


class Process:
    """The method, which counts its open calls."""

    def __init__(self, context: SessionContext, max_message_bytes: int) -> None:
        self.context = context
        self.max_message_bytes = max_message_bytes
        self.open = 0
        """The number of open calls."""

    def open_call(self, stream: Stream, headers: CallHeaders) -> "ProcessCall":
        """Open a call on a new stream."""
        return ProcessCall(self, stream, headers)

    def open_traced_call(self, stream: Stream, headers: CallHeaders) -> "ProcessCall":
        """Open a call on a new stream, which may name the gateway's span."""
        call = ProcessCall(self, stream, headers)
        call.trace(headers.fields.get(b"traceparent", b"").decode("latin-1"))
        return call


class ProcessCall(MessageCall):
    """One call, which carries the messages of its session."""

    __slots__ = ("_process", "_session")

    def __init__(self, process: Process, stream: Stream, headers: CallHeaders) -> None:
        super().__init__(stream, headers, process.max_message_bytes)
        self._process = process
        self._session = Session(process.context, self._send_late)
        process.open += 1

    def trace(self, traceparent: str) -> None:
        """Take in the gateway's span of this stream."""
        self._session.traceparent = traceparent

    def message(self, message: Message) -> None:
        """Pass a message to the session, and send what it returns."""
        session = self._session
        self._send(session.receive(message))
        if self.stream.account is not None or session.state in _COLLECTS:
            self._count(session)

    def request_ended(self) -> None:
        """End the call now, or after the answer to a held request."""
        session = self._session
        if session.state in _COLLECTS:
            self._send(session.half_closed())
            if session.is_held or not self.is_open:
                return
        self.finish(OK)

    def gone(self) -> None:
        """Handle a reset of the stream or the loss of the connection."""
        if self.is_open:
            self._session.was_reset = True
        super().gone()

    def closed(self) -> None:
        """Release everything that the request holds."""
        session = self._session
        # The session refers to this call. Without this reference there is no cycle to collect.
        del self._session
        self._process.open -= 1
        session.end()

    def delayed(self, seconds: float) -> None:
        """Ask Envoy for the time that the body waits for room."""
        self._send(self._session.delayed(seconds))

    def overloaded(self) -> None:
        """Answer the client that there is no room for its body."""
        self._send(self._session.overloaded())

    def let_go(self) -> None:
        """End the stream with status OK, which Envoy treats as "no further changes".

        A request that is not decided is refused first.
        """
        self._answer_first(Session.draining)
        self.finish(OK)

    def failed(self, code: int, message: str) -> None:
        """End the stream with an error. The client is answered first, if nothing is decided."""
        self._answer_first(lambda session: session.failed(code))
        self.finish(code, message)

    def _answer_first(self, answer: Callable[[Session], Outputs]) -> None:
        """Send what a session answers, before its stream ends in any case."""
        try:
            if self.is_open:
                self._send(answer(self._session))
        except Exception:
            log.exception("a request could not be answered before the end of its stream")

    def _send(self, outputs: Outputs) -> None:
        for output in outputs:
            if isinstance(output, bytes):
                self.stream.send_message(output)
            elif isinstance(output, BodyPiece):
                self.stream.send_parts(output.head, output.body)
            else:
                if output.answer:
                    self.stream.send_message(output.answer)
                self.finish(output.code, output.message)
                return

    def _count(self, session: Session) -> None:
        """Count the pieces of the body that the session collects, and those that it expects.

        The whole body is reserved at once, since a body that reserved its pieces one by one could
        wait for room that another such body has.
        """
        if self.is_open:
            kept, expected = session.collected_bytes, session.expected_bytes
            stream = self.stream
            if stream.account is not None:
                stream.account.keep(kept, expected)
            elif max(kept, expected) > stream.budget.small:
                # Envoy's clock runs since the headers, and a long body takes its time.
                self.delayed(stream.budget.wait_seconds)
                self.account().keep(kept, expected)

    def _send_late(self, outputs: Outputs) -> None:
        if not self.is_open:
            return
        try:
            session = self._session
            self._send(outputs)
            if self.stream.remote_ended:
                if self.is_open:
                    self.finish(OK)
            elif self.stream.account is not None:
                self._count(session)
        except Exception:
            log.exception("sending a late answer failed; its stream is closed with INTERNAL")
            self.failed(INTERNAL, "lora-router: internal error")
        self.stream.wake()
