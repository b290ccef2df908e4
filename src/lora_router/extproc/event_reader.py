"""The one place where a message's bytes become an event.

The two messages that every request brings are read by ``wire_format``, which knows how Envoy
writes them. Protobuf reads all others, and makes the same events of them.
"""

from google.protobuf.message import DecodeError

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
)
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.pb.ext_proc_pb2 import HttpHeaders, ProcessingRequest
from lora_router.extproc.stream_setup import read_setup
from lora_router.extproc.wire_format import (
    REQUEST_BODY,
    REQUEST_HEADERS,
    read_request_body,
    read_request_headers,
)


class UnreadableMessageError(ValueError):
    """The bytes are no ``ProcessingRequest``."""


def read_event(message: Message, names: HeaderNames) -> Event:
    """Return what a message is about.

    Args:
        message: Is the event's from now on: a ``bytearray`` may be changed.
        names: The headers that are read.

    Raises:
        UnreadableMessageError: It cannot be read.
    """
    field = message[0] if message else 0
    event: Event | None = None
    if field == REQUEST_BODY:
        event = read_request_body(message)
    elif field == REQUEST_HEADERS:
        event = read_request_headers(message, names)
    return read_by_protobuf(message, names) if event is None else event


def read_by_protobuf(message: Message, names: HeaderNames) -> Event:
    """Return what any message is about, however it is written.

    Raises:
        UnreadableMessageError: It cannot be read.
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
            return RequestBody(request.request_body.body, request.request_body.end_of_stream)
        case "request_trailers":
            return RequestTrailers()
        case "response_headers":
            return ResponseHeaders()
        case "response_body":
            return ResponseBody(request.response_body.body, request.response_body.end_of_stream)
        case "response_trailers":
            return ResponseTrailers()
    return Unknown()


def _request_headers(
    headers: HttpHeaders, request: ProcessingRequest, names: HeaderNames
) -> RequestHeaders:
    """Pick out the headers that matter. Where one stands twice, the first counts.

    Envoy sends values in ``raw_value`` and lower-cases names. Bytes that are not UTF-8 become
    replacement characters: such a value matches nothing and cannot be told from other nonsense,
    but it breaks nothing either.
    """
    wanted = dict.fromkeys(names.wanted, "")
    for header in headers.headers.headers:
        key = header.key
        if key in wanted and not wanted[key]:
            wanted[key] = header.raw_value.decode(errors="replace") or header.value
    return make_request_headers(headers.end_of_stream, read_setup(request), *wanted.values())
