"""The fast reader returns what protobuf returns, or leaves the message to protobuf."""

from contextlib import suppress

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import example, given
from hypothesis import strategies as st

from lora_router.extproc import wire_format
from lora_router.extproc.event_reader import (
    UnreadableMessageError,
    read_by_protobuf,
    read_event,
)
from lora_router.extproc.events import Observation, RequestBody, ResponseHeaders
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.pb.core_pb2 import HeaderMap, HeaderValue
from lora_router.extproc.pb.ext_proc_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProtocolConfiguration,
)
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.fleet.answer import Answer
from tests.unit.extproc.conversation import (
    request_body,
    request_headers,
    request_trailers,
    response_body,
    response_headers,
    served_by,
)

NAMES = HeaderNames()
NO_LINE_FEED = st.binary(max_size=300).map(lambda value: value.replace(b"\n", b"\t"))
KEYS = st.sampled_from(
    [
        ":path",
        ":pathological",
        "x:path",
        "content-type",
        "content-length",
        "x-content-length",
        "x-request-id",
        "routing-strategy",
        "external-filter",
        "user-agent",
        "model",
        "\x05:path\x1a",
    ]
)
# Ten bytes with a capital letter look like a name with one, because their length is a line feed.
VALUES = NO_LINE_FEED.map(bytes.lower) | st.sampled_from(
    [b"", b"17", b"/v1/completions", b"\x05:path\x1a\x01x", b"\x1a", b"x" * 127, b"x" * 128]
)
HEADERS = st.lists(st.tuples(KEYS, VALUES), max_size=8)
MODES = st.sampled_from(ProcessingMode.BodySendMode.values())


@given(
    HEADERS,
    st.booleans(),
    st.none() | MODES,
    MODES,
    st.booleans(),
    st.none() | st.lists(st.sampled_from(["10.0.0.1:8000", "x"]), max_size=2),
)
@example([(":path", b"/" * 15_000)], False, None, ProcessingMode.NONE, False, None)
@example([(":path", b"/" * 17_000)], False, None, ProcessingMode.NONE, False, None)
def test_the_first_message_is_read_as_protobuf_reads_it(
    headers: list[tuple[str, bytes]],
    ends: bool,
    mode: "ProcessingMode.BodySendMode | None",
    response_mode: "ProcessingMode.BodySendMode",
    without_waiting: bool,
    subset: list[str] | None,
) -> None:
    request = request_headers(
        "/v1/chat/completions",
        end=ends,
        mode=mode,
        response_body_mode=response_mode,
        send_body_without_waiting=without_waiting,
        subset=subset,
        headers=headers,
    )
    data = request.SerializeToString()
    by_protobuf = read_by_protobuf(data, NAMES)
    for given_as in (data, bytearray(data)):
        read = wire_format.read_request_headers(given_as, NAMES)
        assert read is None or read == by_protobuf
    # The fast reader handles lists below 16 KB, without empty values of headers that it reads.
    listed = request.request_headers.headers
    first = {header.key: header.raw_value for header in reversed(listed.headers)}
    empty = any(not first.get(name, b"-") for name in NAMES.wanted)
    assert (read is None) == (empty or listed.ByteSize() >= 1 << 14)


RESPONSE_KEYS = st.sampled_from(
    [
        ":status",
        "x:status",
        "content-type",
        "x-content-type",
        "server",
        "upstream.address",
        "x-gateway-destination-endpoint-served",
        "response.code",
    ]
)
RESPONSE_VALUES = NO_LINE_FEED | st.sampled_from(
    [
        b"200",
        b"404",
        b"TEXT/Event-Stream;charset=utf-8",
        b"\x07:status\x1a\x01",
        b"\x10upstream.address\x12\x11\x1a\x0f10.0.0.66:8000",
        b"10.0.0.66:8000",
    ]
)
NUMBERS = st.floats() | st.integers(0, 1000) | st.sampled_from([200, 200.5, 99, 600, 1e300])
ENDPOINTS = st.sampled_from(
    ["10.0.0.1:8000", "[fd00::1]:8000", "", "x" * 64, "x" * 65, "x" * 200]
) | st.text(max_size=70)
DETAILS = st.sampled_from(
    ["via_upstream", "", "upstream_reset_before_response_started{x}", "y" * 120, "z" * 400]
) | st.text(max_size=20)
ATTRIBUTES: st.SearchStrategy[dict[str, str | float]] = st.fixed_dictionaries(
    {},
    optional={
        "upstream.address": ENDPOINTS | NUMBERS,
        "response.code": NUMBERS | st.sampled_from(["200", ""]),
        "response.code_details": DETAILS | NUMBERS,
        "response.size": NUMBERS,
    },
)


