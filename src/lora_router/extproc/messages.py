"""Reading and writing the ext_proc messages. No state, no decisions, no I/O.

Envoy sends header values in ``raw_value`` and lower-cases names; answers carry ``raw_value`` too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from msgspec import Struct

from lora_router.extproc.errors import ErrorAnswer
from lora_router.extproc.pb.core_pb2 import HeaderMap, HeaderValue, HeaderValueOption, Metadata
from lora_router.extproc.pb.ext_proc_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ImmediateResponse,
    ProcessingResponse,
    StreamedBodyResponse,
    TrailersResponse,
)
from lora_router.extproc.pb.http_status_pb2 import HttpStatus
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode

METADATA_NAMESPACE = "envoy.lb"
"""Where the endpoint-picker protocol puts the chosen endpoint."""
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
"""Where the endpoint-picker protocol puts the endpoints a gateway allows."""

_OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


@dataclass(frozen=True, slots=True, eq=False)
class HeaderNames:
    """The names of the headers that are read and set. All lower case, all different.

    One for a server's life: answers are remembered by it.
    """

    target_pod: str = "target-pod"
    destination: str = "x-gateway-destination-endpoint"
    strategy: str = "routing-strategy"
    pod_filter: str = "external-filter"
    model: str = "model"
    request_id: str = "x-request-id"

    @property
    def ours(self) -> tuple[str, ...]:
        """What only this service may set: a client's own values never pass."""
        return (self.target_pod, self.destination, self.strategy, self.model)


class RequestHead(Struct, frozen=True):
    """What routing needs of a request's headers."""

    path: str
    content_type: str
    content_length: int | None
    request_id: str
    """Empty if the client sent none."""
    strategy: str | None
    pod_filter: str | None


def read_head(headers: HeaderMap, names: HeaderNames) -> RequestHead:
    """Pick out the headers that matter. Where one stands twice, the first counts.

    Bytes that are not UTF-8 become replacement characters: such a value matches nothing and
    cannot be told from other nonsense, but it breaks nothing either.
    """
    wanted = {
        ":path": "",
        "content-type": "",
        "content-length": "",
        names.request_id: "",
        names.strategy: "",
        names.pod_filter: "",
    }
    for header in headers.headers:
        key = header.key
        if key in wanted and not wanted[key]:
            wanted[key] = header.raw_value.decode(errors="replace") or header.value
    length = wanted["content-length"]
    return RequestHead(
        path=wanted[":path"],
        content_type=wanted["content-type"],
        content_length=int(length)
        if length.isascii() and length.isdigit() and len(length) < 20
        else None,
        request_id=wanted[names.request_id],
        strategy=wanted[names.strategy] or None,
        pod_filter=wanted[names.pod_filter] or None,
    )


def read_subset(metadata: Metadata) -> frozenset[str] | None:
    """Return the endpoints that the gateway allows, or ``None`` if it says nothing.

    A hint that is there and names nothing allows nothing (endpoint-picker protocol).
    """
    hint = metadata.filter_metadata.get(SUBSET_NAMESPACE)
    if hint is None or SUBSET_KEY not in hint.fields:
        return None
    value = hint.fields[SUBSET_KEY]
    listed = [item.string_value for item in value.list_value.values]
    # Some gateways write the list as one string, as the header of the same name would hold it.
    listed += value.string_value.split(",")
    return frozenset(endpoint.strip() for endpoint in listed if endpoint.strip())


def header_mutation(
    set_headers: Iterable[tuple[str, bytes]], remove: Iterable[str] = ()
) -> HeaderMutation:
    """Overwrite some headers and remove others."""
    return HeaderMutation(
        set_headers=[
            HeaderValueOption(
                header=HeaderValue(key=key, raw_value=value), append_action=_OVERWRITE
            )
            for key, value in set_headers
        ],
        remove_headers=list(remove),
    )


def route_metadata(response: ProcessingResponse, key: str, address: str) -> None:
    """Name the chosen endpoint in dynamic metadata too; it must never differ from the header."""
    # Written field by field: Struct's own dict interface is several times slower.
    namespace = response.dynamic_metadata.fields[METADATA_NAMESPACE]
    namespace.struct_value.fields[key].string_value = address


@lru_cache(maxsize=16)
def clearing_response(names: HeaderNames) -> ProcessingResponse:
    """Answer ``request_headers``: what only we may set is removed. Shared: copy it to change it."""
    return headers_response(header_mutation((), names.ours))


