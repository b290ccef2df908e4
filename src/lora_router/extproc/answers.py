"""The answers to Envoy, as bytes. No state, no decisions, no I/O.

The answers of many requests differ only in a few values, so answers are encoded once and cached.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration

from lora_router.extproc.errors import ErrorAnswer
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.pb.core_pb2 import HeaderValue, HeaderValueOption
from lora_router.extproc.pb.ext_proc_pb2 import (
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ImmediateResponse,
    ProcessingResponse,
    TrailersResponse,
)
from lora_router.extproc.pb.http_status_pb2 import HttpStatus
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode

_OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_CONTINUE = CommonResponse()
_MODES_TO_ASK_FOR: "Mapping[int, ProcessingMode.BodySendMode]" = {
    ProcessingMode.NONE: ProcessingMode.BUFFERED,
    ProcessingMode.STREAMED: ProcessingMode.BUFFERED,
    ProcessingMode.BUFFERED: ProcessingMode.BUFFERED,
    ProcessingMode.BUFFERED_PARTIAL: ProcessingMode.BUFFERED_PARTIAL,
}
"""The mode of the request body that the router asks for, by the configured one. In all of them,
Envoy forwards the headers with the body."""

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
"""Answers that change nothing."""


@lru_cache(maxsize=64)
def clearing(names: HeaderNames, body_mode: int, response_body_mode: int) -> bytes:
    """Answer ``request_headers``: remove the headers that only the router may set.

    The answer also asks for the body in one message, whatever is configured.

    Args:
        names: The header names.
        body_mode: The configured mode of the request body.
        response_body_mode: The configured mode of the response body.
    """
    common = CommonResponse(header_mutation=HeaderMutation(remove_headers=list(names.ours)))
    response = ProcessingResponse(request_headers=HeadersResponse(response=common))
    asked = _MODES_TO_ASK_FOR.get(body_mode)
    modes = b"" if asked is None else asked_modes(asked, response_body_mode)
    return response.SerializeToString() + modes


@lru_cache(maxsize=64)
def asked_modes(body_mode: int, response_body_mode: int) -> bytes:
    """Return the part of an answer to headers that asks Envoy for processing modes.

    The router needs the response headers, and a stream that is open until the end of the response.
    Envoy 1.40 can close it early where it does not send response trailers. Envoy ignores the modes
    where its filter does not have ``allow_mode_override``, and in modes in which it does not wait
    for the answer to the headers.

    Args:
        body_mode: The mode of the request body.
        response_body_mode: The mode of the response body.
    """
    mode = ProcessingMode(
        request_header_mode=ProcessingMode.SEND,
        response_header_mode=ProcessingMode.SEND,
        request_trailer_mode=ProcessingMode.SKIP,
        response_trailer_mode=ProcessingMode.SEND,
    )
    # Open enumerations, which accept any number.
    mode.request_body_mode = body_mode  # type: ignore[assignment]
    mode.response_body_mode = response_body_mode  # type: ignore[assignment]
    return ProcessingResponse(mode_override=mode).SerializeToString()


def immediate(answer: ErrorAnswer) -> bytes:
    """Answer the client directly. Nothing reaches a pod."""
    status = HttpStatus()
    status.code = answer.status  # type: ignore[assignment]  # an open enum accepts any number
    return ProcessingResponse(
        immediate_response=ImmediateResponse(
            status=status,
            headers=_header_mutation(answer.headers),
            body=answer.body,
            details=f"lora_router_{answer.code}",
        )
    ).SerializeToString()


def more_time(seconds: float) -> bytes:
    """Ask Envoy to wait this long for the answer to its last message.

    Envoy grants this once per message, up to ``max_message_timeout``.
    """
    timeout = Duration()
    timeout.FromMilliseconds(round(seconds * 1000))
    return ProcessingResponse(override_message_timeout=timeout).SerializeToString()


def _header_mutation(
    set_headers: Iterable[tuple[str, bytes]], remove: Iterable[str] = ()
) -> HeaderMutation:
    """Return a mutation that overwrites and removes headers. Values use ``raw_value``."""
    return HeaderMutation(
        set_headers=[
            HeaderValueOption(
                header=HeaderValue(key=key, raw_value=value), append_action=_OVERWRITE
            )
            for key, value in set_headers
        ],
        remove_headers=list(remove),
    )
