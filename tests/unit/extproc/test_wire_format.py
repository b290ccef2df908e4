"""Messages read from their bytes: the same as protobuf reads, or left to protobuf."""

from google.protobuf.struct_pb2 import Struct
from hypothesis import example, given
from hypothesis import strategies as st

from lora_router.extproc.messages import HeaderNames, RequestHeaders, Setup, read_head, read_setup
from lora_router.extproc.pb.core_pb2 import HeaderMap, HeaderValue
from lora_router.extproc.pb.ext_proc_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProtocolConfiguration,
)
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.wire_format import body_message, first_message
from tests.unit.extproc.conversation import request_body, request_headers, request_trailers

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
VALUES = NO_LINE_FEED | st.sampled_from(
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
    for given_as in (data, bytearray(data)):
        read = first_message(given_as, NAMES)
        assert read is None or read == by_protobuf(request)
    # Lists below 16 KB are what this is for.
    assert (read is None) == (request.request_headers.headers.ByteSize() >= 1 << 14)


def by_protobuf(request: ProcessingRequest) -> tuple[RequestHeaders, bool, Setup]:
    headers = request.request_headers
    return read_head(headers.headers, NAMES), headers.end_of_stream, read_setup(request)


@given(st.binary(max_size=300) | st.binary(min_size=16_000, max_size=17_000), st.booleans())
@example(b"x" * 2**21, True)
def test_a_body_is_read_as_protobuf_reads_it(body: bytes, ends: bool) -> None:
    data = request_body(body, end=ends).SerializeToString()
    for given_as in (data, bytearray(data)):
        read = body_message(given_as)
        # An empty body is not written, and so not looked for.
        assert read is None if not body else read == (body, ends)


def test_what_stands_beside_a_body_is_skipped() -> None:
    request = request_body(b"{}")
    request.metadata_context.filter_metadata["envoy.lb"].CopyFrom(Struct())
    assert body_message(request.SerializeToString()) == (b"{}", True)


def test_a_message_that_only_tells_is_left_to_protobuf() -> None:
    request = request_body(b"{}")
    request.observability_mode = True
    assert body_message(request.SerializeToString()) is None


def test_a_first_message_that_only_tells_says_so() -> None:
    request = request_headers()
    request.observability_mode = True
    read = first_message(request.SerializeToString(), NAMES)
    assert read is not None
    assert read[2].only_tells


def test_values_in_the_older_field_are_left_to_protobuf() -> None:
    headers = HeaderMap(headers=[HeaderValue(key=":path", value="/v1/completions")])
    request = ProcessingRequest(request_headers=HttpHeaders(headers=headers))
    assert first_message(request.SerializeToString(), NAMES) is None


def test_names_that_are_very_long_are_left_to_protobuf() -> None:
    names = HeaderNames(strategy="x" * 128)
    assert first_message(request_headers().SerializeToString(), names) is None


def test_two_messages_in_one_are_left_to_protobuf() -> None:
    headers, body = request_headers().SerializeToString(), request_body(b"{}").SerializeToString()
    assert first_message(headers + body, NAMES) is None
    assert body_message(body + headers) is None


def test_a_long_companion_is_not_remembered() -> None:
    request = request_headers(subset=["10.0.0.1:8000"] * 100)
    assert first_message(request.SerializeToString(), NAMES) is None
    body = request_body(b"{}").SerializeToString() + b"\x42\x80\x08" + b"\x00" * 1024
    assert body_message(body) is None


REQUESTS = st.sampled_from(
    [
        request_headers(headers=[("x-request-id", b"1")]),
        request_body(b'{"model": "base"}'),
        request_body(b"x" * 300, end=False),
        request_trailers(),
        ProcessingRequest(request_body=HttpBody()),
        ProcessingRequest(protocol_config=ProtocolConfiguration()),
    ]
).map(ProcessingRequest.SerializeToString)


@given(REQUESTS, st.data())
def test_nothing_that_is_cut_or_changed_raises(message: bytes, data: st.DataObject) -> None:
    changed = bytearray(message[: data.draw(st.integers(0, len(message)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if changed:
            at = data.draw(st.integers(0, len(changed) - 1))
            changed[at] = data.draw(st.integers(0, 255))
    first_message(bytes(changed), NAMES)
    body_message(changed)


@given(st.binary(max_size=40))
def test_nothing_at_all_raises(data: bytes) -> None:
    first_message(data, NAMES)
    body_message(data)
