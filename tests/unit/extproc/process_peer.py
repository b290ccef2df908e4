"""Envoy's side of ``Process`` over the built-in gRPC server, in memory."""

from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from lora_router.extproc.process_call import Process
from lora_router.extproc.transport import PROCESS_PATH
from lora_router.grpc_server.limits import Limits
from tests.unit.extproc.conversation import Conversation
from tests.unit.grpc_server.peer import MAX_MESSAGE, Gateway, RawPeer, Server, message


def said(request: ProcessingRequest) -> bytes:
    """Return the gRPC message that Envoy sends for a request."""
    return message(request.SerializeToString())


class _Sessions(Server):
    """A server with sessions and a fleet behind it."""

    path = PROCESS_PATH
    conversation: Conversation
    process: Process

    @property
    def idle(self) -> bool:
        """Whether no stream, request or count remains."""
        conversation = self.conversation
        return (
            super().idle
            and self.process.open == 0
            and conversation.fleet.ledger.total == 0
            and conversation.context.director.held == 0
            and all(not state.in_flight_adapters for state in conversation.fleet)
        )


class EnvoyPeer(_Sessions, Gateway):
    """A server with sessions, and a gateway that calls it."""

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
        """Send messages on a stream."""
        for request in requests:
            self.say(number, request.SerializeToString())

    def answers(self, number: int) -> list[ProcessingResponse]:
        """Return the answers received on a stream."""
        return [ProcessingResponse.FromString(data) for data in self.messages(number)]


class RawEnvoyPeer(_Sessions, RawPeer):
    """A server with sessions, and a client that sends arbitrary frames."""

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
