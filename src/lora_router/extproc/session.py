"""The ext_proc session of one HTTP request, without I/O.

A transport passes each message of a stream to ``receive`` and the end of the stream to ``end``. The
session returns what to send. It does not know its transport. ``TABLE`` defines which events may
occur in each state, what each event causes, and which states may follow. ``exchange`` contains the
actions. The rules:

- Envoy sends ``request_headers`` first. If the body may name the model (``path_rules``), the pod is
  picked when the body is complete. In all other cases it is picked at once, unless the path is
  refused.
- In BUFFERED mode, the body is complete at the first body message. Its ``end_of_stream`` is false
  if trailers follow. In BUFFERED_PARTIAL mode it is also the first body message, which may be cut
  short. In STREAMED and FULL_DUPLEX_STREAMED mode, the body is complete at the first
  ``end_of_stream``, at the trailers, or when nothing can follow (``body_arrival``). After the first
  ``end_of_stream``, pieces are ignored, because Envoy 1.35 and later can deliver the last piece
  twice (envoyproxy/envoy#46237).
- Without ``protocol_config``, the body may arrive in either way. PIECES becomes WHOLE_BODY without
  an event if no body arrives in time, and WHOLE_BODY becomes PIECES if the first message does not
  contain the whole body.
- A held request leaves its state without an event: it becomes ROUTED when it gets a pod, and OVER
  when it is refused.
- The response may begin at any time, because Envoy or another filter may answer. If it begins
  before a pod is picked, the request is not routed and counts nowhere. If an earlier filter
  answers, the stream begins with the response.
- The stream stays open until the HTTP exchange ends. After a refusal the session answers nothing.
- An event that the table does not contain ends the stream with FAILED_PRECONDITION. A message that
  cannot be parsed ends it with INVALID_ARGUMENT. No exception leaves a session.
- Whatever ends the stream before the request is decided (``UNDECIDED``), the client is answered
  first. A gateway that fails open would otherwise forward the request as it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lora_router.extproc import answers
from lora_router.extproc.errors import overloaded_answer, refusal_answer
from lora_router.extproc.event_reader import UnreadableMessageError, read_event
from lora_router.extproc.events import (
    KINDS,
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
from lora_router.extproc.exchange import Exchange
from lora_router.extproc.outputs import EndStream, Outputs
from lora_router.extproc.own_answers import HOLD_MARGIN_SECONDS
from lora_router.extproc.states import (
    ANSWERED,
    HELD,
    HELD_WITH_TRAILERS,
    OVER,
    PASSING,
    PIECES,
    ROUTED,
    START,
    UNDECIDED,
    WHOLE_BODY,
    State,
)
from lora_router.grpc_server.status import (
    FAILED_PRECONDITION,
    INTERNAL,
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
)
from lora_router.routing.refusal import Refusal, Refused

_PIECES_ROOM = 16 * 1024
"""Bytes that the messages of a body may have beside the body."""
_BODY_ARRIVES = (START, WHOLE_BODY, PIECES)

Action = Callable[[Exchange, Any], Outputs]


@dataclass(frozen=True, slots=True)
class Step:
    """What an event causes in one state."""

    action: Action
    to: tuple[State, ...]
    """The states that may follow. Empty: the state does not change."""


def _step(action: Action, *to: State) -> Step:
    return Step(action, to)


_RESPONSE: Mapping[type[Event], Step] = {
    ResponseHeaders: _step(Exchange.pass_response_headers),
    ResponseBody: _step(Exchange.pass_response_body),
    ResponseTrailers: _step(Exchange.pass_response_trailers),
    Observation: _step(Exchange.ignore),
}
_ROUTED_RESPONSE = {**_RESPONSE, ResponseHeaders: _step(Exchange.record_answer)}


def _unrouted_response(state: State) -> Mapping[type[Event], Step]:
    """Return what a response causes that begins before a pod is picked."""
    return {
        ResponseHeaders: _step(Exchange.abandon_at_response_headers, state, ANSWERED),
        ResponseBody: _step(Exchange.abandon_at_response_body, ANSWERED),
        ResponseTrailers: _step(Exchange.abandon_at_response_trailers, ANSWERED),
        Observation: _step(Exchange.ignore),
    }


TABLE: Final[Mapping[State, Mapping[type[Event], Step]]] = {
    START: {
        RequestHeaders: _step(Exchange.begin, WHOLE_BODY, PIECES, HELD, PASSING, ROUTED, OVER),
        **_unrouted_response(START),
        Observation: _step(Exchange.observe, OVER),
    },
    WHOLE_BODY: {
        RequestBody: _step(Exchange.take_whole_body, PIECES, HELD, ROUTED, OVER),
        RequestTrailers: _step(Exchange.decide_without_body, OVER),
        **_unrouted_response(WHOLE_BODY),
    },
    PIECES: {
        RequestBody: _step(Exchange.collect, PIECES, HELD, PASSING, ROUTED, OVER),
        RequestTrailers: _step(Exchange.decide_at_trailers, HELD_WITH_TRAILERS, ROUTED, OVER),
        **_unrouted_response(PIECES),
    },
    HELD: {
        RequestBody: _step(Exchange.keep, HELD, OVER),
        RequestTrailers: _step(Exchange.defer_trailers, HELD_WITH_TRAILERS),
        **_unrouted_response(HELD),
    },
    HELD_WITH_TRAILERS: {
        RequestBody: _step(Exchange.ignore),
        RequestTrailers: _step(Exchange.ignore),
        **_unrouted_response(HELD_WITH_TRAILERS),
    },
    PASSING: {
        RequestBody: _step(Exchange.pass_piece, PASSING, ROUTED),
        RequestTrailers: _step(Exchange.pass_trailers, ROUTED),
        **_ROUTED_RESPONSE,
    },
    ROUTED: {
        RequestBody: _step(Exchange.ignore),
        RequestTrailers: _step(Exchange.pass_trailers),
        **_ROUTED_RESPONSE,
    },
    ANSWERED: {
        RequestBody: _step(Exchange.ignore),
        RequestTrailers: _step(Exchange.ignore),
        **_RESPONSE,
    },
    OVER: {},
}
"""The events that may occur in each state, and what they cause. Nothing is read in ``OVER``."""

_ACTIONS: Final = tuple(
    {event: step.action for event, step in TABLE[state].items()} for state in State
)


class Session(Exchange):
    """The session of one stream. See the head of this file for its rules."""

    __slots__ = ()

    def receive(self, message: Message) -> Outputs:
        """Handle a message from Envoy; return what to send.

        Args:
            message: Belongs to the session afterwards, so a ``bytearray`` may change.
        """
        state = self.state
        if state is OVER:
            return ()
        try:
            event = read_event(message, self.context.headers)
            action = _ACTIONS[state].get(type(event))
            if action is not None:
                return action(self, event)
            return self.end_stream(FAILED_PRECONDITION, _why_refused(state, event))
        except UnreadableMessageError:
            return self.end_stream(INVALID_ARGUMENT, "not a ProcessingRequest message")
        except Exception as error:
            self._log("an ext_proc session failed; its stream is closed with INTERNAL", error)
            return self.end_stream(INTERNAL, "internal error", state)

    def half_closed(self) -> Outputs:
        """Handle that the gateway has closed its side: it sends nothing more on this stream.

        Some gateways do so as soon as they have sent the request. Then the request is answered
        before the stream ends. A gateway that has lost its client resets the stream.

        Returns:
            What to send. The stream ends after that, or after late output while the session is
            held.
        """
        state = self.state
        try:
            return self.request_ended()
        except Exception as error:
            self._log("an ext_proc session failed; its stream is closed with INTERNAL", error)
            return self.end_stream(INTERNAL, "internal error", state)

    @property
    def is_held(self) -> bool:
        """Whether the answer to the request comes late."""
        return self.state in (HELD, HELD_WITH_TRAILERS)

    # The memory of the process

    @property
    def collected_bytes(self) -> int:
        """Bytes of the body that are kept."""
        original = self._original
        whole = 0 if original is None or original.body is None else len(original.body)
        return whole if self._collected is None else max(whole, self._collected.size)

    @property
    def expected_bytes(self) -> int:
        """Bytes that the messages of the body may have, while it is collected; otherwise 0."""
        if self.state is not PIECES:
            return 0
        length = self._headers.content_length
        return (self.context.max_body_bytes if length is None else length) + _PIECES_ROOM

    def delayed(self, seconds: float) -> Outputs:
        """Ask Envoy for the time that the body has to wait for memory, and may then be held.

        Envoy grants more time only once for each message.
        """
        if self.state not in _BODY_ARRIVES:
            return ()
        hold = self.context.director.max_hold_seconds
        return (answers.more_time(hold + HOLD_MARGIN_SECONDS + seconds),)

    def overloaded(self) -> Outputs:
        """Refuse the request, because there is no memory for its body."""
        if self.state in UNDECIDED:
            return self._refuse("router-overloaded", overloaded_answer())
        return self.end_stream(RESOURCE_EXHAUSTED, "no memory is left for a message")

    # The transport ends the stream

    def failed(self, code: int) -> Outputs:
        """Answer the client, because its stream ends with an error that the transport found.

        Args:
            code: The gRPC status with which the transport will end the stream.

        Returns:
            Nothing, if the request is decided.
        """
        if self.state not in UNDECIDED:
            return ()
        if code == RESOURCE_EXHAUSTED:  # A message is longer than the transport reads.
            return self._too_large()
        (end,) = self.end_stream(code, "")
        return (end.answer,) if isinstance(end, EndStream) and end.answer else ()

    def draining(self) -> Outputs:
        """Refuse the request if it is not decided, because the router stops now."""
        if self.state not in UNDECIDED:
            return ()
        refused = refusal_answer(Refused(Refusal.SHUTTING_DOWN))
        return self._refuse(Refusal.SHUTTING_DOWN.value, refused)


def _why_refused(state: State, event: Event) -> str:
    if state is START:
        return f"the first message must be request_headers, not {KINDS[type(event)]}"
    if isinstance(event, RequestHeaders):
        return f"request_headers arrived {'after the response' if state is ANSWERED else 'twice'}"
    return "unknown kind of message"
