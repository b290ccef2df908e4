"""The requests that are measured: a chat request's body, and what Envoy makes of it for the router.

A client's libraries write ``messages`` before ``model``, so the name stands last, behind a prompt
of plain English with the escapes that line ends and quotation marks become.
"""

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
    """Return an adapter's name; all are of one length, so that bodies of one size are alike."""
    return f"adapter-{number:05}"


def adapters(count: int) -> list[str]:
    """Return all adapters of a fleet."""
    return [adapter(number) for number in range(count)]


def body(size: int, model: str, *, prose: str = _PROSE) -> bytes:
    """Make a chat request of ``size`` bytes, within a few that an escape must not be cut at."""
    room = max(1, size - len(_HEAD) - len(_TAIL) - len(model) - 2)
    data = prose.encode()
    whole, rest = divmod(room, len(data))
    # What is left of a line is filled with something that can be cut anywhere.
    return b"".join(
        (_HEAD.encode(), data * whole, b"x" * rest, _TAIL.encode(), model.encode(), b'"}')
    )


def ext_proc_messages(size: int, model: str) -> tuple[bytes, bytes]:
    """Return what Envoy sends in BUFFERED mode: the headers' message and the body's."""
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
