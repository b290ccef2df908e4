"""What a session does about the response, and about the end of its stream.

A response may begin at any time. The router records how the answer to a routed request begins.
Headers tell the client about its request (``client_headers``). Otherwise messages pass unchanged,
unless the name of the model is to be the client's (``answer_names``). Bodies are read only where
they contain IDs (``id_search``) or state numbers of tokens (``usage_side``).
"""

import logging
from collections.abc import Callable
from typing import Protocol
from uuid import uuid4

from lora_router.extproc import answers
from lora_router.extproc.answer_names import AnswerNames, is_named
from lora_router.extproc.body_pieces import response_piece, response_pieces
from lora_router.extproc.client_headers import tell_decision, tell_request_id
from lora_router.extproc.collected_body import CollectedBody
from lora_router.extproc.context import SessionContext
from lora_router.extproc.events import (
    Event,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from lora_router.extproc.id_search import IdSearch
from lora_router.extproc.outputs import EndStream, Outputs
from lora_router.extproc.path_rules import PathRule
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.renamed import FELL_BACK, Original, answer_in_pieces, answer_piece
from lora_router.extproc.states import ANSWERED, OVER, START, UNDECIDED, State
from lora_router.extproc.stream_setup import Setup
from lora_router.extproc.usage_metadata import with_metadata
from lora_router.extproc.usage_side import UsageSide
from lora_router.fleet.answer import Answer
from lora_router.grpc_server.status import INTERNAL
from lora_router.routing.model_names import Special
from lora_router.routing.outcome import Routed

log = logging.getLogger("lora_router.extproc")

_RESPONSE_HEADERS_PASS: tuple[bytes, ...] = (answers.CONTINUE_RESPONSE_HEADERS,)
_REDIRECTION = 300
"""Statuses below are successes."""
_UNAVAILABLE = 503
_FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED


class Waits(Protocol):
    """A request that waits in the router."""

    def cancel(self) -> None:
        """Forget the request, because its client has left. Does nothing the second time."""


class ResponseSide(UsageSide):
    """The state of one HTTP exchange, and the actions that concern its response and its end."""

    __slots__ = (
        "_answer",
        "_answer_names",
        "_collected",
        "_held",
        "_on_late",
        "_original",
        "_routed",
        "_search",
        "_setup",
        "_since",
        "_stores",
        "state",
        "was_reset",
    )

    def __init__(self, context: SessionContext, on_late: Callable[[Outputs], None]) -> None:
        """Create the exchange of a new stream.

        Args:
            context: What all sessions share.
            on_late: Called with what to send when a held request is decided, which is not the
                result of a message from Envoy.
        """
        super().__init__(context)
        self.state: State = START
        self.was_reset = False
        """Whether the gateway reset the stream, and did not half-close it before. A transport that
        can tell sets it before ``end``."""
        self._on_late = on_late
        self._setup: Setup
        self._collected: CollectedBody | None = None
        """Set while the headers are unanswered. The pieces are answered after the headers."""
        self._original: Original | None = None
        """What the request says of its model, if its pod may be asked for another."""
        self._answer_names: AnswerNames | None = None
        """Puts the client's name of the model back into the answer."""
        self._held: Waits | None = None
        self._routed: Routed | None = None
        self._answer: Answer | None = None
        """How the answer to the routed request began."""
        self._since = 0.0
        """When the stream began to wait for the end of an answer that takes time; 0: it did not."""
        self._stores = True
        """Whether the pod may keep its answer under an ID. The body can say that it must not."""
        self._search: IdSearch | None = None
        """Set while the ID in the answer is looked for."""

    def end(self) -> None:
        """Handle the end of the stream: release everything that the request holds."""
        self.state = OVER
        self._collected = self._original = self._asked = None
        if self._held is not None:
            self._held.cancel()
            self._held = None
        routed = self._routed
        if routed is not None and routed.reservation.release():
            self._judge_end(routed)
        if self._arrived_at is not None:
            self._note_end()

    def end_stream(self, code: int, message: str, state: State | None = None) -> Outputs:
        """End the stream with a gRPC status, and answer the client if nothing is decided.

        Args:
            code: The status.
            message: What the status says.
            state: The state before what ends the stream, if that may have changed it.
        """
        answer = b""
        if (self.state if state is None else state) in UNDECIDED:
            answer = self._answer_to_failure()
        self._note_cut(code, _UNAVAILABLE if answer else 0)
        self.end()
        return (EndStream(code, f"lora-router: {message}", answer),)

    def _answer_to_failure(self) -> bytes:
        """Return what the client is told whose request is not decided, for a fault."""
        raise NotImplementedError

    def _make_id(self) -> str:
        """Give the request an ID, because it has none. Return the ID."""
        if not self._made_id:
            self._made_id = str(uuid4())
            if self._decision is not None:
                self._decision.request_id = self._made_id
        return self._made_id

    def _judge_end(self, routed: Routed) -> None:
        """Report what the end of a routed request shows about the gateway."""
        gateway = self.context.gateway
        if self._answer is None and routed.model:
            gateway.ended_unseen()
        search = self._search if self._usage is None else self._usage
        if search is not None and not search.began:
            gateway.ended_without_body(event_stream=bool(self._since))
        if self._usage is not None:
            self._count_usage(self._usage, routed)
        if self._since:
            gateway.stream_ended(
                self._setup.body_mode, gateway.now() - self._since, is_reset=self.was_reset
            )

    def ignore(self, _event: Event) -> Outputs:
        """Answer nothing."""
        return ()

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
            if self._decision is not None:
                self._note_answer(self._decision, routed, answer)
            passes = self._told()
            if routed.special is not None:
                passes += self._special_answer(routed, answer)
            if self._answer_names is not None:
                passes = self._name_as_asked(event, passes)
            rule = self._place.rule
            if rule is not None and rule.makes_ids and self._stores and not event.ends:
                reads = self._look_for_ids(rule, event)
            else:
                reads = False
            if context.usage is not None and routed.model:
                reads = self._begin_usage(context.usage, event, rule) or reads
            if reads:
                passes += self._with_body()
            return (passes,)
        return _RESPONSE_HEADERS_PASS

    def _told(self) -> bytes:
        """Return the answer to the headers of a response, with what the client is told."""
        told = tell_request_id(self._headers.request_id or self._made_id)
        if self._decision is not None and self.context.tells_decisions:
            told += tell_decision(self._decision)
        return told or answers.CONTINUE_RESPONSE_HEADERS

    def _special_answer(self, routed: Routed, answer: Answer) -> bytes:
        """Handle the beginning of the answer to a request whose model no pod in use lists.

        Returns:
            What is added to the answer to its headers.
        """
        if routed.special is Special.FELL_BACK:
            return FELL_BACK
        try:
            self.context.director.names.answered(routed.reservation, answer)
        except Exception as error:  # Whatever an answer shows, its client gets it.
            self._log("failed to learn from an answer", error)
        return b""

    def _name_as_asked(self, event: ResponseHeaders, passes: bytes) -> bytes:
        """Ask Envoy for the body of an answer in which the name of the model is replaced."""
        if event.ends or not is_named(event.content_type):
            self._answer_names = None
            return passes
        modes = b""
        if self._setup.response_body_mode == ProcessingMode.NONE:
            modes = answers.asked_modes(self._setup.body_mode, ProcessingMode.STREAMED)
        return answer_in_pieces(passes, modes)

    def _look_for_ids(self, rule: PathRule, event: ResponseHeaders) -> bool:
        """Return whether the body of an answer is needed, because it has IDs that the pod made."""
        if event.answer.status >= _REDIRECTION:
            return False
        self._search = IdSearch(rule.makes_ids, event_stream=event.event_stream)
        return True

    def _with_body(self) -> bytes:
        """Ask Envoy for the body of an answer.

        Envoy takes modes only with answers to headers. So it sends the whole body, each piece as it
        arrives, and the router cannot stop it after the first one.

        Returns:
            What is added to the answer to the headers.
        """
        if self._setup.response_body_mode != ProcessingMode.NONE:
            return b""  # It comes unasked.
        return answers.asked_modes(self._setup.body_mode, ProcessingMode.STREAMED)

    def abandon_at_response_headers(self, event: ResponseHeaders) -> Outputs:
        """Give the request up, because the response began before a pod was picked."""
        if event.is_final:
            self._note_other_answer(event.answer)
            self._abandon(event.response_body_mode)
        return _RESPONSE_HEADERS_PASS

    def abandon_at_response_body(self, piece: ResponseBody) -> Outputs:
        """Give the request up, where Envoy does not send response headers."""
        self._note_other_answer(None)
        self._abandon(piece.response_body_mode)
        return self.pass_response_body(piece)

    def abandon_at_response_trailers(self, trailers: ResponseTrailers) -> Outputs:
        """Give the request up, where Envoy sends only response trailers."""
        self._note_other_answer(None)
        self._abandon()
        return self.pass_response_trailers(trailers)

    def pass_response_headers(self, _event: ResponseHeaders) -> Outputs:
        """Let the message pass unchanged."""
        return _RESPONSE_HEADERS_PASS

    def pass_response_body(self, piece: ResponseBody) -> Outputs:
        """Let a piece of the body pass, with the client's name of the model if it asked for one."""
        if self._usage is None:
            return self._pass_piece(piece)
        stated = self._read_usage(self._usage, piece.body, ends=piece.ends)
        return with_metadata(self._pass_piece(piece), stated)

    def _pass_piece(self, piece: ResponseBody) -> Outputs:
        if self._search is not None:
            self._look_at(piece, self._search)
        body = piece.body
        if self._answer_names is not None:
            body = self._answer_names.add(body, ends=piece.ends)
        setup = self._setup
        if setup.response_body_mode == _FULL_DUPLEX:
            return response_pieces(body, ends=piece.ends)
        if not setup.is_told and setup.collects:
            return (response_piece(body, ends=piece.ends),)
        if body == piece.body:
            return (answers.CONTINUE_RESPONSE_BODY,)
        return (answer_piece(bytes(body)),)

    def pass_response_trailers(self, _trailers: ResponseTrailers) -> Outputs:
        """Let the message pass unchanged."""
        stated = b"" if self._usage is None else self._end_usage(self._usage)
        return (stated + answers.CONTINUE_RESPONSE_TRAILERS,)

    def _look_at(self, piece: ResponseBody, search: IdSearch) -> None:
        """Learn the IDs in the first bytes of an answer."""
        context = self.context
        if not search.began:
            context.gateway.body_seen()
        routed = self._routed
        names = search.add(piece.body)
        if names is not None or piece.ends:
            self._search = None
            if routed is not None:
                for name in names or ():
                    context.ids.made.learn(name, routed.reservation.state)

    def _abandon(self, response_body_mode: int = ProcessingMode.NONE) -> None:
        if self.state is START:
            told = response_body_mode != ProcessingMode.NONE
            self._setup = Setup(
                is_told=told, collects=not told, response_body_mode=response_body_mode
            )
        self.end()
        self.state = ANSWERED

    def _send_late(self, make: Callable[[], Outputs]) -> None:
        """Send what a request gets that waited, which is not the result of a message from Envoy."""
        self._held, state = None, self.state
        try:
            outputs = make()
        except Exception as error:
            self._log("answering a held request failed; its stream is closed with INTERNAL", error)
            outputs = self.end_stream(INTERNAL, "internal error", state)
        self._on_late(outputs)

    def _log(self, message: str, error: Exception | None = None) -> None:
        """Log an error that every request may have, at a limited rate."""
        self.context.log_limit.log(log, logging.ERROR, message, message, exc_info=error)
