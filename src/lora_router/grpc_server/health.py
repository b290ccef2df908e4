"""gRPC's health checking protocol (grpc/doc/health-checking.md): Check, List and Watch."""

from collections.abc import Mapping

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)

from lora_router.grpc_server.call_headers import CallHeaders
from lora_router.grpc_server.grpc_messages import Message
from lora_router.grpc_server.message_call import MessageCall
from lora_router.grpc_server.methods import Method
from lora_router.grpc_server.status import INTERNAL, NOT_FOUND, OK
from lora_router.grpc_server.stream import Stream

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN

_SERVICE = "/grpc.health.v1.Health"
_LONGEST_REQUEST_BYTES = 4096
"""A request contains only the name of a service."""


class Health:
    """The states of services, and the calls that watch them."""

    def __init__(self) -> None:
        self._states: dict[str, HealthCheckResponse.ServingStatus] = {}
        self._watchers: dict[_Watch, None] = {}

    @property
    def methods(self) -> Mapping[str, Method]:
        """The methods of the service, by path."""
        return {
            f"{_SERVICE}/Check": lambda stream, headers: _Check(self, stream, headers),
            f"{_SERVICE}/List": lambda stream, headers: _List(self, stream, headers),
            f"{_SERVICE}/Watch": lambda stream, headers: _Watch(self, stream, headers),
        }

    def state(self, service: str) -> HealthCheckResponse.ServingStatus | None:
        """Return the state of a service, or ``None`` for an unknown service."""
        return self._states.get(service)

    def states(self) -> Mapping[str, HealthCheckResponse.ServingStatus]:
        """Return the states of all services."""
        return self._states

    def set(self, service: str, state: HealthCheckResponse.ServingStatus) -> None:
        """Set the state of a service, and send a change to the calls that watch it."""
        if self._states.get(service) == state:
            return
        self._states[service] = state
        for watcher in tuple(self._watchers):
            if watcher.service == service:
                watcher.send_state(state)
                watcher.stream.wake()

    def close(self) -> None:
        """End all ``Watch`` calls because the server stops."""
        for watcher in tuple(self._watchers):
            watcher.let_go()
            watcher.stream.wake()

    def watch(self, watcher: "_Watch") -> None:
        """Send changes to a call from now on."""
        self._watchers[watcher] = None

    def forget(self, watcher: "_Watch") -> None:
        """Stop sending changes to a call."""
        self._watchers.pop(watcher, None)


class _HealthCall(MessageCall):
    """A call whose request is one message."""

    __slots__ = ("_health", "_request", "service")

    def __init__(self, health: Health, stream: Stream, headers: CallHeaders) -> None:
        super().__init__(stream, headers, _LONGEST_REQUEST_BYTES)
        self.service = ""
        self._health = health
        self._request: Message | None = None

    def message(self, message: Message) -> None:
        if self._request is not None:
            self.finish(INTERNAL, "lora-router: more than one message in a unary request")
        self._request = message

    def request_ended(self) -> None:
        try:
            if self._request is None:
                raise DecodeError
            self.read(bytes(self._request))
        except DecodeError:
            self.finish(INTERNAL, "lora-router: not a request of the health service")
            return
        self.answer(self._health.state(self.service))

    def read(self, request: bytes) -> None:
        """Read the request.

        Raises:
            DecodeError: It is another message.
        """
        self.service = HealthCheckRequest.FromString(request).service

    def answer(self, state: HealthCheckResponse.ServingStatus | None) -> None:
        """Answer with the state of the service; ``None``: the service is unknown."""
        raise NotImplementedError

    def send_state(self, state: HealthCheckResponse.ServingStatus) -> None:
        """Send a state to the client."""
        self.stream.send_message(HealthCheckResponse(status=state).SerializeToString())


class _Check(_HealthCall):
    __slots__ = ()

    def answer(self, state: HealthCheckResponse.ServingStatus | None) -> None:
        if state is None:
            self.finish(NOT_FOUND, "lora-router: unknown service")
            return
        self.send_state(state)
        self.finish(OK)


class _List(_HealthCall):
    __slots__ = ()

    def read(self, request: bytes) -> None:
        HealthListRequest.FromString(request)

    def answer(self, _state: HealthCheckResponse.ServingStatus | None) -> None:
        listed = HealthListResponse(
            statuses={
                service: HealthCheckResponse(status=state)
                for service, state in self._health.states().items()
            }
        )
        self.stream.send_message(listed.SerializeToString())
        self.finish(OK)


class _Watch(_HealthCall):
    __slots__ = ()

    def answer(self, state: HealthCheckResponse.ServingStatus | None) -> None:
        self.send_state(SERVICE_UNKNOWN if state is None else state)
        self._health.watch(self)

    def closed(self) -> None:
        self._health.forget(self)
