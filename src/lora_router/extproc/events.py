"""The events of an ext_proc stream: one record for each kind of message.

A record contains only what the router uses of a message. Records cannot form reference cycles, so
the garbage collector does not track them (``gc=False``).
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from msgspec import Struct, structs

from lora_router.extproc.answer_attributes import Attributes, make_answer
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.stream_setup import Setup, read_endpoints
from lora_router.fleet.answer import Answer

Message = bytes | bytearray
_EVENT_STREAM = "text/event-stream"
_SWITCHING_PROTOCOLS = 101
"""The only 1xx that no other response follows."""


class RequestHeaders(Struct, frozen=True, gc=False):
    """The request begins. Contains what routing needs of its headers."""

    path: str
    """With the query."""
    method: str
    content_type: str
    content_length: int | None
    request_id: str
    """Empty if the client sent none."""
    strategy: str | None
    pod_filter: str | None
    content_encoding: str
    """Empty if the client sent none."""
    ends: bool
    """Whether the request ends here, without a body or trailers."""
    setup: Setup
    api_version: str = ""
    """What Anthropic's clients send; empty: it is another client."""
    objective: str = ""
    """The InferenceObjective that the request names, if any."""
    rewrite_key: str = ""
    """Requests with the same key are rewritten to the same model. Empty: no key."""
    too_many: bool = False
    """Whether the gateway has no room for the router's headers beside those of the request."""
    authorization: str = ""
    """Read only where the router itself sends requests of clients to pods."""
    new_model: str = ""
    """The model that takes the place of the one in the request. Empty: none does."""
    traceparent: str = ""
    """Read only where requests are traced."""
    tenant: int = 0
    """A hash of the header that says who asks, which may be secret; 0: not read, or absent."""
    priority: str = ""
    """What the header with the priority says. Empty: not read, or absent."""


class RequestBody(Struct, frozen=True, gc=False):
    """A piece of the request body, or the whole body."""

    body: Message
    ends: bool
    """Whether the request ends here. If it does not, more pieces or trailers follow."""
    subset: frozenset[str] | None = None
    """Endpoints that the gateway allows, if it says so with this message."""


class RequestTrailers(Struct, frozen=True, gc=False):
    """The request ends with trailers."""

    subset: frozenset[str] | None = None
    """As in ``RequestBody``."""


class ResponseHeaders(Struct, frozen=True, gc=False):
    """The response begins."""

    answer: Answer
    event_stream: bool
    """Whether the body is a stream of events, whose end comes later than its beginning."""
    ends: bool
    """Whether the response ends here, without a body or trailers."""
    response_body_mode: int = ProcessingMode.NONE
    """Known in the first message of a stream only."""
    content_type: str = ""
    content_encoding: str = ""
    """Empty if there is none, or if the router does not read the bodies of answers."""

    @property
    def is_final(self) -> bool:
        """Whether this is no informational response, which a final response follows."""
        status = self.answer.status
        return status >= 200 or status == _SWITCHING_PROTOCOLS or not status


class ResponseBody(Struct, frozen=True, gc=False):
    """A piece of the response body."""

    body: Message
    ends: bool
    response_body_mode: int = ProcessingMode.NONE
    """Known in the first message of a stream only."""


class ResponseTrailers(Struct, frozen=True, gc=False):
    """The response ends with trailers."""


class Observation(Struct, frozen=True, gc=False):
    """A message of any kind that expects no answer (``observability_mode``)."""


class Unknown(Struct, frozen=True, gc=False):
    """A message of an unknown kind."""


Event: TypeAlias = (
    RequestHeaders
    | RequestBody
    | RequestTrailers
    | ResponseHeaders
    | ResponseBody
    | ResponseTrailers
    | Observation
    | Unknown
)


KINDS: Mapping[type[Event], str] = {
    RequestHeaders: "request_headers",
    RequestBody: "request_body",
    RequestTrailers: "request_trailers",
    ResponseHeaders: "response_headers",
    ResponseBody: "response_body",
    ResponseTrailers: "response_trailers",
    Observation: "an observation",
    Unknown: "unknown",
}
"""All events, with the names of their messages in ``ProcessingRequest``."""


_ABSENT = ("", "", "", "", "", "")


def make_request_headers(
    ends: bool, setup: Setup, values: Iterable[str], too_many: bool = False
) -> RequestHeaders:
    """Return the event for the values of ``HeaderNames.wanted``, empty for absent headers."""
    path, method, content_type, length, request_id, strategy, pod_filter, encoding, *more = values
    api_version, objective, *key = more
    rewrite_key = authorization = new_model = traceparent = tenant = priority = ""
    if key:
        key = [*key, *_ABSENT]
        rewrite_key, authorization, selection, new_model, traceparent, tenant, priority = key[:7]
        if selection:
            setup = structs.replace(setup, subset=read_endpoints(selection))
    return RequestHeaders(
        path,
        method,
        content_type,
        int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None,
        request_id,
        strategy or None,
        pod_filter or None,
        encoding,
        ends,
        setup,
        api_version,
        objective,
        rewrite_key,
        too_many,
        authorization,
        new_model,
        traceparent,
        hash(tenant) if tenant else 0,
        priority,
    )


def make_response_headers(
    ends: bool,
    attributes: Attributes,
    status: str,
    content_type: str,
    content_encoding: str = "",
    *,
    response_body_mode: int,
) -> ResponseHeaders:
    """Return the event for the given header values. The value of an absent header is empty."""
    return ResponseHeaders(
        make_answer(attributes, status),
        content_type[: len(_EVENT_STREAM)].lower() == _EVENT_STREAM,
        ends,
        response_body_mode,
        content_type,
        content_encoding,
    )
