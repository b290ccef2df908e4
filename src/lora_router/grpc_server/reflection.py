"""gRPC server reflection: clients such as grpcurl ask which services there are, and of what kind.

Source: grpc/doc/server-reflection.md. ``v1`` and ``v1alpha`` are the same messages.
"""

from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.message import DecodeError

from lora_router.grpc_server.call_headers import CallHeaders
from lora_router.grpc_server.grpc_messages import Message
from lora_router.grpc_server.message_call import MessageCall
from lora_router.grpc_server.methods import Method
from lora_router.grpc_server.pb.reflection_pb2 import (
    ErrorResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)
from lora_router.grpc_server.status import INVALID_ARGUMENT, NOT_FOUND, OK, UNIMPLEMENTED
from lora_router.grpc_server.stream import Stream

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
METHOD = "ServerReflectionInfo"
_LONGEST_REQUEST_BYTES = 4096
"""A request contains only a name."""


class Reflection:
    """What a server tells of its services. No I/O."""

    def __init__(self, files: Iterable[FileDescriptor]) -> None:
        """Create it for the services that some files define."""
        self._services: list[str] = []
        self._by_name: dict[str, FileDescriptor] = {}
        self._by_symbol: dict[str, FileDescriptor] = {}
        self.calls: dict[MessageCall, None] = {}
        """The open calls."""
        for file in files:
            self._services += [service.full_name for service in file.services_by_name.values()]
            for each in _with_dependencies(file):
                self._by_name[each.name] = each
                self._by_symbol.update(dict.fromkeys(_symbols(each), each))

    def answer(self, request: bytes) -> bytes:
        """Return the answer to a request.

        Raises:
            DecodeError: It is another message.
        """
        asked = ServerReflectionRequest.FromString(request)
        response = ServerReflectionResponse(original_request=asked)
        match asked.WhichOneof("message_request"):
            case "list_services":
                listed = [ServiceResponse(name=name) for name in self._services]
                response.list_services_response.CopyFrom(ListServiceResponse(service=listed))
            case "file_by_filename":
                _describe(response, self._by_name.get(asked.file_by_filename))
            case "file_containing_symbol":
                _describe(response, self._by_symbol.get(asked.file_containing_symbol))
            case _:
                error = ErrorResponse(error_code=UNIMPLEMENTED, error_message="not supported")
                response.error_response.CopyFrom(error)
        return response.SerializeToString()

    @property
    def methods(self) -> Mapping[str, Method]:
        """The methods of the service, by path."""
        return dict.fromkeys(
            (f"/{service}/{METHOD}" for service in SERVICES),
            lambda stream, headers: _ReflectionCall(self, stream, headers),
        )

    def close(self) -> None:
        """End all calls because the server stops."""
        for call in tuple(self.calls):
            call.let_go()
            call.stream.wake()


class _ReflectionCall(MessageCall):
    """A call with any number of questions, each of which is answered at once."""

    __slots__ = ("_reflection",)

    def __init__(self, reflection: Reflection, stream: Stream, headers: CallHeaders) -> None:
        super().__init__(stream, headers, _LONGEST_REQUEST_BYTES)
        self._reflection = reflection
        reflection.calls[self] = None

    def message(self, message: Message) -> None:
        try:
            answer = self._reflection.answer(bytes(message))
        except DecodeError:
            self.finish(INVALID_ARGUMENT, "lora-router: not a ServerReflectionRequest message")
            return
        self.stream.send_message(answer)

    def request_ended(self) -> None:
        self.finish(OK)

    def closed(self) -> None:
        self._reflection.calls.pop(self, None)


def _describe(response: ServerReflectionResponse, file: FileDescriptor | None) -> None:
    if file is None:
        error = ErrorResponse(error_code=NOT_FOUND, error_message="unknown name")
        response.error_response.CopyFrom(error)
        return
    encoded = [each.serialized_pb for each in _with_dependencies(file)]
    described = FileDescriptorResponse(file_descriptor_proto=encoded)
    response.file_descriptor_response.CopyFrom(described)


def _with_dependencies(file: FileDescriptor) -> list[FileDescriptor]:
    """Return a file and all that it imports, each once."""
    found = {file.name: file}
    for each in file.dependencies:
        found.update({other.name: other for other in _with_dependencies(each)})
    return list(found.values())


def _symbols(file: FileDescriptor) -> Iterator[str]:
    for service in file.services_by_name.values():
        yield service.full_name
        yield from (method.full_name for method in service.methods)
    yield from (each.full_name for each in file.enum_types_by_name.values())
    for message in file.message_types_by_name.values():
        yield from _symbols_of_message(message)


def _symbols_of_message(message: Descriptor) -> Iterator[str]:
    yield message.full_name
    yield from (each.full_name for each in message.enum_types)
    for nested in message.nested_types:
        yield from _symbols_of_message(nested)
