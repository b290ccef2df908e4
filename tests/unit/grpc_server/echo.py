"""A small method for tests that sends back each message."""

from lora_router.grpc_server.call_headers import CallHeaders
from lora_router.grpc_server.grpc_messages import Message
from lora_router.grpc_server.message_call import MessageCall
from lora_router.grpc_server.methods import Method
from lora_router.grpc_server.status import FAILED_PRECONDITION, OK
from lora_router.grpc_server.stream import Stream

ECHO = "/test.Echo/Echo"
FAILS = "/test.Echo/Fails"


class Echo:
    """The method, and a record of its calls.

    Messages with these prefixes have other effects: ``wait`` is sent back by ``send_waiting``,
    ``stop`` ends the call, ``raise`` raises an exception, and ``mute`` is only recorded.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self.max_message_bytes = max_message_bytes
        self.open = 0
        self.taken: list[bytes] = []
        self.waiting: list[tuple[EchoCall, bytes]] = []

    @property
    def methods(self) -> dict[str, Method]:
        """The methods to pass to a server."""
        return {ECHO: self.open_call, FAILS: self.fail_to_open}

    def open_call(self, stream: Stream, headers: CallHeaders) -> "EchoCall":
        """Open a call."""
        return EchoCall(self, stream, headers)

    def fail_to_open(self, _stream: Stream, _headers: CallHeaders) -> "EchoCall":
        """Raise an exception."""
        raise ZeroDivisionError

    def send_waiting(self) -> None:
        """Send the messages that wait, which is not the result of a received message."""
        waiting, self.waiting = self.waiting, []
        for call, message in waiting:
            call.stream.send_message(message)
            call.stream.wake()


class EchoCall(MessageCall):
    """A call."""

    __slots__ = ("_echo",)

    def __init__(self, echo: Echo, stream: Stream, headers: CallHeaders) -> None:
        super().__init__(stream, headers, echo.max_message_bytes)
        self._echo = echo
        echo.open += 1

    def message(self, message: Message) -> None:
        data = bytes(message)
        self._echo.taken.append(data)
        match data[:4]:
            case b"wait":
                self._echo.waiting.append((self, data))
            case b"stop":
                self.finish(FAILED_PRECONDITION, "stopped")
            case b"rais":
                raise ZeroDivisionError
            case b"mute":
                pass
            case _:
                self.stream.send_message(data)

    def request_ended(self) -> None:
        if b"mute, and raise at the end" in self._echo.taken:
            raise ZeroDivisionError
        self.finish(OK)

    def closed(self) -> None:
        self._echo.open -= 1
        self._echo.waiting = [
            (call, message) for call, message in self._echo.waiting if call is not self
        ]
        if b"mute, and raise when closed" in self._echo.taken:
            raise ZeroDivisionError