@given(
    st.sampled_from(["200", "503", "099", "600", "20", "2000", "²00", "x", ""]),
    st.booleans(),
    st.sampled_from(["text/event-stream", "application/json", "text/event-streams", ""]),
    st.none() | ATTRIBUTES,
    st.none() | ENDPOINTS,
    st.lists(st.tuples(RESPONSE_KEYS, RESPONSE_VALUES), max_size=6),
)
@example("200", False, "text/event-stream", {}, None, [("server", b"/" * 15_000)])
@example("200", False, "text/event-stream", {}, None, [("server", b"/" * 17_000)])
@example("200", False, "", {"response.code": float("nan")}, None, [])
@example("", False, "", {"response.code": float("inf")}, None, [])
def test_the_headers_of_a_response_are_read_as_protobuf_reads_them(
    status: str,
    ends: bool,
    content_type: str,
    attributes: dict[str, str | float] | None,
    served: str | None,
    headers: list[tuple[str, bytes]],
) -> None:
    request = response_headers(
        status,
        end=ends,
        content_type=content_type,
        attributes=attributes,
        served=served,
        headers=headers,
    )
    data = request.SerializeToString()
    by_protobuf = read_by_protobuf(data, NAMES)
    for given_as in (data, bytearray(data)):
        read = wire_format.read_response_headers(given_as, NAMES)
        assert read is None or read == by_protobuf
        assert read_event(given_as, NAMES) == by_protobuf
    assert isinstance(by_protobuf, ResponseHeaders)
    answer = by_protobuf.answer
    assert answer.status == 0 or 100 <= answer.status <= 599
    assert len(answer.served_by) <= 64
    assert len(answer.details) <= 256


REAL_ANSWER = (
    b"\x1a\xe5\x01\n\xe2\x01\n\x0e\n\x07:status\x1a\x03200\n\x0f\n\x05x-pod\x1a\x06vllm-0\n0\n"
    b"\x0ccontent-type\x1a text/event-stream; charset=utf-8\n\x1c\n\x11transfer-encoding\x1a\x07"
    b"chunked\n%\n\x04date\x1a\x1dSat, 28 Nov 2026 06:03:48 GMT\n$\n\x06server\x1a\x1aPython/3.11 "
    b'aiohttp/3.14.5\n"\n\x1dx-envoy-upstream-service-time\x1a\x011BC\nA\n\x08envoy.lb\x125\n3\n\x1e'
    b"x-gateway-destination-endpoint\x12\x11\x1a\x0f127.0.0.1:33489J\x8b\x01\n\x1benvoy.filters.http"
    b".ext_proc\x12l\n\x1a\n\rresponse.code\x12\t\x11\x00\x00\x00\x00\x00\x00i@\n'\n\x15response."
    b"code_details\x12\x0e\x1a\x0cvia_upstream\n%\n\x10upstream.address\x12\x11\x1a\x0f127.0.0.1:33489"
)
"""What Envoy 1.40 sends."""


def test_the_headers_of_a_response_are_read_fast_as_envoy_sends_them() -> None:
    read = wire_format.read_response_headers(REAL_ANSWER, NAMES)

    answer = Answer(200, "127.0.0.1:33489", "via_upstream")
    assert read == ResponseHeaders(
        answer, event_stream=True, ends=False, content_type="text/event-stream; charset=utf-8"
    )
    assert read == read_by_protobuf(REAL_ANSWER, NAMES)


