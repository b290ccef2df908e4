"""The ext_proc conversation about one HTTP request, without I/O.

A session is told each message of a stream (``receive``) and the stream's end (``end``); it returns
what to send. It does not know who carries the messages. Everything about what may come when stands
here: ``TABLE`` says what is done about each event in each state, and where it may lead. The rules:

- Envoy sends ``request_headers`` first. If the path is one that names a model and a body follows,
  the pod is chosen when the body is complete; every other request passes through to a ready pod.
- The body is complete: BUFFERED, at the first body message (its ``end_of_stream`` is false if
  trailers follow); BUFFERED_PARTIAL, likewise, cut or not; STREAMED and FULL_DUPLEX_STREAMED, at
  the first ``end_of_stream`` or at the trailers. Pieces after that are ignored: Envoy 1.35 and
  later can deliver the last one twice (envoyproxy/envoy#46237).
- A held request leaves its state without an event: to ROUTED when it gets a pod, to OVER when it
  gets none.
- The response may begin at any time once the request has: Envoy or a filter may answer before the
  body is complete.
- The stream stays open until the HTTP exchange ends. After a refusal nothing more is answered, and
  after the end of the stream nothing is to be.
- What is not in the table cannot be: it ends the stream with FAILED_PRECONDITION. A message that
  cannot be read ends it with INVALID_ARGUMENT. No exception leaves a session.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

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
from lora_router.extproc.outputs import Outputs
from lora_router.extproc.states import (
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
from lora_router.grpc_server.status import FAILED_PRECONDITION, INTERNAL, INVALID_ARGUMENT

log = logging.getLogger("lora_router.extproc")

Action = Callable[[Exchange, Any], Outputs]


@dataclass(frozen=True, slots=True)
class Step:
    """What is done about an event."""

    action: Action
    to: tuple[State, ...]
    """The states that may be next; none: it stays as it was."""


def _step(action: Action, *to: State) -> Step:
    return Step(action, to)


_RESPONSE: Mapping[type[Event], Step] = {
    ResponseHeaders: _step(Exchange.answer_response_headers),
    ResponseBody: _step(Exchange.answer_response_body),
    ResponseTrailers: _step(Exchange.answer_response_trailers),
    Observation: _step(Exchange.ignore),
}

TABLE: Final[Mapping[State, Mapping[type[Event], Step]]] = {
    START: {
        RequestHeaders: _step(Exchange.begin, WHOLE_BODY, PIECES, PASSING, ROUTED, OVER),
        Observation: _step(Exchange.observe, OVER),
    },
    WHOLE_BODY: {
        RequestBody: _step(Exchange.take_whole_body, HELD, ROUTED, OVER),
        RequestTrailers: _step(Exchange.have_no_body, OVER),
        **_RESPONSE,
    },
    PIECES: {
        RequestBody: _step(Exchange.collect, PIECES, HELD, ROUTED, OVER),
        RequestTrailers: _step(Exchange.have_all_pieces, HELD_WITH_TRAILERS, ROUTED, OVER),
        **_RESPONSE,
    },
    HELD: {
        RequestBody: _step(Exchange.ignore),
        RequestTrailers: _step(Exchange.keep_trailers, HELD_WITH_TRAILERS),
        **_RESPONSE,
    },
    HELD_WITH_TRAILERS: {
        RequestBody: _step(Exchange.ignore),
        RequestTrailers: _step(Exchange.ignore),
        **_RESPONSE,
    },
    PASSING: {
        RequestBody: _step(Exchange.pass_piece, PASSING, ROUTED),
        RequestTrailers: _step(Exchange.pass_trailers, ROUTED),
        **_RESPONSE,
    },
    ROUTED: {
        RequestBody: _step(Exchange.ignore),
        RequestTrailers: _step(Exchange.pass_trailers),
        **_RESPONSE,
    },
    OVER: {},
}
"""What may come in each state, what is done about it, and where it may lead."""

_ACTIONS: Final = tuple(
    {event: step.action for event, step in TABLE[state].items()} for state in State
)


class Session(Exchange):
    """One stream's conversation. See the head of this file for its rules."""

    __slots__ = ()

    def receive(self, message: Message) -> Outputs:
        """Take a message from Envoy; return what to send, in order, maybe nothing.

        Args:
            message: Is the session's from now on: a ``bytearray`` may be changed.
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
            return self.end_stream(INVALID_ARGUMENT, "not a ProcessingRequest")
        except Exception:
            log.exception("a session failed; its stream is ended")
            return self.end_stream(INTERNAL, "internal error")


def _why_refused(state: State, event: Event) -> str:
    if state is START:
        return f"the first message must be request_headers, not {KINDS[type(event)]}"
    if isinstance(event, RequestHeaders):
        return "request_headers came twice"
    return "a message is of no kind that this server knows"
