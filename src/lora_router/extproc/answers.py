"""What Envoy is told, as bytes. No state, no decisions, no I/O.

Few pods and algorithms make up the answers of many requests, so these are made once.
"""

from collections.abc import Iterable
from functools import lru_cache
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration

from lora_router.extproc.errors import ErrorAnswer
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.pb.core_pb2 import HeaderValue, HeaderValueOption
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
from lora_router.routing.outcome import Routed

METADATA_NAMESPACE = "envoy.lb"
"""Where the endpoint-picker protocol puts the chosen endpoint."""

_OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_CONTINUE = CommonResponse()

CONTINUE_BODY = ProcessingResponse(
    request_body=BodyResponse(response=_CONTINUE)
).SerializeToString()
CONTINUE_TRAILERS = ProcessingResponse(request_trailers=TrailersResponse()).SerializeToString()
CONTINUE_RESPONSE_HEADERS = ProcessingResponse(
    response_headers=HeadersResponse(response=_CONTINUE)
).SerializeToString()
CONTINUE_RESPONSE_BODY = ProcessingResponse(
    response_body=BodyResponse(response=_CONTINUE)
).SerializeToString()
CONTINUE_RESPONSE_TRAILERS = ProcessingResponse(
    response_trailers=TrailersResponse()
).SerializeToString()
"""Nothing to change."""


@lru_cache(maxsize=64)
def clearing(names: HeaderNames, buffered: "ProcessingMode.BodySendMode | None" = None) -> bytes:
    """Answer ``request_headers``: what only we may set is removed.

    Args:
        names: The headers' names.
        buffered: If given, the request's body is asked for in one piece, and the response's in this
            mode, which is the one that was configured.
    """
    common = CommonResponse(header_mutation=HeaderMutation(remove_headers=list(names.ours)))
    response = ProcessingResponse(request_headers=HeadersResponse(response=common))
    if buffered is not None:
        response.mode_override.CopyFrom(
            ProcessingMode(
                request_header_mode=ProcessingMode.SEND,
                response_header_mode=ProcessingMode.SKIP,
                request_body_mode=ProcessingMode.BUFFERED,
                response_body_mode=buffered,
                request_trailer_mode=ProcessingMode.SKIP,
                response_trailer_mode=ProcessingMode.SKIP,
            )
        )
    return response.SerializeToString()


def routed(names: HeaderNames, outcome: Routed, *, to_body: bool, has_id: bool) -> bytes:
    """Answer ``request_headers`` with the chosen pod, or ``request_body``.

    What chose it is named too, unless the request named no model. In the buffered modes headers can
    still be changed with the body.

    Args:
        names: The headers' names.
        outcome: The pod, and what chose it.
        to_body: Whether the body's message is answered.
        has_id: Whether the request brings its id. One that does not is given one.
    """
    model = outcome.model
    if not has_id:
        return _routed(
            names, outcome.address, outcome.algorithm, model, to_body, request_id=str(uuid4())
        )
    name = model.encode()
    before, after = _around_model(names, outcome.address, outcome.algorithm, len(name), to_body)
    return before + name + after


@lru_cache(maxsize=8192)
def _around_model(
    names: HeaderNames, address: str, algorithm: str, size: int, to_body: bool
) -> tuple[bytes, bytes]:
    """Return what stands before and after a model's name of a length, which is where two differ."""
    one, other = (
        _routed(names, address, algorithm, letter * size, to_body) for letter in ("a", "b")
    )
    start = next((at for at in range(len(one)) if one[at] != other[at]), len(one))
    return one[:start], one[start + size :]


def _routed(
    names: HeaderNames,
    address: str,
    algorithm: str,
    model: str,
    to_body: bool,
    request_id: str = "",
) -> bytes:
    value = address.encode()
    headers = [(names.target_pod, value), (names.destination, value)]
    if request_id:
        headers.append((names.request_id, request_id.encode()))
    removed: tuple[str, ...] = ()
    if model:
        headers.append((names.strategy, algorithm.encode()))
        headers.append((names.model, model.encode()))
    else:
        removed = (names.strategy, names.model)
    common = CommonResponse(
        header_mutation=_header_mutation(headers, removed), clear_route_cache=True
    )
    if to_body:
        response = ProcessingResponse(request_body=BodyResponse(response=common))
    else:
        response = ProcessingResponse(request_headers=HeadersResponse(response=common))
    # In dynamic metadata too; it must never differ from the header. Written field by field:
    # Struct's own dict interface is several times slower.
    namespace = response.dynamic_metadata.fields[METADATA_NAMESPACE]
    namespace.struct_value.fields[names.destination].string_value = address
    return response.SerializeToString()


def body_piece(piece: bytes, *, end_of_stream: bool) -> bytes:
    """Send a piece of the request's body on, where Envoy leaves that to us (full duplex)."""
    return ProcessingResponse(request_body=_streamed(piece, end_of_stream)).SerializeToString()


def response_body_piece(piece: bytes, *, end_of_stream: bool) -> bytes:
    """Send a piece of the response's body on, likewise."""
    return ProcessingResponse(response_body=_streamed(piece, end_of_stream)).SerializeToString()


def immediate(answer: ErrorAnswer) -> bytes:
    """Answer the client ourselves; nothing reaches a pod."""
    status = HttpStatus()
    status.code = answer.status  # type: ignore[assignment]  # an open enum: any number will do
    return ProcessingResponse(
        immediate_response=ImmediateResponse(
            status=status,
            headers=_header_mutation(answer.headers),
            body=answer.body,
            details=f"lora_router_{answer.code}",
        )
    ).SerializeToString()


def more_time(seconds: float) -> bytes:
    """Ask Envoy to wait that long for the answer to the message it sent last.

    Envoy grants it once for each message, and at most ``max_message_timeout``.
    """
    timeout = Duration()
    timeout.FromMilliseconds(round(seconds * 1000))
    return ProcessingResponse(override_message_timeout=timeout).SerializeToString()


def _header_mutation(
    set_headers: Iterable[tuple[str, bytes]], remove: Iterable[str] = ()
) -> HeaderMutation:
    """Overwrite some headers and remove others. Like Envoy's, values stand in ``raw_value``."""
    return HeaderMutation(
        set_headers=[
            HeaderValueOption(
                header=HeaderValue(key=key, raw_value=value), append_action=_OVERWRITE
            )
            for key, value in set_headers
        ],
        remove_headers=list(remove),
    )


def _streamed(piece: bytes, end_of_stream: bool) -> BodyResponse:
    return BodyResponse(
        response=CommonResponse(
            body_mutation=BodyMutation(
                streamed_response=StreamedBodyResponse(body=piece, end_of_stream=end_of_stream)
            )
        )
    )
