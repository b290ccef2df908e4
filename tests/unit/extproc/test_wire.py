"""Compares our .proto files with an independent codec of Envoy's API (envoy-data-plane)."""

import importlib.util
from datetime import timedelta
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as filter_v3
from envoy_data_plane.envoy.service.ext_proc import v3 as theirs
from envoy_data_plane.envoy.type import v3 as type_v3
from envoy_data_plane.google.protobuf import ListValue, Struct, Value
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from lora_router.extproc.pb import core_pb2, ext_proc_pb2, http_status_pb2, processing_mode_pb2
from lora_router.extproc.pb import ext_proc_pb2 as ours

ROOT = Path(__file__).parents[3]


def string(text: str) -> Value:
    return Value(string_value=text)


HEADERS = core.HeaderMap(
    headers=[
        core.HeaderValue(key=":path", raw_value=b"/v1/completions"),
        core.HeaderValue(key="odd", value="text", raw_value=b"\xff\xfe"),
    ]
)

FROM_ENVOY = {
    "request_headers": theirs.ProcessingRequest(
        request_headers=theirs.HttpHeaders(headers=HEADERS, end_of_stream=True),
        protocol_config=theirs.ProtocolConfiguration(
            request_body_mode=filter_v3.ProcessingModeBodySendMode.FULL_DUPLEX_STREAMED,
            response_body_mode=filter_v3.ProcessingModeBodySendMode.STREAMED,
            send_body_without_waiting_for_header_response=True,
        ),
        metadata_context=core.Metadata(
            filter_metadata={
                "envoy.lb.subset_hint": Struct(
                    fields={"list": Value(list_value=ListValue(values=[string("10.0.0.1:80")]))}
                )
            }
        ),
        observability_mode=True,
        # Fields that the router does not read are skipped.
        attributes={"envoy.filters.http.ext_proc": Struct(fields={"request.path": string("/")})},
    ),
    "request_body": theirs.ProcessingRequest(
        request_body=theirs.HttpBody(
            body=b'{"model":"a"}', end_of_stream=True, end_of_stream_without_message=True
        )
    ),
    "request_trailers": theirs.ProcessingRequest(
        request_trailers=theirs.HttpTrailers(trailers=HEADERS)
    ),
    "response_headers": theirs.ProcessingRequest(
        response_headers=theirs.HttpHeaders(headers=HEADERS)
    ),
    "response_body": theirs.ProcessingRequest(
        response_body=theirs.HttpBody(body=b"x", end_of_stream=False)
    ),
    "response_trailers": theirs.ProcessingRequest(
        response_trailers=theirs.HttpTrailers(trailers=HEADERS)
    ),
}


@pytest.mark.parametrize("kind", FROM_ENVOY)
def test_each_kind_of_message_from_envoy_is_read_as_its_own_kind(kind: str) -> None:
    request = ours.ProcessingRequest.FromString(bytes(FROM_ENVOY[kind]))

    assert request.WhichOneof("request") == kind


def test_every_field_that_is_read_of_the_headers_message_arrives() -> None:
    request = ours.ProcessingRequest.FromString(bytes(FROM_ENVOY["request_headers"]))

    assert [(h.key, h.value, h.raw_value) for h in request.request_headers.headers.headers] == [
        (":path", "", b"/v1/completions"),
        ("odd", "text", b"\xff\xfe"),
    ]
    assert request.request_headers.end_of_stream
    assert request.observability_mode
    mode = processing_mode_pb2.ProcessingMode
    assert request.protocol_config.request_body_mode == mode.FULL_DUPLEX_STREAMED
    assert request.protocol_config.response_body_mode == mode.STREAMED
    assert request.protocol_config.send_body_without_waiting_for_header_response
    hint = request.metadata_context.filter_metadata["envoy.lb.subset_hint"]
    assert hint.fields["list"].list_value.values[0].string_value == "10.0.0.1:80"


