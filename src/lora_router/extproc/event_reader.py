"""Turns the bytes of a message into an event. No other module parses messages.

``wire_format`` reads the messages that most requests have, if they are encoded as Envoy
encodes them. Protobuf reads all other messages, and the result is the same.
"""

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from lora_router.extproc.answer_attributes import read_attributes
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
    Unknown,
    make_request_headers,
    make_response_headers,
)
from lora_router.extproc.header_names import READ_RESPONSE_WANTED, RESPONSE_WANTED, HeaderNames
from lora_router.extproc.pb.ext_proc_pb2 import HttpHeaders, ProcessingRequest
from lora_router.extproc.stream_setup import read_setup
from lora_router.extproc.wire_format import (
    REQUEST_BODY,
    REQUEST_HEADERS,
    RESPONSE_BODY,
    RESPONSE_HEADERS,
    read_request_body,
    read_request_headers,
    read_response_body,
    read_response_headers,
)


class UnreadableMessageError(ValueError):
    """The bytes are not a ``ProcessingRequest``."""


def read_event(message: Message, names: HeaderNames) -> Event:
    """Return the event of a message.

    Args:
        message: Belongs to the event afterwards, so a ``bytearray`` may change.
        names: The names of the headers to read.

    Raises:
        UnreadableMessageError: The message cannot be parsed.
    """
    field = message[0] if message else 0
    event: Event | None = None
    if field == REQUEST_BODY:
        event = read_request_body(message)
    elif field == REQUEST_HEADERS:
        event = read_request_headers(message, names)
    elif field == RESPONSE_HEADERS:
        event = read_response_headers(message, names)
    elif field == RESPONSE_BODY:
        event = read_response_body(message)
    return read_by_protobuf(message, names) if event is None else event


def read_by_protobuf(message: Message, names: HeaderNames) -> Event:
    """Return the event of a message in any valid encoding.

    Raises:
        UnreadableMessageError: The message cannot be parsed.
    """
    try:
        request = ProcessingRequest.FromString(message)  # type: ignore[arg-type]  # any buffer
    except DecodeError:
        raise UnreadableMessageError from None
    if request.observability_mode:
        return Observation()
    match request.WhichOneof("request"):
        case "request_headers":
            return _request_headers(request.request_headers, request, names)
        case "request_body":
            body = request.request_body
            return RequestBody(body.body, body.end_of_stream, read_setup(request).subset)
        case "request_trailers":
            return RequestTrailers(read_setup(request).subset)
        case "response_headers":
            return _response_headers(request.response_headers, request, names)
        case "response_body":
            return ResponseBody(
                request.response_body.body,
                request.response_body.end_of_stream,
                request.protocol_config.response_body_mode,
            )
        case "response_trailers":
            return ResponseTrailers()
    return Unknown()


def _request_headers(
    headers: HttpHeaders, request: ProcessingRequest, names: HeaderNames
) -> RequestHeaders:
    """Return the headers that the router uses. If a header is repeated, the first value counts.

    Envoy sends values in ``raw_value`` and names in lower case. Other gateways do not, so names are
    compared without regard to case, and ``value`` counts where ``raw_value`` is empty. Bytes that
    are not UTF-8 become replacement characters. Such a value matches nothing, and it does no harm.
    """
    values = _values(headers, names.wanted)
    too_many = names.are_too_many(len(headers.headers.headers))
    return make_request_headers(headers.end_of_stream, read_setup(request), values, too_many)


def _response_headers(
    headers: HttpHeaders, request: ProcessingRequest, names: HeaderNames
) -> ResponseHeaders:
    """Return the headers that the router uses, read in the same way."""
    wanted = READ_RESPONSE_WANTED if names.reads_answers else RESPONSE_WANTED
    return make_response_headers(
        headers.end_of_stream,
        read_attributes(request),
        *_values(headers, wanted),
        response_body_mode=request.protocol_config.response_body_mode,
    )


def _values(headers: HttpHeaders, names: tuple[str, ...]) -> Iterable[str]:
    wanted = dict.fromkeys(names, "")
    for header in headers.headers.headers:
        key = header.key.lower()
        if key in wanted and not wanted[key]:
            wanted[key] = header.raw_value.decode(errors="replace") or header.value
    return wanted.values()
