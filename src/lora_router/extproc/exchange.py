"""The actions of a session: what it does about each event. ``session`` defines when.

The rules:

- The headers that only the router may set are removed or overwritten in every case, with the first
  answer that can change headers, before the pod is known.
- The answer to the body can change headers only if Envoy has not forwarded them. Therefore, in the
  buffered modes, the headers are answered at once and changed with the body. In the streamed modes,
  the answer to the headers waits for the body. In some modes Envoy would wait for that answer
  without sending a body (NONE, and STREAMED without
  ``send_body_without_waiting_for_header_response``). In those modes the router requests BUFFERED,
  which requires ``allow_mode_override``.
- In FULL_DUPLEX_STREAMED mode, every piece of a body must be sent back. Otherwise it is lost.
- ``end`` releases the reservation exactly once. A refused request has no reservation.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from lora_router.extproc import answers
from lora_router.extproc.body import BodyError, BodyErrorKind, InferencePaths, read_body
from lora_router.extproc.collected_body import CollectedBody
from lora_router.extproc.errors import (
    ErrorAnswer,
    body_answer,
    cut_body_answer,
    refusal_answer,
    too_large_answer,
)
from lora_router.extproc.events import (
    Event,
    Message,
    Observation,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from lora_router.extproc.gateway_faults import GatewayFaults
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.outputs import EndStream, Output, Outputs
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.routed_answer import encode_routed
from lora_router.extproc.states import (
    ANSWERED,
    HELD,
    HELD_WITH_TRAILERS,
    OVER,
    PASSING,
    PIECES,
    ROUTED,
    START,
    WHOLE_BODY,
    State,
)
from lora_router.extproc.stream_setup import Setup
from lora_router.fleet.answer import Answer
from lora_router.grpc_server.status import INTERNAL
from lora_router.log_limit import LogLimit
from lora_router.routing.director import Director
from lora_router.routing.outcome import DecisionObserver, Routed, RouteQuery
from lora_router.routing.refusal import Refused
from lora_router.routing.waiting_queue import Held
from lora_router.telemetry.answer_counts import AnswerCounts

log = logging.getLogger("lora_router.extproc")

HOLD_MARGIN_SECONDS = 2.0
"""Added to the time that Envoy is asked to wait for a held request, so that the router answers
before Envoy's timeout."""

