"""gRPC's health checking protocol (grpc/doc/health-checking.md): Check and Watch."""

from collections.abc import Mapping

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from lora_router.grpc_server.call_headers import CallHeaders
from lora_router.grpc_server.calls import OK, Method
from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.grpc_messages import INTERNAL, MessageError, MessageReader
from lora_router.grpc_server.stream import Stream

NOT_FOUND = 5
UNAVAILABLE = 14

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN

_SERVICE = "/grpc.health.v1.Health"
_LONGEST_REQUEST_BYTES = 4096
"""A request holds a service's name."""


class Health:
    """The services' states, and who watches them."""

    def __init__(self) -> None:
        self._states: dict[str, HealthCheckResponse.ServingStatus] = {}
        self._watchers: dict[_Watch, None] = {}

    @property
    def methods(self) -> Mapping[str, Method]:
        """The methods, by their paths."""
        return {
            f"{_SERVICE}/Check": lambda stream, head: _Check(self, stream, head),
            f"{_SERVICE}/Watch": lambda stream, head: _Watch(self, stream, head),
        }

    def state(self, service: str) -> HealthCheckResponse.ServingStatus | None:
        """Return a service's state; ``None``: there is no such service."""
        return self._states.get(service)

    def set(self, service: str, state: HealthCheckResponse.ServingStatus) -> None:
        """Set a service's state, and tell those who watch it."""
        if self._states.get(service) == state:
            return
        self._states[service] = state
        for watcher in tuple(self._watchers):
            if watcher.service == service:
                watcher.tell(state)
                watcher.stream.wake()

    def close(self) -> None:
        """End all watching: the server goes."""
        for watcher in tuple(self._watchers):
            watcher.let_go()
            watcher.stream.wake()

    def watch(self, watcher: "_Watch") -> None:
        """Tell a watcher of changes from now on."""
        self._watchers[watcher] = None

    def forget(self, watcher: "_Watch") -> None:
        """Tell it no more."""
        self._watchers.pop(watcher, None)


class _HealthCall:
    """Takes the one message of a request."""

    __slots__ = ("_messages", "_reader", "health", "service", "stream")

    def __init__(self, health: Health, stream: Stream, head: CallHeaders) -> None:
        self.health = health
        self.stream = stream
        self.service = ""
        self._reader = MessageReader(_LONGEST_REQUEST_BYTES, head.encoding)
        self._messages: list[bytes | bytearray] = []

    def data(self, payload: Payload) -> None:
        """Take bytes of the request."""
        try:
            self._messages += self._reader.feed(payload)
        except MessageError as error:
            self.stream.finish(error.code, f"lora-router: {error.message}")
            return
        if len(self._messages) > 1:
            self.stream.finish(INTERNAL, "lora-router: one message was expected")

    def end(self) -> None:
        """Answer."""
        try:
            self._reader.check_end()
            (message,) = self._messages
            self.service = HealthCheckRequest.FromString(bytes(message)).service
        except (MessageError, ValueError, DecodeError):
            self.stream.finish(INTERNAL, "lora-router: not a HealthCheckRequest")
            return
        self.answer()

    def answer(self) -> None:
        """Answer about ``service``."""
        raise NotImplementedError

    def tell(self, state: HealthCheckResponse.ServingStatus) -> None:
        """Say how the service is."""
        self.stream.send_message(HealthCheckResponse(status=state).SerializeToString())

    def gone(self) -> None:
        """Forget it."""

    def let_go(self) -> None:
        """End it: the server goes."""
        self.gone()
        self.stream.finish(UNAVAILABLE, "lora-router: shutting down")


class _Check(_HealthCall):
    __slots__ = ()

    def answer(self) -> None:
        state = self.health.state(self.service)
        if state is None:
            self.stream.finish(NOT_FOUND, "lora-router: there is no such service")
            return
        self.tell(state)
        self.stream.finish(OK)


class _Watch(_HealthCall):
    __slots__ = ()

    def answer(self) -> None:
        state = self.health.state(self.service)
        self.tell(SERVICE_UNKNOWN if state is None else state)
        self.health.watch(self)

    def gone(self) -> None:
        self.health.forget(self)