@pytest.mark.parametrize(
    "request_",
    [
        response_headers(first=ProcessingMode.STREAMED),
        response_headers(served="10.0.0.1:8000"),
        response_headers(headers=[("x", b"y" * 17_000)]),
        response_headers(attributes={"response.code_details": "x" * 300}),
        ProcessingRequest(response_headers=HttpHeaders()),
    ],
    ids=["first-message", "served", "long-list", "long-details", "empty"],
)
def test_what_is_unusual_in_a_response_is_left_to_protobuf(request_: ProcessingRequest) -> None:
    data = request_.SerializeToString()
    assert wire_format.read_response_headers(data, NAMES) is None
    assert read_event(data, NAMES) == read_by_protobuf(data, NAMES)


def test_an_attribute_that_is_not_valid_is_unknown_and_does_no_harm() -> None:
    request = response_headers("204", attributes=served_by("10.0.0.1:8000"))
    data = request.SerializeToString().replace(b"via_upstream", b"via_\xff\xfestream")

    read = read_event(data, NAMES)
    assert read == read_by_protobuf(data, NAMES)
    assert isinstance(read, ResponseHeaders)
    assert read.answer == Answer(204)


def smuggled(name: str, value: bytes, length: int) -> bytes:
    """Return the value of a header that has the encoding of another header in it."""
    return (bytes([len(name)]) + name.encode() + b"\x1a" + bytes([len(value)]) + value).ljust(
        length, b"."
    )


@pytest.mark.parametrize("length", [10, 1_280, 1_407])
def test_no_value_passes_for_a_header_because_its_length_is_encoded_as_a_line_feed(
    length: int,
) -> None:
    response = response_headers(
        "200",
        content_type="",
        headers=[("x", smuggled("content-type", b"text/event-stream", 1_280))],
    )
    response.response_headers.headers.headers.pop(0)
    response.response_headers.headers.headers.insert(
        0, HeaderValue(key="x", raw_value=smuggled(":status", b"2", length))
    )
    request = request_headers(headers=[("x", smuggled("routing-strategy", b"random", 1_280))])
    for each in (response, request):
        data = each.SerializeToString()
        assert read_event(data, NAMES) == read_by_protobuf(data, NAMES)


LONG = st.sampled_from([16_370, 16_383, 16_384, 2**21]).map(lambda size: b"x" * size)


@given(st.binary(max_size=300) | LONG, st.booleans())
def test_a_body_is_read_as_protobuf_reads_it(body: bytes, ends: bool) -> None:
    data = request_body(body, end=ends).SerializeToString()
    for given_as in (data, bytearray(data)):
        read = wire_format.read_request_body(given_as)
        # Protobuf does not encode an empty body, so the fast reader finds only an empty last one.
        assert read == (read_by_protobuf(data, NAMES) if body or ends else None)


@given(st.binary(max_size=300) | LONG, st.booleans())
def test_a_body_of_a_response_is_read_as_protobuf_reads_it(body: bytes, ends: bool) -> None:
    data = response_body(body, end=ends).SerializeToString()
    for given_as in (data, bytearray(data)):
        read = wire_format.read_response_body(given_as)
        assert read == (read_by_protobuf(data, NAMES) if body else None)


def test_a_body_of_a_response_that_begins_the_stream_is_left_to_protobuf() -> None:
    request = response_body(b"token", end=False)
    request.protocol_config.response_body_mode = ProcessingMode.FULL_DUPLEX_STREAMED
    data = request.SerializeToString()
    assert wire_format.read_response_body(data) is None
    assert read_event(data, NAMES) == read_by_protobuf(data, NAMES)


def test_what_stands_beside_a_body_is_skipped() -> None:
    request = request_body(b"{}")
    request.metadata_context.filter_metadata["envoy.lb"].CopyFrom(Struct())
    assert wire_format.read_request_body(request.SerializeToString()) == RequestBody(b"{}", True)
    # As Envoy encodes an empty last piece without metadata.
    empty = request_body(b"").SerializeToString() + b"\x42\x00"
    assert wire_format.read_request_body(empty) == RequestBody(b"", True)