def test_every_field_that_is_read_of_bodies_and_trailers_arrives() -> None:
    body = ours.ProcessingRequest.FromString(bytes(FROM_ENVOY["request_body"])).request_body
    assert (body.body, body.end_of_stream) == (b'{"model":"a"}', True)

    trailers = ours.ProcessingRequest.FromString(bytes(FROM_ENVOY["request_trailers"]))
    assert trailers.request_trailers.trailers.headers[1].raw_value == b"\xff\xfe"


def test_fields_that_are_not_ours_are_skipped_and_lose_nothing() -> None:
    data = bytes(FROM_ENVOY["request_headers"])
    # Field 500 is unknown and length-delimited.
    unknown = b"\xa2\x1f\x03new"

    assert ours.ProcessingRequest.FromString(unknown + data + unknown).request_headers.end_of_stream


def read_by_envoy(response: ours.ProcessingResponse) -> theirs.ProcessingResponse:
    return theirs.ProcessingResponse.parse(response.SerializeToString())


def response_of(kind: str, answer: Message) -> ours.ProcessingResponse:
    response = ours.ProcessingResponse()
    getattr(response, kind).CopyFrom(answer)
    return response


def common_response() -> ours.CommonResponse:
    option = core_pb2.HeaderValueOption
    return ours.CommonResponse(
        status=ours.CommonResponse.CONTINUE_AND_REPLACE,
        header_mutation=ours.HeaderMutation(
            set_headers=[
                option(
                    header=core_pb2.HeaderValue(key="target-pod", raw_value=b"10.0.0.1:80"),
                    append_action=option.OVERWRITE_IF_EXISTS_OR_ADD,
                )
            ],
            remove_headers=["model"],
        ),
        clear_route_cache=True,
    )


def check_common_response(common: theirs.CommonResponse | None) -> None:
    assert common is not None
    assert common.status == theirs.CommonResponseResponseStatus.CONTINUE_AND_REPLACE
    assert common.clear_route_cache
    assert common.header_mutation is not None
    (option,) = common.header_mutation.set_headers
    assert option.header == core.HeaderValue(key="target-pod", raw_value=b"10.0.0.1:80")
    assert (
        option.append_action == core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    )
    assert common.header_mutation.remove_headers == ["model"]


@pytest.mark.parametrize("kind", ["request_headers", "response_headers"])
def test_envoy_reads_our_answers_to_headers(kind: str) -> None:
    answer = ours.HeadersResponse(response=common_response())

    read = getattr(read_by_envoy(response_of(kind, answer)), kind)

    check_common_response(read.response)


@pytest.mark.parametrize("kind", ["request_body", "response_body"])
def test_envoy_reads_our_answers_to_bodies(kind: str) -> None:
    common = common_response()
    common.body_mutation.streamed_response.body = b"piece"
    common.body_mutation.streamed_response.end_of_stream = True
    answer = ours.BodyResponse(response=common)

    read = getattr(read_by_envoy(response_of(kind, answer)), kind)

    check_common_response(read.response)
    assert read.response.body_mutation.streamed_response == theirs.StreamedBodyResponse(
        body=b"piece", end_of_stream=True
    )


@pytest.mark.parametrize("kind", ["request_trailers", "response_trailers"])
def test_envoy_reads_our_answers_to_trailers(kind: str) -> None:
    answer = ours.TrailersResponse(header_mutation=ours.HeaderMutation(remove_headers=["x"]))

    read = getattr(read_by_envoy(response_of(kind, answer)), kind)

    assert read.header_mutation.remove_headers == ["x"]


def test_envoy_reads_our_immediate_response() -> None:
    answer = ours.ImmediateResponse(
        status=http_status_pb2.HttpStatus(code=http_status_pb2.PayloadTooLarge),
        headers=ours.HeaderMutation(remove_headers=["x"]),
        body=b"{}",
        details="why",
    )

    read = read_by_envoy(ours.ProcessingResponse(immediate_response=answer)).immediate_response

    assert read is not None
    assert read.status == type_v3.HttpStatus(code=type_v3.StatusCode.PayloadTooLarge)
    assert read.headers is not None
    assert (read.headers.remove_headers, read.body, read.details) == (["x"], b"{}", "why")


