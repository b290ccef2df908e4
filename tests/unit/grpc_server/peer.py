"""The client side of a connection in memory, either with the ``h2`` library or with raw frames."""

import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from lora_router.grpc_server import frames
from lora_router.grpc_server.bounds import Bounds
from lora_router.grpc_server.connection import Connection
from lora_router.grpc_server.frames import FrameReader
from lora_router.grpc_server.headers import literals
from lora_router.grpc_server.health import Health
from lora_router.grpc_server.limits import Limits, ProcessLimits
from lora_router.grpc_server.methods import Method, Methods
from lora_router.grpc_server.turns import Turns
from tests.fleet import ManualClock
from tests.unit.grpc_server.echo import ECHO, Echo

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
MAX_MESSAGE = 1_000_000


def message(data: bytes) -> bytes:
    """Return an uncompressed gRPC message."""
    return struct.pack(">BI", 0, len(data)) + data


def head(
    path: str = ECHO, *, method: str = "POST", changes: Iterable[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """Return request headers as a gRPC client sends them."""
    headers = {
        ":method": method,
        ":path": path,
        ":scheme": "http",
        ":authority": "router",
        "te": "trailers",
        "content-type": "application/grpc",
        **dict(changes),
    }
    return list(headers.items())


def block(path: str = ECHO, *, method: str = "POST", **changes: str) -> bytes:
    """Return the same headers as a block that does not depend on a table."""
    named = {key.replace("_", "-"): value for key, value in changes.items()}
    headers = head(path, method=method, changes=named.items())
    return literals((name.encode(), value.encode()) for name, value in headers)


class Server:
    """The server side of a connection, without a socket."""

    path = ECHO
    """The method that streams call by default."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        methods: Mapping[str, Method] | None = None,
        clock: ManualClock | None = None,
        max_message: int = MAX_MESSAGE,
        process_limits: ProcessLimits | None = None,
    ) -> None:
        """Create a server with one connection.

        Args:
            limits: Limits of the client.
            methods: The methods to serve. Default: the echo.
            clock: The time of the server.
            max_message: Maximum length of a message to the echo.
            process_limits: Limits of all connections together.
        """
        self.clock = clock or ManualClock()
        self.health = Health()
        self.echo = Echo(max_message)
        self.limits = limits or Limits()
        self.methods = Methods(
            {**self.health.methods, **(self.echo.methods if methods is None else methods)},
            max_header_list_bytes=self.limits.header_list_bytes,
        )
        self.bounds = Bounds(
            process_limits or ProcessLimits(),
            small=self.limits.stream_window,
            call_later=self.call_later,
            now=self.clock.now,
        )
        self.due: deque[Callable[[], None]] = deque()
        """What runs in the next iterations of the event loop."""
        self.shared_turns = Turns(self.due.append, self.clock.now)
        self.woken = 0
        self.connection = self.another()

    def another(self) -> Connection:
        """Open another connection to the same server."""
        return Connection(
            self.methods.open_call,
            self.clock.now,
            limits=self.limits,
            bounds=self.bounds,
            call_later=self.call_later,
            wake=self.wake,
            turns=self.shared_turns,
        )

    def call_later(self, seconds: float, call: Callable[[], None]) -> Callable[[], object]:
        """Schedule a call on the manual clock."""
        return self.clock.call_later(seconds, call).cancel

    def receive(self, data: bytes) -> None:
        """Handle bytes from the client in as many turns as they need."""
        self.connection.receive(data)
        while self.connection.behind:
            self.connection.proceed()

    def run_due(self) -> None:
        """Run the event loop until nothing is due."""
        while self.due:
            self.due.popleft()()

    def wake(self) -> None:
        """Count a request to write."""
        self.woken += 1

    @property
    def idle(self) -> bool:
        """Whether no stream, call or queued byte remains."""
        return (
            not self.connection.streams
            and self.echo.open == 0
            and not self.echo.waiting
            and self.connection.outbox.queued == 0
            and self.bounds.streams == 0
            and self.bounds.budget.used == 0
            and self.bounds.budget.waiting == 0
        )


class Gateway(Server):
    """A server, and a client that uses ``h2``."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        methods: Mapping[str, Method] | None = None,
        clock: ManualClock | None = None,
        max_message: int = MAX_MESSAGE,
        cut: Callable[[bytes], Iterable[bytes]] = lambda data: (data,),
        reads: bool = True,
        process_limits: ProcessLimits | None = None,
    ) -> None:
        """Connect.

        Args:
            limits: Limits of the client.
            methods: The methods to serve. Default: the echo.
            clock: The time of the server.
            max_message: Maximum length of a message to the echo.
            cut: Splits what the client sends into the pieces that arrive.
            reads: Whether the client returns received bytes to its windows.
            process_limits: Limits of all connections together.
        """
        super().__init__(
            limits,
            methods=methods,
            clock=clock,
            max_message=max_message,
            process_limits=process_limits,
        )
        self.client = H2Connection(H2Configuration(client_side=True))
        self.client.initiate_connection()
        self.events: list[Event] = []
        self._cut = cut
        self._reads = reads
        self.exchange()

    def exchange(self) -> None:
        """Transfer bytes in both directions until neither side sends."""
        while True:
            sent = self.client.data_to_send()
            for piece in self._cut(sent):
                self.receive(piece)
            answer = self.connection.output()
            if not sent and not answer:
                return
            for event in self.client.receive_data(answer):
                self.events.append(event)
                if isinstance(event, DataReceived) and self._reads:
                    length = event.flow_controlled_length
                    if length:
                        self.client.acknowledge_received_data(length, event.stream_id)

    def open(
        self, path: str | None = None, *, end: bool = False, method: str = "POST", **changes: str
    ) -> int:
        """Open a stream; return its number."""
        number = self.client.get_next_available_stream_id()
        named = {key.replace("_", "-"): value for key, value in changes.items()}
        headers = head(path or self.path, method=method, changes=named.items())
        self.client.send_headers(number, headers, end_stream=end)
        self.exchange()
        return number

    def say(self, number: int, data: bytes, *, end: bool = False) -> None:
        """Send a message."""
        self.send(number, message(data), end=end)

    def end(self, number: int) -> None:
        """End the client's side of a stream."""
        self.send(number, b"", end=True)

    def send(self, number: int, payload: bytes, *, end: bool = False) -> None:
        """Send any bytes as DATA, as the windows allow."""
        while True:
            room = min(
                self.client.local_flow_control_window(number), self.client.max_outbound_frame_size
            )
            piece, payload = payload[:room], payload[room:]
            self.client.send_data(number, piece, end_stream=end and not payload)
            self.exchange()
            if not payload:
                return
            assert room, "the window stays shut"

    def reset(self, number: int) -> None:
        """Reset a stream."""
        self.client.reset_stream(number)
        self.exchange()

    def data(self, number: int) -> bytes:
        """Return the bytes received on a stream."""
        return b"".join(
            event.data or b""
            for event in self.events
            if isinstance(event, DataReceived) and event.stream_id == number
        )

    def messages(self, number: int) -> list[bytes]:
        """Return the messages received on a stream."""
        data, found = self.data(number), []
        while data:
            _, length = struct.unpack(">BI", data[:5])
            found.append(data[5 : 5 + length])
            data = data[5 + length :]
        return found

    def headers(self, number: int) -> dict[str, str]:
        """Return all headers and trailers received on a stream."""
        return {
            _text(name): _text(value)
            for event in self.events
            if isinstance(event, ResponseReceived | TrailersReceived) and event.stream_id == number
            for name, value in event.headers or ()
        }

    def status(self, number: int) -> int | None:
        """Return the gRPC status that ended a stream; ``None``: it is open."""
        text = self.headers(number).get("grpc-status")
        return None if text is None else int(text)

    def ended(self, number: int) -> bool:
        """Return whether the server has ended its side of a stream."""
        return any(
            isinstance(event, StreamEnded) and event.stream_id == number for event in self.events
        )

    def reset_code(self, number: int) -> int | None:
        """Return the code with which the server reset a stream; ``None``: it did not."""
        for event in self.events:
            if isinstance(event, StreamReset) and event.stream_id == number:
                return int(event.error_code)
        return None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


class RawPeer(Server):
    """A server, and a client that sends arbitrary frames."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        methods: Mapping[str, Method] | None = None,
        clock: ManualClock | None = None,
        process_limits: ProcessLimits | None = None,
    ) -> None:
        super().__init__(limits, methods=methods, clock=clock, process_limits=process_limits)
        self._reader = FrameReader()
        list(self._reader.feed(frames.PREFACE))
        self.send(frames.PREFACE + frames.settings({}))

    def send(self, *data: bytes) -> list[tuple[int, int, int, bytes]]:
        """Send frames; return the frames received in response."""
        self.receive(b"".join(data))
        return self.received()

    def received(self) -> list[tuple[int, int, int, bytes]]:
        """Return the frames received since the last call."""
        got = self._reader.feed(self.connection.output())
        return [(kind, flags, number, bytes(payload)) for kind, flags, number, payload in got]

    def open(self, number: int = 1, *, end: bool = False) -> None:
        """Open a stream."""
        flags = frames.END_HEADERS | (frames.END_STREAM if end else 0)
        self.receive(frames.frame(frames.HEADERS, flags, number, block(self.path)))

    def failure(self) -> int | None:
        """Return the code with which the server ended the connection."""
        failure = self.connection.failure
        return None if failure is None else failure.code
