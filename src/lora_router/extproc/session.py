"""The ext_proc conversation about one HTTP request, without I/O.

A session is told each message of a stream (``receive``) and the stream's end (``end``); it returns
what to send. It does not know who carries the messages. Everything that decides what is answered
to what stands here. The rules:

- Envoy sends ``request_headers`` first. If the path is one that names a model and a body follows,
  the pod is chosen when the body is complete; every other request passes through to a ready pod.
- Whatever happens, the headers that only this service may set leave this session removed or
  overwritten: on the first answer that can change headers, before any pod is known.
- The body is complete: BUFFERED, at the first body message (its ``end_of_stream`` is false if
  trailers follow); BUFFERED_PARTIAL, likewise, cut or not; STREAMED and FULL_DUPLEX_STREAMED, at
  the first ``end_of_stream`` or at the trailers. Pieces after that are ignored: Envoy 1.35 and
  later can deliver the last one twice (envoyproxy/envoy#46237).
- Headers can be changed in the answer to the body only if Envoy has not sent them on. So in the
  buffered modes the headers are answered at once and changed with the body; in the streamed ones
  that answer waits for the body. Where Envoy would wait for it and send no body (STREAMED without
  ``send_body_without_waiting_for_header_response``, NONE), BUFFERED is asked for instead, which
  needs ``allow_mode_override``.
- In FULL_DUPLEX_STREAMED every piece of a body must be sent back, or it is lost.
- The stream stays open until the HTTP exchange ends, and so does the reservation: it is released
  in ``end``, exactly once. A request that was refused has none.
- A message out of order ends the stream with a status that says so. No exception leaves a session.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from uuid import uuid4

from google.protobuf.message import DecodeError

from lora_router.extproc import answers, messages
from lora_router.extproc.body import BodyError, BodyErrorKind, InferencePaths, read_body
from lora_router.extproc.errors import (
    ErrorAnswer,
    body_answer,
    cut_body_answer,
    refusal_answer,
    too_large_answer,
)
from lora_router.extproc.messages import HeaderNames, RequestHeaders, Setup
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.wire_format import Message, body_message, first_message
from lora_router.routing.director import DecisionObserver, Director, Held, Routed, RouteQuery
from lora_router.routing.refusal import Refused

log = logging.getLogger("lora_router.extproc")

INVALID_ARGUMENT = 3
FAILED_PRECONDITION = 9
INTERNAL = 13
"""gRPC status codes (grpc/doc/statuscodes.md)."""

HOLD_MARGIN_SECONDS = 2.0
"""What Envoy is asked to wait beyond the longest hold, so that our answer comes first."""

_PARTIAL = ProcessingMode.BUFFERED_PARTIAL
_FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED


@dataclass(frozen=True, slots=True)
class EndStream:
    """End the stream with this gRPC status. Nothing can be sent after it."""

    code: int
    message: str


Output = bytes | EndStream
"""A message to be sent, or the end."""


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What all sessions of a server share."""

    director: Director
    observer: DecisionObserver
    paths: InferencePaths
    headers: HeaderNames
    max_body_bytes: int


class _State(Enum):
    START = auto()
    """Nothing was received."""
    BODY = auto()
    """The body names the model, and is not complete."""
    HELD = auto()
    """The body is complete, and the pod not chosen."""
    ANSWERED = auto()
    """The pod is chosen. What still comes is passed on as it is."""
    OVER = auto()
    """The request was refused or the stream has ended. What still comes is ignored."""


# A member of an enumeration is looked up in its class each time that it is named.
_START, _BODY, _HELD, _ANSWERED, _OVER = _State


