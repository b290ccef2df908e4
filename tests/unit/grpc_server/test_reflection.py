"""gRPC server reflection, as grpcurl asks."""

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from lora_router.extproc.transport import PROCESS_PATH, REFLECTED
from lora_router.grpc_server.pb.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)
from lora_router.grpc_server.reflection import METHOD, SERVICES, Reflection
from tests.unit.grpc_server.peer import Gateway

REFLECTION = Reflection(REFLECTED)
PROCESSOR = "envoy.service.ext_proc.v3.ExternalProcessor"


def answer(**asked: str) -> ServerReflectionResponse:
    request = ServerReflectionRequest(**asked)
    response = ServerReflectionResponse.FromString(REFLECTION.answer(request.SerializeToString()))
    assert response.original_request == request
    return response


def test_it_lists_the_services() -> None:
    listed = answer(list_services="*").list_services_response.service
    assert {each.name for each in listed} == {PROCESSOR, "grpc.health.v1.Health"}


@pytest.mark.parametrize("symbol", [PROCESSOR, f"{PROCESSOR}.Process", "grpc.health.v1.Health"])
def test_a_client_can_build_a_service_from_what_it_is_told(symbol: str) -> None:
    pool = DescriptorPool()
    files = answer(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto
    named = {each.name: each for each in map(FileDescriptorProto.FromString, files)}

    def add(file: FileDescriptorProto) -> None:
        for dependency in file.dependency:
            add(named[dependency])
        pool.Add(file)

    for file in named.values():
        add(file)
    service = symbol.removesuffix(".Process")
    assert pool.FindServiceByName(service).full_name == service


def test_it_describes_files_and_nested_messages() -> None:
    file = answer(file_containing_symbol="grpc.health.v1.HealthCheckResponse.ServingStatus")
    name = FileDescriptorProto.FromString(file.file_descriptor_response.file_descriptor_proto[0])
    assert answer(file_by_filename=name.name).HasField("file_descriptor_response")


@pytest.mark.parametrize("asked", [{"file_by_filename": "x"}, {"file_containing_symbol": "x.Y"}])
def test_an_unknown_name_is_not_found(asked: dict[str, str]) -> None:
    assert answer(**asked).error_response.error_code == 5


def test_other_questions_are_not_supported() -> None:
    assert answer().error_response.error_code == 12


@pytest.mark.parametrize("service", SERVICES)
def test_both_versions_are_served(service: str) -> None:
    gateway = Gateway(methods=REFLECTION.methods)
    number = gateway.open(f"/{service}/{METHOD}")
    for _ in range(2):
        gateway.say(number, ServerReflectionRequest(list_services="").SerializeToString())
    gateway.end(number)

    answers = [ServerReflectionResponse.FromString(each) for each in gateway.messages(number)]
    assert [len(each.list_services_response.service) for each in answers] == [2, 2]
    assert gateway.status(number) == 0
    assert PROCESS_PATH.startswith(f"/{PROCESSOR}/")


def test_a_message_of_another_kind_ends_only_its_stream() -> None:
    gateway = Gateway(methods=REFLECTION.methods)
    number = gateway.open(f"/{SERVICES[0]}/{METHOD}")
    gateway.say(number, b"\xff")
    assert gateway.status(number) == 3
