"""What can happen on an ext_proc stream, as far as it matters: one record for each message.

The records hold no reference to each other, so the garbage collector need not look at them
(``gc=False``).
"""

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct

from lora_router.extproc.stream_setup import Setup

Message = bytes | bytearray


class RequestHeaders(Struct, frozen=True, gc=False):
    """The request begins. What routing needs of its headers."""

    path: str
    """Without the query."""
    content_type: str
    content_length: int | None
    request_id: str
    """Empty if the client sent none."""
    strategy: str | None
    pod_filter: str | None
    ends: bool
    """Whether the request has neither body nor trailers."""
    setup: Setup


class RequestBody(Struct, frozen=True, gc=False):
    """A piece of the request's body, or all of it."""

    body: Message
    ends: bool
    """Whether nothing follows, trailers included."""


class RequestTrailers(Struct, frozen=True, gc=False):
    """The request ends with trailers."""


class ResponseHeaders(Struct, frozen=True, gc=False):
    """The pod's answer begins."""


class ResponseBody(Struct, frozen=True, gc=False):
    """A piece of the pod's answer."""

    body: bytes
    ends: bool


class ResponseTrailers(Struct, frozen=True, gc=False):
    """The pod's answer ends with trailers."""


class Observation(Struct, frozen=True, gc=False):
    """A message that wants no answer (``observability_mode``), whatever it is about."""


class Unknown(Struct, frozen=True, gc=False):
    """A message of no kind that this server knows."""


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
"""All events, by the names of the messages in ``ProcessingRequest``."""


def make_request_headers(
    ends: bool,
    setup: Setup,
    path: str,
    content_type: str,
    length: str,
    request_id: str,
    strategy: str,
    pod_filter: str,
) -> RequestHeaders:
    """Make the event of headers' values, which are empty where there is none."""
    return RequestHeaders(
        path.partition("?")[0],
        content_type,
        int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None,
        request_id,
        strategy or None,
        pod_filter or None,
        ends,
        setup,
    )
