"""What Envoy states about an answer: its status, where the request ran, and who answered.

Envoy sends attributes beside the response headers if ``response_attributes`` of its filter names
them. Without them, the status is in the headers, and some gateways name the endpoint in metadata.
The values may come from a pod, so every value has a bound. A value that is out of bounds is
unknown.
"""

from typing import Final, TypeAlias

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.fleet.answer import Answer

Attributes: TypeAlias = tuple[int, str, str]
"""Status, endpoint, and response code details. Unknown: 0 and empty."""
UNKNOWN: Final[Attributes] = (0, "", "")

SERVED_KEY: Final = "x-gateway-destination-endpoint-served"
"""Where the endpoint-picker protocol puts the endpoint that served the request."""

_FILTER = "envoy.filters.http.ext_proc"
"""The key of the attributes, whatever the name of the filter is."""
_SERVED_NAMESPACE = "envoy.lb"
_STATUS = "response.code"
_SERVED_BY = "upstream.address"
_DETAILS = "response.code_details"
_LONGEST_ENDPOINT = 64
_LONGEST_DETAILS = 256
_FIRST_STATUS, _LAST_STATUS = 100, 599


def make_answer(attributes: Attributes, status_header: str) -> Answer:
    """Return the answer.

    Args:
        attributes: What the fields beside the headers state.
        status_header: The value of ``:status``, which counts if the attributes have no status.
    """
    status, served_by, details = attributes
    if not status and len(status_header) == 3 and status_header.isascii():
        status = _checked_status(int(status_header)) if status_header.isdigit() else 0
    return Answer(status, served_by, details)


def read_attributes(request: ProcessingRequest) -> Attributes:
    """Return what the fields beside the headers state."""
    attributes = UNKNOWN
    if _FILTER in request.attributes:
        attributes = _read_struct(request.attributes[_FILTER])
    status, served_by, details = attributes
    if not served_by and request.HasField("metadata_context"):
        metadata = request.metadata_context.filter_metadata
        if _SERVED_NAMESPACE in metadata and SERVED_KEY in metadata[_SERVED_NAMESPACE].fields:
            served = metadata[_SERVED_NAMESPACE].fields[SERVED_KEY].string_value
            served_by = _checked_endpoint(served.strip())
    return status, served_by, details


def _read_struct(data: bytes) -> Attributes:
    try:
        fields = Struct.FromString(data).fields
    except DecodeError:
        return UNKNOWN
    return (
        _checked_status(fields[_STATUS].number_value) if _STATUS in fields else 0,
        _checked_endpoint(fields[_SERVED_BY].string_value) if _SERVED_BY in fields else "",
        fields[_DETAILS].string_value[:_LONGEST_DETAILS] if _DETAILS in fields else "",
    )


def _checked_status(number: float) -> int:
    """Return a number as an HTTP status; 0: it is not a status."""
    return int(number) if _FIRST_STATUS <= number <= _LAST_STATUS and number % 1 == 0 else 0


def _checked_endpoint(text: str) -> str:
    """Return an endpoint; empty: the text is too long to be one."""
    return text if len(text) <= _LONGEST_ENDPOINT else ""
