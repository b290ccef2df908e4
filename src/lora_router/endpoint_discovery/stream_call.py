"""``StreamEndpoints`` on the built-in gRPC server."""

from lora_router.endpoint_discovery.service import MAX_REQUEST_BYTES, EndpointDiscovery
from lora_router.endpoint_discovery.subscription import RequestError, Subscription
from lora_router.grpc_server.call_headers import CallHeaders
from lora_router.grpc_server.grpc_messages import Message
from lora_router.grpc_server.message_call import MessageCall
from lora_router.grpc_server.status import INVALID_ARGUMENT, OK, UNAVAILABLE
from lora_router.grpc_server.stream import OVER, Call, Stream


class StreamEndpoints:
    """The method."""

    def __init__(self, discovery: EndpointDiscovery) -> None:
        self._discovery = discovery

    def open_call(self, stream: Stream, headers: CallHeaders) -> Call:
        """Open a call on a new stream, or refuse it."""
        refusal = self._discovery.refusal()
        if refusal is not None:
            stream.finish(UNAVAILABLE, f"lora-router: {refusal}")
            return OVER
        return EndpointCall(self._discovery, stream, headers)


class EndpointCall(MessageCall):
    """One call: an Envoy's subscription."""

    __slots__ = ("_discovery", "_subscription")

    def __init__(self, discovery: EndpointDiscovery, stream: Stream, headers: CallHeaders) -> None:
        super().__init__(stream, headers, MAX_REQUEST_BYTES)
        self._discovery = discovery
        self._subscription = Subscription(discovery.list)
        discovery.joined(self)

    def message(self, message: Message) -> None:
        """Handle a request of the Envoy, and send what it waits for."""
        try:
            rejected = self._subscription.receive(bytes(message))
        except RequestError as error:
            self.finish(INVALID_ARGUMENT, f"lora-router: {error}")
            return
        if rejected is not None:
            self._discovery.was_rejected(rejected)
        self._send()

    def request_ended(self) -> None:
        """End the call, because the Envoy wants no more."""
        self.finish(OK)

    def closed(self) -> None:
        """Leave the service."""
        self._discovery.left(self)

    def send_due(self) -> None:
        """Send a new version of the list."""
        self._send()
        self.stream.wake()

    def shut_down(self) -> None:
        """End the call, because this router stops."""
        self.finish(UNAVAILABLE, "lora-router: shutting down")
        self.stream.wake()

    def _send(self) -> None:
        response = self._subscription.take()
        if response is not None:
            self.stream.send_message(response)