class Session:
    """One stream's conversation. See the head of this file for its rules."""

    __slots__ = (
        "_body_ended",
        "_context",
        "_head",
        "_headers_answered",
        "_held",
        "_on_late",
        "_pieces",
        "_routed",
        "_setup",
        "_size",
        "_state",
        "_trailers_wait",
    )

    def __init__(
        self, context: SessionContext, on_late: Callable[[Sequence[Output]], None]
    ) -> None:
        """Start a conversation.

        Args:
            context: What all sessions share.
            on_late: Takes what is to be sent when a held request is decided, which no message
                from Envoy brings about.
        """
        self._context = context
        self._on_late = on_late
        self._state = _START
        self._head: RequestHeaders
        self._setup: Setup
        self._headers_answered = False
        self._body_ended = False
        self._trailers_wait = False
        self._pieces: list[Message] = []
        self._size = 0
        self._held: Held | None = None
        self._routed: Routed | None = None

    @property
    def routed(self) -> Routed | None:
        """The decision, once there is one."""
        return self._routed

    def receive(self, message: Message) -> Sequence[Output]:
        """Take a message from Envoy; return what to send, in order, maybe nothing.

        Args:
            message: Is the session's from now on: a ``bytearray`` may be changed.
        """
        state = self._state
        if state is _OVER:
            return ()
        try:
            if state is _START:
                first = first_message(message, self._context.headers)
                if first is not None:
                    return self._begin(*first)
            else:
                piece = body_message(message)
                if piece is not None:
                    return self._request_body(*piece)
            return self._receive(ProcessingRequest.FromString(message))  # type: ignore[arg-type]  # any buffer
        except DecodeError:
            self.end()
            return (EndStream(INVALID_ARGUMENT, "lora-router: not a ProcessingRequest"),)
        except Exception:
            log.exception("a session failed; its stream is ended")
            self.end()
            return (EndStream(INTERNAL, "lora-router: internal error"),)

    def end(self) -> None:
        """Take the end of the stream, however it came: gives back what the request holds."""
        self._state = _OVER
        self._pieces.clear()
        if self._held is not None:
            self._held.cancel()
            self._held = None
        if self._routed is not None:
            self._routed.reservation.release()

    # The messages

    def _receive(self, request: ProcessingRequest) -> Sequence[Output]:
        kind = request.WhichOneof("request")
        if self._state is _START:
            if kind != "request_headers":
                return self._wrong(f"the first message must be request_headers, not {kind}")
            headers = request.request_headers
            head = messages.read_head(headers.headers, self._context.headers)
            return self._begin(head, headers.end_of_stream, messages.read_setup(request))
        if request.observability_mode:
            return ()
        match kind:
            case "request_body":
                body = request.request_body
                return self._request_body(body.body, body.end_of_stream)
            case "request_trailers":
                return self._request_trailers()
            case "response_headers":
                return (answers.CONTINUE_RESPONSE_HEADERS,)
            case "response_body":
                body = request.response_body
                if self._setup.response_body_mode != _FULL_DUPLEX:
                    return (answers.CONTINUE_RESPONSE_BODY,)
                return (answers.response_body_piece(body.body, end_of_stream=body.end_of_stream),)
            case "response_trailers":
                return (answers.CONTINUE_RESPONSE_TRAILERS,)
            case "request_headers":
                return self._wrong("request_headers came twice")
        return self._wrong("a message is of no kind that this server knows")

    def _begin(self, head: RequestHeaders, ends: bool, setup: Setup) -> Sequence[Output]:
        if setup.only_tells:
            self.end()
            return ()
        context = self._context
        self._head, self._setup = head, setup
        if ends or not context.paths.match(head.path):
            self._body_ended = ends
            return self._decided(context.director.pass_through(setup.subset))
        if head.content_length is not None and head.content_length > context.max_body_bytes:
            return self._too_large()
        self._state = _BODY
        if setup.collects:
            return ()
        self._headers_answered = True
        if setup.headers_wait:
            return (answers.clearing(context.headers, setup.response_body_mode),)
        return (answers.clearing(context.headers),)

    def _request_body(self, piece: Message, ends: bool) -> Sequence[Output]:
        if self._body_ended:
            return ()
        whole = ends or not self._setup.collects
        if self._state is _ANSWERED:
            # A pass-through request has no model to look for.
            self._body_ended = ends
            return (self._pass_on(piece, ends),)
        self._size += len(piece)
        if self._size > self._context.max_body_bytes:
            return self._too_large()
        self._pieces.append(piece)
        if not whole:
            return ()
        self._body_ended = True
        return self._decide(cut_short=not ends)

    def _request_trailers(self) -> Sequence[Output]:
        if self._state is _BODY and not self._body_ended:
            self._body_ended = True
            self._trailers_wait = True
            return self._decide(cut_short=False)
        if self._state is _HELD:
            self._trailers_wait = True
            return ()
        self._body_ended = True
        return (answers.CONTINUE_TRAILERS,)

    # Deciding

    def _decide(self, *, cut_short: bool) -> Sequence[Output]:
        head = self._head
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        try:
            fields = read_body(body, head.content_type)
        except BodyError as error:
            return self._bad_body(error, cut_short=cut_short)
        if self._headers_answered:
            self._pieces.clear()
        elif self._setup.body_mode != _FULL_DUPLEX:
            self._pieces = [b""] * len(self._pieces)  # Only their number is still of use.
        query = RouteQuery(
            fields.model,
            fields.stream,
            fields.size,
            head.path,
            head.request_id,
            head.strategy,
            head.pod_filter,
            self._setup.subset,
        )
        outcome = self._context.director.route(query, self._decided_late)
        if isinstance(outcome, Held):
            self._held = outcome
            self._state = _HELD
            return (answers.more_time(outcome.seconds + HOLD_MARGIN_SECONDS),)
        return self._decided(outcome)

    def _decided_late(self, outcome: Routed | Refused) -> None:
        self._held = None
        try:
            outputs = self._decided(outcome)
        except Exception:
            log.exception("a held request could not be answered; its stream is ended")
            self.end()
            outputs = (EndStream(INTERNAL, "lora-router: internal error"),)
        self._on_late(outputs)

    def _decided(self, outcome: Routed | Refused) -> Sequence[Output]:
        if isinstance(outcome, Refused):
            return self._refuse(refusal_answer(outcome, self._head.strategy))
        self._routed = outcome
        self._state = _ANSWERED
        answer = self._route_answer(outcome)
        if self._headers_answered and not self._trailers_wait:
            return (answer,)
        outputs: list[Output] = [answer]
        if not self._headers_answered:
            outputs += self._collected_again()
            self._pieces.clear()
        if self._trailers_wait:
            outputs.append(answers.CONTINUE_TRAILERS)
        return outputs

    def _route_answer(self, routed: Routed) -> bytes:
        said = (
            self._context.headers,
            routed.address,
            routed.algorithm,
            routed.model,
            self._headers_answered,
        )
        if self._head.request_id:
            return answers.chosen_again(*said)
        return answers.chosen(*said, str(uuid4()))

    def _collected_again(self) -> list[Output]:
        """Answer the body pieces that were collected while the headers waited, one by one."""
        last = len(self._pieces) - 1
        return [
            self._pass_on(piece, number == last and not self._trailers_wait)
            for number, piece in enumerate(self._pieces)
        ]

    def _pass_on(self, piece: Message, end_of_stream: bool) -> bytes:
        if self._setup.body_mode == _FULL_DUPLEX:
            return answers.body_piece(bytes(piece), end_of_stream=end_of_stream)
        return answers.CONTINUE_BODY

    # Refusing

    def _bad_body(self, error: BodyError, *, cut_short: bool) -> Sequence[Output]:
        if cut_short and error.kind is BodyErrorKind.MALFORMED:
            if self._setup.headers_wait:
                # Envoy ignored the request for the whole body; the start of it is all there is.
                log.error(
                    "Envoy sends request bodies in pieces before the headers are answered; set "
                    "request_body_mode BUFFERED, or allow_mode_override, in its ext_proc filter"
                )
            if self._setup.body_mode == _PARTIAL:
                self._context.observer.decided("none", "refused", "body-too-large", 0.0)
                return self._refuse(cut_body_answer())
        self._context.observer.decided("none", "refused", error.kind.value, 0.0)
        return self._refuse(body_answer(error))

    def _too_large(self) -> Sequence[Output]:
        self._context.observer.decided("none", "refused", "body-too-large", 0.0)
        return self._refuse(too_large_answer(self._context.max_body_bytes))

    def _refuse(self, answer: ErrorAnswer) -> Sequence[Output]:
        self.end()
        return (answers.immediate(answer),)

    def _wrong(self, message: str) -> Sequence[Output]:
        self.end()
        return (EndStream(FAILED_PRECONDITION, f"lora-router: {message}"),)
