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
from lora_router.extproc.events import Observation, RequestBody
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.pb.core_pb2 import HeaderMap, HeaderValue
from lora_router.extproc.pb.ext_proc_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProtocolConfiguration,
)
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
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
    by_protobuf = read_by_protobuf(data, NAMES)
    for given_as in (data, bytearray(data)):
        read = wire_format.read_request_headers(given_as, NAMES)
        assert read is None or read == by_protobuf
    # The fast reader handles lists below 16 KB.
    assert (read is None) == (request.request_headers.headers.ByteSize() >= 1 << 14)


LONG = st.sampled_from([16_370, 16_383, 16_384, 2**21]).map(lambda size: b"x" * size)


@given(st.binary(max_size=300) | LONG, st.booleans())
def test_a_body_is_read_as_protobuf_reads_it(body: bytes, ends: bool) -> None:
    data = request_body(body, end=ends).SerializeToString()
    for given_as in (data, bytearray(data)):
        read = wire_format.read_request_body(given_as)
        # Protobuf does not encode an empty body, so the fast reader does not find it.
        assert read is None if not body else read == read_by_protobuf(data, NAMES)


def test_what_stands_beside_a_body_is_skipped() -> None:
    request = request_body(b"{}")
    request.metadata_context.filter_metadata["envoy.lb"].CopyFrom(Struct())
    assert wire_format.read_request_body(request.SerializeToString()) == RequestBody(b"{}", True)


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


def test_values_in_the_older_field_are_left_to_protobuf() -> None:
    headers = HeaderMap(headers=[HeaderValue(key=":path", value="/v1/completions")])
    headers_left_to_protobuf(ProcessingRequest(request_headers=HttpHeaders(headers=headers)))


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
