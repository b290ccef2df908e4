"""``Exchange`` on the built-in gRPC server."""

from lora_router.grpc_server.call_headers import CallHeaders
from lora_router.grpc_server.grpc_messages import Message
from lora_router.grpc_server.message_call import MessageCall
from lora_router.grpc_server.status import OK
from lora_router.grpc_server.stream import OVER, Call, Stream
from lora_router.peering.limits import MAX_MESSAGE_BYTES
from lora_router.peering.link import Ending
from lora_router.peering.secret import HEADER
from lora_router.peering.service import WORKER_HEADER, PeerService


class Exchange:
    """The method."""

    def __init__(self, service: PeerService) -> None:
        self._service = service

    def open_call(self, stream: Stream, headers: CallHeaders) -> Call:
        """Open a call on a new stream, or refuse it."""
        refusal = self._service.refusal(headers.fields.get(HEADER.encode(), b""))
        if refusal is not None:
            stream.finish(*refusal)
            return OVER
        return ExchangeCall(self._service, stream, headers)


class ExchangeCall(MessageCall):
    """One call, which is the link of a conversation of this worker or of another one."""

    __slots__ = ("_receiver",)

    def __init__(self, service: PeerService, stream: Stream, headers: CallHeaders) -> None:
        super().__init__(stream, headers, MAX_MESSAGE_BYTES)
        worker = headers.fields.get(WORKER_HEADER.encode(), b"")
        self._receiver = service.accept(self, worker)

    # The link

    @property
    def is_ready(self) -> bool:
        """Whether nothing that was sent still waits for the peer's window."""
        return not self.stream.queue

    def send(self, message: bytes) -> None:
        """Send a message."""
        if self.is_open:
            self.stream.send_message(message)
            self.stream.wake()

    def close(self, ending: Ending) -> None:
        """End the stream."""
        if self.is_open:
            self.finish(*ending)
            self.stream.wake()

    # The call

    def message(self, message: Message) -> None:
        """Pass a message on."""
        ending = self._receiver.receive(bytes(message))
        if ending is not None:
            self.close(ending)

    def request_ended(self) -> None:
        """End the call, because the peer sends no more."""
        self.finish(OK)

    def closed(self) -> None:
        """End the conversation."""
        self._receiver.ended()