@lru_cache(maxsize=8192)
def routed_response(
    names: HeaderNames, address: str, algorithm: str, model: str, *, to_body: bool
) -> ProcessingResponse:
    """Answer with the chosen pod, where the client sent a request id. Shared: not to be changed.

    Few pods, algorithms and models make up the answers of many requests.
    """
    mutation = route_mutation(names, address, algorithm, model)
    answer = body_response if to_body else headers_response
    response = answer(mutation, clear_route_cache=True)
    route_metadata(response, names.destination, address)
    return response


def route_mutation(
    names: HeaderNames, address: str, algorithm: str, model: str, request_id: str = ""
) -> HeaderMutation:
    """Name the chosen pod, and what chose it unless the request named no model."""
    value = address.encode()
    headers = [(names.target_pod, value), (names.destination, value)]
    if request_id:
        headers.append((names.request_id, request_id.encode()))
    if not model:
        return header_mutation(headers, (names.strategy, names.model))
    headers.append((names.strategy, algorithm.encode()))
    headers.append((names.model, model.encode()))
    return header_mutation(headers)


def headers_response(
    mutation: HeaderMutation | None = None, *, clear_route_cache: bool = False
) -> ProcessingResponse:
    """Answer ``request_headers``."""
    common = CommonResponse(header_mutation=mutation, clear_route_cache=clear_route_cache)
    return ProcessingResponse(request_headers=HeadersResponse(response=common))


def body_response(
    mutation: HeaderMutation | None = None, *, clear_route_cache: bool = False
) -> ProcessingResponse:
    """Answer ``request_body``; in the buffered modes the headers can still be changed."""
    common = CommonResponse(header_mutation=mutation, clear_route_cache=clear_route_cache)
    return ProcessingResponse(request_body=BodyResponse(response=common))


def streamed_body_response(piece: bytes, *, end_of_stream: bool) -> ProcessingResponse:
    """Send a piece of the request's body on, where Envoy leaves that to us (full duplex)."""
    return ProcessingResponse(request_body=_streamed(piece, end_of_stream))


def trailers_response() -> ProcessingResponse:
    """Answer ``request_trailers``: nothing to change."""
    return ProcessingResponse(request_trailers=TrailersResponse())


def response_headers_response() -> ProcessingResponse:
    """Answer ``response_headers``: nothing to change."""
    return ProcessingResponse(response_headers=HeadersResponse(response=CommonResponse()))


def response_body_response(
    piece: bytes, *, end_of_stream: bool, full_duplex: bool
) -> ProcessingResponse:
    """Answer ``response_body``: nothing to change, but in full duplex it must be sent back."""
    if full_duplex:
        return ProcessingResponse(response_body=_streamed(piece, end_of_stream))
    return ProcessingResponse(response_body=BodyResponse(response=CommonResponse()))


def response_trailers_response() -> ProcessingResponse:
    """Answer ``response_trailers``: nothing to change."""
    return ProcessingResponse(response_trailers=TrailersResponse())


def buffered_mode(response_body_mode: ProcessingMode.BodySendMode) -> ProcessingMode:
    """Ask for the whole body in one piece, and leave the response as it was configured."""
    return ProcessingMode(
        request_header_mode=ProcessingMode.SEND,
        response_header_mode=ProcessingMode.SKIP,
        request_body_mode=ProcessingMode.BUFFERED,
        response_body_mode=response_body_mode,
        request_trailer_mode=ProcessingMode.SKIP,
        response_trailer_mode=ProcessingMode.SKIP,
    )


def immediate_response(answer: ErrorAnswer) -> ProcessingResponse:
    """Answer the client ourselves; nothing reaches a pod."""
    status = HttpStatus()
    status.code = answer.status  # type: ignore[assignment]  # an open enum: any number will do
    return ProcessingResponse(
        immediate_response=ImmediateResponse(
            status=status,
            headers=header_mutation(answer.headers),
            body=answer.body,
            details=f"lora_router_{answer.code}",
        )
    )


def more_time(seconds: float) -> ProcessingResponse:
    """Ask Envoy to wait that long for the answer to the message it sent last.

    Envoy grants it once for each message, and at most ``max_message_timeout``.
    """
    timeout = Duration()
    timeout.FromMilliseconds(round(seconds * 1000))
    return ProcessingResponse(override_message_timeout=timeout)


def _streamed(piece: bytes, end_of_stream: bool) -> BodyResponse:
    return BodyResponse(
        response=CommonResponse(
            body_mutation=BodyMutation(
                streamed_response=StreamedBodyResponse(body=piece, end_of_stream=end_of_stream)
            )
        )
    )