@pytest.mark.parametrize("request_", [request_headers(), request_body(b"{}"), request_trailers()])
def test_a_message_that_only_observes_is_that_and_nothing_else(request_: ProcessingRequest) -> None:
    request = ProcessingRequest()
    request.CopyFrom(request_)
    request.observability_mode = True
    assert read_event(request.SerializeToString(), NAMES) == Observation()


def headers_left_to_protobuf(request: ProcessingRequest, names: HeaderNames = NAMES) -> None:
    data = request.SerializeToString()
    assert wire_format.read_request_headers(data, names) is None
    assert read_event(data, names) == read_by_protobuf(data, names)


@pytest.mark.parametrize(
    "other",
    [
        HeaderValue(key=":path", value="/v1/completions"),
        HeaderValue(key="routing-strategy", value="random"),
        HeaderValue(key="routing-strategy", value="random", raw_value=b"least-request"),
        HeaderValue(key="Routing-Strategy", raw_value=b"random"),
        HeaderValue(key="X-Request-Id", value="7"),
    ],
)
def test_headers_that_envoy_would_not_write_are_left_to_protobuf(other: HeaderValue) -> None:
    request = request_headers()
    headers = request.request_headers.headers.headers
    if other.key == ":path":
        del headers[1]
    headers.append(other)
    headers_left_to_protobuf(request)


def test_a_response_header_in_the_older_field_is_left_to_protobuf() -> None:
    headers = [
        HeaderValue(key=":status", raw_value=b"200"),
        HeaderValue(key="content-type", value="text/event-stream"),
    ]
    answer = HttpHeaders(headers=HeaderMap(headers=headers))
    data = ProcessingRequest(response_headers=answer).SerializeToString()
    assert wire_format.read_response_headers(data, NAMES) is None
    event = read_event(data, NAMES)
    assert isinstance(event, ResponseHeaders)
    assert event.event_stream


def test_names_that_are_very_long_are_left_to_protobuf() -> None:
    headers_left_to_protobuf(request_headers(), HeaderNames(strategy="x" * 128))


def test_a_long_companion_is_not_remembered() -> None:
    headers_left_to_protobuf(request_headers(subset=["10.0.0.1:8000"] * 100))
    body = request_body(b"{}").SerializeToString() + b"\x42\x80\x08" + b"\x00" * 1024
    assert wire_format.read_request_body(body) is None


def test_two_messages_in_one_are_left_to_protobuf() -> None:
    headers, body = request_headers().SerializeToString(), request_body(b"{}").SerializeToString()
    assert wire_format.read_request_headers(headers + body, NAMES) is None
    assert wire_format.read_request_body(body + headers) is None


REQUESTS = st.sampled_from(
    [
        request_headers(headers=[("x-request-id", b"1")]),
        request_body(b'{"model": "base"}'),
        request_body(b"x" * 300, end=False),
        request_trailers(),
        response_headers(),
        response_headers(attributes=served_by("10.0.0.1:8000")),
        response_headers(attributes=served_by("10.0.0.1:8000"), served="10.0.0.1:8000"),
        ProcessingRequest(request_body=HttpBody()),
        ProcessingRequest(protocol_config=ProtocolConfiguration()),
    ]
).map(ProcessingRequest.SerializeToString)


@given(REQUESTS, st.data())
def test_nothing_that_is_cut_or_changed_raises_anything_else(
    message: bytes, data: st.DataObject
) -> None:
    changed = bytearray(message[: data.draw(st.integers(0, len(message)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if changed:
            at = data.draw(st.integers(0, len(changed) - 1))
            changed[at] = data.draw(st.integers(0, 255))
    for given_as in (bytes(changed), changed):
        with suppress(UnreadableMessageError):
            read_event(given_as, NAMES)


@given(st.binary(max_size=40))
def test_nothing_at_all_raises_anything_else(data: bytes) -> None:
    with suppress(UnreadableMessageError):
        read_event(data, NAMES)