_RESPONSE_HEADERS_PASS = (answers.CONTINUE_RESPONSE_HEADERS,)
_REDIRECTION = 300
"""Statuses below are successes."""
_PARTIAL = ProcessingMode.BUFFERED_PARTIAL
_FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What all sessions of a server share."""

    director: Director
    observer: DecisionObserver
    paths: InferencePaths
    headers: HeaderNames
    max_body_bytes: int
    answers: AnswerCounts = field(default_factory=AnswerCounts)
    gateway: GatewayFaults = field(default_factory=GatewayFaults)
    log_limit: LogLimit = field(default_factory=LogLimit)


class Exchange:
    """One HTTP request and its response. See the head of this file for the rules."""

    __slots__ = (
        "_answer",
        "_collected",
        "_headers",
        "_held",
        "_on_late",
        "_routed",
        "_setup",
        "_since",
        "context",
        "state",
    )

    def __init__(self, context: SessionContext, on_late: Callable[[Outputs], None]) -> None:
        """Create the exchange of a new stream.

        Args:
            context: What all sessions share.
            on_late: Called with what to send when a held request is decided, which is not the
                result of a message from Envoy.
        """
        self.context = context
        self.state: State = START
        self._on_late = on_late
        self._headers: RequestHeaders
        self._setup: Setup
        self._collected: CollectedBody | None = None
        """Set while the headers are unanswered. The pieces are answered after the headers."""
        self._held: Held | None = None
        self._routed: Routed | None = None
        self._answer: Answer | None = None
        """How the answer to the routed request began."""
        self._since = 0.0
        """When the stream began to wait for the end of an answer that takes time; 0: it did not."""

    def end(self) -> None:
        """Handle the end of the stream: release everything that the request holds."""
        self.state = OVER
        self._collected = None
        if self._held is not None:
            self._held.cancel()
            self._held = None
        routed = self._routed
        if routed is not None and routed.reservation.release():
            self._judge_end(routed)

    def end_stream(self, code: int, message: str) -> Outputs:
        """End the stream with a gRPC status."""
        self.end()
        return (EndStream(code, f"lora-router: {message}"),)

    def _judge_end(self, routed: Routed) -> None:
        """Report what the end of a routed request shows about the gateway."""
        gateway = self.context.gateway
        if self._answer is None and routed.model:
            gateway.ended_unseen()
        if self._since:
            gateway.stream_ended(self._setup.body_mode, gateway.now() - self._since)

    # The request

    def begin(self, headers: RequestHeaders) -> Outputs:
        """Handle the request headers."""
        context, setup = self.context, headers.setup
        self._headers, self._setup = headers, setup
        if headers.ends or not context.paths.match(headers.path):
            return self._pass_through(headers)
        if headers.content_length is not None and headers.content_length > context.max_body_bytes:
            return self._too_large()
        if setup.collects:
            self.state = PIECES
            self._collected = CollectedBody()
            return ()
        self.state = WHOLE_BODY
        return (answers.clearing(context.headers, setup.body_mode, setup.response_body_mode),)

    def take_whole_body(self, body: RequestBody) -> Outputs:
        """Handle a body that arrives in one message."""
        if len(body.body) > self.context.max_body_bytes:
            return self._too_large()
        return self._decide(body.body, cut_short=not body.ends)

    def decide_without_body(self, _trailers: RequestTrailers) -> Outputs:
        """Handle trailers that arrive instead of the body."""
        return self._decide(b"", trailers=True)

    def collect(self, piece: RequestBody) -> Outputs:
        """Handle a piece of the body."""
        collected = self._collected
        assert collected is not None  # noqa: S101 -- made when this state was entered
        collected.add(piece.body)
        if collected.size > self.context.max_body_bytes:
            return self._too_large()
        return self._decide(collected.whole()) if piece.ends else ()

    def decide_at_trailers(self, _trailers: RequestTrailers) -> Outputs:
        """Handle trailers that complete the body."""
        assert self._collected is not None  # noqa: S101 -- made when this state was entered
        return self._decide(self._collected.whole(), trailers=True)

    def pass_piece(self, piece: RequestBody) -> Outputs:
        """Forward a piece of a body that the router does not read."""
        if piece.ends:
            self.state = ROUTED
        return (self._piece_answer(piece.body, ends=piece.ends),)

    def pass_trailers(self, _trailers: RequestTrailers) -> Outputs:
        """Forward the trailers."""
        self.state = ROUTED
        return (answers.CONTINUE_TRAILERS,)

    def defer_trailers(self, _trailers: RequestTrailers) -> Outputs:
        """Answer the trailers later, when the held request gets a pod."""
        self.state = HELD_WITH_TRAILERS
        return ()

    def ignore(self, _event: Event) -> Outputs:
        """Answer nothing."""
        return ()

    def observe(self, _event: Observation) -> Outputs:
        """Answer nothing for the rest of the stream."""
        self.end()
        return ()

    # The response

    def record_answer(self, event: ResponseHeaders) -> Outputs:
        """Record how the answer to a routed request begins."""
        routed = self._routed
        if routed is not None and self._answer is None and event.is_final:
            self._answer = answer = event.answer
            context = self.context
            gateway = context.gateway
            if gateway.unseen:
                gateway.answer_seen()
            takes_time = event.event_stream and not event.ends and answer.status < _REDIRECTION
            self._since = gateway.now() if takes_time else 0.0
            context.answers.answered(answer)
            try:
                routed.reservation.answered(answer)
            except Exception as error:  # Whatever an answer shows, its client gets it.
                self._log("failed to record an answer", error)
        return _RESPONSE_HEADERS_PASS

    def abandon_at_response_headers(self, event: ResponseHeaders) -> Outputs:
        """Give the request up, because the response began before a pod was picked."""
        if event.is_final:
            self._abandon(event.response_body_mode)
        return _RESPONSE_HEADERS_PASS

    def abandon_at_response_body(self, piece: ResponseBody) -> Outputs:
        """Give the request up, where Envoy does not send response headers."""
        self._abandon(piece.response_body_mode)
        return self.pass_response_body(piece)

    def abandon_at_response_trailers(self, trailers: ResponseTrailers) -> Outputs:
        """Give the request up, where Envoy sends only response trailers."""
        self._abandon()
        return self.pass_response_trailers(trailers)

    def pass_response_headers(self, _event: ResponseHeaders) -> Outputs:
        """Let the message pass unchanged."""
        return _RESPONSE_HEADERS_PASS

    def pass_response_body(self, piece: ResponseBody) -> Outputs:
        """Let the message pass unchanged."""
        if self._setup.response_body_mode != _FULL_DUPLEX:
            return (answers.CONTINUE_RESPONSE_BODY,)
        return (answers.response_body_piece(piece.body, end_of_stream=piece.ends),)

    def pass_response_trailers(self, _trailers: ResponseTrailers) -> Outputs:
        """Let the message pass unchanged."""
        return (answers.CONTINUE_RESPONSE_TRAILERS,)

    def _abandon(self, response_body_mode: int = ProcessingMode.NONE) -> None:
        if self.state is START:
            self._setup = Setup(response_body_mode=response_body_mode)
        self.end()
        self.state = ANSWERED

    # Deciding

    def _pass_through(self, headers: RequestHeaders) -> Outputs:
        outcome = self.context.director.pass_through(headers.setup.subset)
        if isinstance(outcome, Refused):
            return self._refused(outcome)
        self._routed = outcome
        self.state = ROUTED if headers.ends else PASSING
        answer = encode_routed(
            self.context.headers, outcome, to_body=False, has_id=bool(headers.request_id)
        )
        setup = headers.setup
        if setup.collects:
            return (answer,)
        return (answer + answers.asked_modes(setup.body_mode, setup.response_body_mode),)

    def _decide(self, body: Message, *, cut_short: bool = False, trailers: bool = False) -> Outputs:
        headers, setup = self._headers, self._setup
        try:
            fields = read_body(body, headers.content_type)
        except BodyError as error:
            return self._bad_body(error, cut_short=cut_short)
        if self._collected is not None and setup.body_mode != _FULL_DUPLEX:
            self._collected.forget_contents()
        query = RouteQuery(
            fields.model,
            fields.stream,
            fields.size,
            headers.path,
            headers.request_id,
            headers.strategy,
            headers.pod_filter,
            setup.subset,
        )
        outcome = self.context.director.route(query, self._decided_late)
        if isinstance(outcome, Held):
            self._held = outcome
            self.state = HELD_WITH_TRAILERS if trailers else HELD
            return (answers.more_time(outcome.seconds + HOLD_MARGIN_SECONDS),)
        return self._decided(outcome, trailers=trailers)

    def _decided_late(self, outcome: Routed | Refused) -> None:
        self._held = None
        try:
            outputs = self._decided(outcome, trailers=self.state is HELD_WITH_TRAILERS)
        except Exception as error:
            self._log("answering a held request failed; its stream is closed with INTERNAL", error)
            outputs = self.end_stream(INTERNAL, "internal error")
        self._on_late(outputs)

    def _decided(self, outcome: Routed | Refused, *, trailers: bool) -> Outputs:
        if isinstance(outcome, Refused):
            return self._refused(outcome)
        self._routed = outcome
        if outcome.reservation.streamed:
            self._since = self.context.gateway.now()
        self.state = ROUTED
        collected, self._collected = self._collected, None
        answer = encode_routed(
            self.context.headers,
            outcome,
            to_body=collected is None,
            has_id=bool(self._headers.request_id),
        )
        if collected is None and not trailers:
            return (answer,)
        outputs: list[Output] = [answer]
        if collected is not None:
            last = len(collected.pieces) - 1
            outputs += [
                self._piece_answer(piece, ends=number == last and not trailers)
                for number, piece in enumerate(collected.pieces)
            ]
        if trailers:
            outputs.append(answers.CONTINUE_TRAILERS)
        return outputs

    def _piece_answer(self, piece: Message, *, ends: bool) -> bytes:
        if self._setup.body_mode == _FULL_DUPLEX:
            return answers.body_piece(bytes(piece), end_of_stream=ends)
        return answers.CONTINUE_BODY

    # Refusing

    def _refused(self, refused: Refused) -> Outputs:
        return self._answer_client(refusal_answer(refused, self._headers.strategy))

    def _bad_body(self, error: BodyError, *, cut_short: bool) -> Outputs:
        unfinished = cut_short and error.kind is BodyErrorKind.MALFORMED
        if unfinished and self._setup.headers_wait:
            # Envoy ignored the mode override, so only the start of the body is here.
            self._log(
                "Envoy ignored the mode override to BUFFERED and sent the request body in pieces; "
                "set request_body_mode: BUFFERED, or allow_mode_override: true, in its filter"
            )
        if unfinished and self._setup.body_mode == _PARTIAL:
            return self._refuse("body-too-large", cut_body_answer())
        return self._refuse(error.kind.value, body_answer(error))

    def _too_large(self) -> Outputs:
        return self._refuse("body-too-large", too_large_answer(self.context.max_body_bytes))

    def _refuse(self, reason: str, answer: ErrorAnswer) -> Outputs:
        """Refuse a request that never reached the director."""
        self.context.observer.decided("none", "refused", reason, 0.0)
        return self._answer_client(answer)

    def _answer_client(self, answer: ErrorAnswer) -> Outputs:
        self.end()
        return (answers.immediate(answer),)

    def _log(self, message: str, error: Exception | None = None) -> None:
        """Log an error that every request may have, at a limited rate."""
        self.context.log_limit.log(log, logging.ERROR, message, message, exc_info=error)
