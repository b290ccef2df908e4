"""Envoy's end of ``Process`` over the built-in gRPC server, in memory."""

from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from lora_router.extproc.process_call import Process
from lora_router.extproc.transport import PROCESS_PATH
from lora_router.grpc_server.limits import Limits
from tests.unit.extproc.conversation import Conversation
from tests.unit.grpc_server.peer import MAX_MESSAGE, Gateway, RawPeer, Server, message


def said(request: ProcessingRequest) -> bytes:
    """What Envoy writes for it: a gRPC message."""
    return message(request.SerializeToString())


class _Sessions(Server):
    """A server with sessions and a fleet behind it."""

    path = PROCESS_PATH
    conversation: Conversation
    process: Process

    @property
    def idle(self) -> bool:
        """Whether nothing is left of any stream or request."""
        conversation = self.conversation
        return (
            super().idle
            and self.process.open == 0
            and conversation.fleet.ledger.total == 0
            and conversation.context.director.held == 0
            and all(not state.in_flight_adapters for state in conversation.fleet)
        )


class EnvoyPeer(_Sessions, Gateway):
    """Sessions, and a gateway that speaks with them."""

    def __init__(
        self,
        limits: Limits | None = None,
        conversation: Conversation | None = None,
        *,
        reads: bool = True,
    ) -> None:
        self.conversation = conversation or Conversation(max_body_bytes=MAX_MESSAGE)
        self.process = Process(self.conversation.context, MAX_MESSAGE)
        super().__init__(
            limits,
            methods={PROCESS_PATH: self.process.open_call},
            clock=self.conversation.clock,
            reads=reads,
        )

    def tell(self, number: int, *requests: ProcessingRequest) -> None:
        """Say something on a stream."""
        for request in requests:
            self.say(number, request.SerializeToString())

    def answers(self, number: int) -> list[ProcessingResponse]:
        """What came back."""
        return [ProcessingResponse.FromString(data) for data in self.messages(number)]


class RawEnvoyPeer(_Sessions, RawPeer):
    """Sessions, and a client that sends any frames it likes."""

    def __init__(
        self, limits: Limits | None = None, conversation: Conversation | None = None
    ) -> None:
        self.conversation = conversation or Conversation(max_body_bytes=MAX_MESSAGE)
        self.process = Process(self.conversation.context, MAX_MESSAGE)
        super().__init__(
            limits,
            methods={PROCESS_PATH: self.process.open_call},
            clock=self.conversation.clock,
        )
