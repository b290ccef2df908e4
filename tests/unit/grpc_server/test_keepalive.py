"""When a connection is asked for a sign of life."""

import asyncio
from collections.abc import Callable

from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import FrameReader
from lora_router.grpc_server.limits import Limits
from lora_router.grpc_server.server import GrpcServer
from lora_router.grpc_server.wire import Wire
from tests.fleet import ManualClock

LIMITS = Limits(handshake_seconds=10.0, keepalive_seconds=30.0, keepalive_timeout_seconds=20.0)


class Socket(asyncio.Transport):
    """A socket to which a connection writes."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.pinged: list[float] = []
        self.aborted: list[float] = []
        self._reader = FrameReader()
        list(self._reader.feed(frames.PREFACE))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:  # type: ignore[override]
        kinds = [kind for kind, *_ in self._reader.feed(data)]
        self.pinged += [self.clock.now()] * kinds.count(frames.PING)

    def abort(self) -> None:
        self.aborted.append(self.clock.now())


class Loop:
    """An event loop whose time passes by hand."""

    def __init__(self, clock: ManualClock) -> None:
        self.call_later = clock.call_later

    def call_soon(self, call: Callable[[], None]) -> None:
        call()


async def test_a_peer_is_asked_soon_after_it_was_silent_for_long_enough() -> None:
    clock = ManualClock()
    wire = Wire(GrpcServer({}, max_message_bytes=1000, limits=LIMITS))
    wire._loop = Loop(clock)  # type: ignore[assignment]
    socket = Socket(clock)
    wire.connection_made(socket)
    wire.data_received(frames.PREFACE + frames.settings({}))
    clock.advance(11.0)
    wire.data_received(frames.SETTINGS_ACK)
    heard = clock.now()

    for _ in range(100):
        clock.advance(1.0)

    assert 30.0 <= socket.pinged[0] - heard <= 36.0
    assert socket.aborted[0] - socket.pinged[0] == 20.0
    wire.connection_lost(None)
