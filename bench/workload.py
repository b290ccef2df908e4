"""The requests that are measured: the body of a chat request, and the messages Envoy sends for it.

Client libraries write ``messages`` before ``model``. So the model's name comes last, after a prompt
of plain English with escaped line ends and quotation marks.
"""

from google.protobuf.struct_pb2 import Struct

from lora_router.extproc.pb.core_pb2 import HeaderMap, HeaderValue
from lora_router.extproc.pb.ext_proc_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProtocolConfiguration,
)
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode

PATH = "/v1/chat/completions"
BASE = "base"
_HEAD = '{"messages": [{"role": "user", "content": "'
_TAIL = '"}], "stream": true, "model": "'
_PROSE = (
    "The clerk put the ledger back on its shelf and counted the columns once more. "
    'What had come in by noon did not agree with what had gone out, and \\"rounding\\", as the '
    "letter called it, explained three parts of a thousand at best.\\n\\n"
)


def adapter(number: int) -> str:
    """Return an adapter's name. All names have the same length, and so have all bodies."""
    return f"adapter-{number:05}"


def adapters(count: int) -> list[str]:
    """Return the names of the first ``count`` adapters."""
    return [adapter(number) for number in range(count)]


def body(size: int, model: str, *, prose: str = _PROSE) -> bytes:
    """Return the body of a chat request. Its size may differ by a few bytes."""
    room = max(1, size - len(_HEAD) - len(_TAIL) - len(model) - 2)
    data = prose.encode()
    whole, rest = divmod(room, len(data))
    # The rest is filled with a letter, because an escape must not be cut.
    return b"".join(
        (_HEAD.encode(), data * whole, b"x" * rest, _TAIL.encode(), model.encode(), b'"}')
    )


def ext_proc_messages(size: int, model: str) -> tuple[bytes, bytes]:
    """Return the two messages that Envoy sends in BUFFERED mode: headers and body."""
    data = body(size, model)
    listed = {
        ":method": "POST",
        ":path": PATH,
        ":authority": "gateway",
        ":scheme": "http",
        "content-type": "application/json",
        "content-length": str(len(data)),
        "user-agent": "bench",
        "x-forwarded-for": "10.0.0.1",
        "x-forwarded-proto": "http",
        "x-request-id": "2f1c7c52-7d0c-4d1b-9c0f-5f0e3f1c9a11",
    }
    headers = HeaderMap(
        headers=[HeaderValue(key=key, raw_value=text.encode()) for key, text in listed.items()]
    )
    first = ProcessingRequest(
        request_headers=HttpHeaders(headers=headers),
        protocol_config=ProtocolConfiguration(request_body_mode=ProcessingMode.BUFFERED),
    )
    second = ProcessingRequest(request_body=HttpBody(body=data, end_of_stream=True))
    return first.SerializeToString(), second.SerializeToString()


def answer_message(endpoint: str) -> bytes:
    """Return the message that Envoy sends for the headers of a streamed answer of a pod."""
    listed = {
        ":status": "200",
        "date": "Sat, 28 Nov 2026 06:03:48 GMT",
        "server": "uvicorn",
        "content-type": "text/event-stream; charset=utf-8",
        "x-request-id": "2f1c7c52-7d0c-4d1b-9c0f-5f0e3f1c9a11",
        "transfer-encoding": "chunked",
        "x-envoy-upstream-service-time": "31",
    }
    headers = HeaderMap(
        headers=[HeaderValue(key=key, raw_value=text.encode()) for key, text in listed.items()]
    )
    message = ProcessingRequest(response_headers=HttpHeaders(headers=headers))
    destination = message.metadata_context.filter_metadata["envoy.lb"]
    destination["x-gateway-destination-endpoint"] = endpoint
    attributes = Struct()
    attributes.update(
        {
            "response.code": 200,
            "response.code_details": "via_upstream",
            "upstream.address": endpoint,
        }
    )
    message.attributes["envoy.filters.http.ext_proc"] = attributes.SerializeToString()
    return message.SerializeToString()