def test_envoy_reads_metadata_mode_and_time_limit() -> None:
    response = ours.ProcessingResponse()
    namespace = response.dynamic_metadata.fields["envoy.lb"].struct_value
    namespace.fields["x-gateway-destination-endpoint"].string_value = "10.0.0.1:80"
    mode = processing_mode_pb2.ProcessingMode
    response.mode_override.CopyFrom(
        mode(
            request_header_mode=mode.SEND,
            response_header_mode=mode.SKIP,
            request_body_mode=mode.BUFFERED,
            response_body_mode=mode.BUFFERED_PARTIAL,
            request_trailer_mode=mode.SKIP,
            response_trailer_mode=mode.SEND,
        )
    )
    response.override_message_timeout.FromMilliseconds(32500)

    read = read_by_envoy(response)

    assert read.dynamic_metadata == Struct(
        fields={
            "envoy.lb": Value(
                struct_value=Struct(
                    fields={"x-gateway-destination-endpoint": string("10.0.0.1:80")}
                )
            )
        }
    )
    header, body = filter_v3.ProcessingModeHeaderSendMode, filter_v3.ProcessingModeBodySendMode
    assert read.mode_override == filter_v3.ProcessingMode(
        request_header_mode=header.SEND,
        response_header_mode=header.SKIP,
        request_body_mode=body.BUFFERED,
        response_body_mode=body.BUFFERED_PARTIAL,
        request_trailer_mode=header.SKIP,
        response_trailer_mode=header.SEND,
    )
    assert read.override_message_timeout == timedelta(seconds=32.5)


THEIR_MODULES = {
    "envoy.config.core.v3": core,
    "envoy.type.v3": type_v3,
    "envoy.extensions.filters.http.ext_proc.v3": filter_v3,
    "envoy.service.ext_proc.v3": theirs,
}


def our_messages() -> list[Descriptor]:
    files = (ext_proc_pb2, core_pb2, http_status_pb2, processing_mode_pb2)
    return [message for file in files for message in file.DESCRIPTOR.message_types_by_name.values()]


@pytest.mark.parametrize("message", our_messages(), ids=lambda message: message.full_name)
def test_each_field_has_envoys_name_number_and_shape(message: Descriptor) -> None:
    their_class = getattr(THEIR_MODULES[message.file.package], message.name)
    their_fields = {
        field.name: field.metadata["betterproto"]
        for field in their_class.__dataclass_fields__.values()
    }
    for field in message.fields:
        meta = their_fields[field.name]
        assert meta.number == field.number, field.full_name
        assert meta.proto_type == PROTO_TYPES[field.type] or meta.map_meta, field.full_name
        assert bool(meta.repeated or meta.map_meta) == field.is_repeated, field.full_name
        assert meta.group == (field.containing_oneof and field.containing_oneof.name)


PROTO_TYPES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_MESSAGE: "message",
}


def test_each_enum_value_has_envoys_number() -> None:
    option = core_pb2.HeaderValueOption.HeaderAppendAction
    pairs = [
        (option, core.HeaderValueOptionHeaderAppendAction),
        (ours.CommonResponse.ResponseStatus, theirs.CommonResponseResponseStatus),
        (
            processing_mode_pb2.ProcessingMode.HeaderSendMode,
            filter_v3.ProcessingModeHeaderSendMode,
        ),
        (processing_mode_pb2.ProcessingMode.BodySendMode, filter_v3.ProcessingModeBodySendMode),
    ]
    for our_enum, their_enum in pairs:
        assert dict(our_enum.items()) == {value.name: value.value for value in their_enum}

    for name, number in http_status_pb2.StatusCode.items():
        assert type_v3.StatusCode[name].value == number


def test_the_generated_code_is_up_to_date(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("compile", ROOT / "proto" / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    module.compile_into(tmp_path)

    made = [path for path in (tmp_path / "lora_router").rglob("*.py*") if path.is_file()]
    packages = {"extproc", "endpoint_discovery", "grpc_server", "peering", "telemetry"}
    assert {path.parts[-3] for path in made} == packages
    for path in made:
        committed = ROOT / "src" / path.relative_to(tmp_path)
        assert path.read_text() == committed.read_text(), (
            f"{path.name} is out of date: run `make proto`"
        )
