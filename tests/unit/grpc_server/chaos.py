"""A peer that sends mostly valid frames, and the invariants that hold whatever it sends."""

import random
from collections.abc import Sequence

from grpc_health.v1.health_pb2 import HealthCheckResponse

from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import FrameReader, frame
from lora_router.grpc_server.limits import Limits, Rate
from lora_router.steps import all_at_once
from tests.unit.grpc_server.peer import CHECK, WATCH, RawPeer, block, message

FEW = Rate(20, 5)
LIMITS = Limits(
    max_streams=5,
    stream_window=3000,
    connection_window=65536,
    queued_bytes=4000,
    settings=FEW,
    pings=FEW,
    idle_frames=FEW,
)
SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
WINDOWS = (1, 100, 3000, 70_000)


def blocks(path: str) -> list[bytes]:
    """Header blocks of requests, valid and invalid."""
    return [
        block(path),
        block(path, grpc_timeout="1S"),
        block(path, grpc_encoding="gzip"),
        block(path, content_length="300"),
        block(path, x_long="y" * 12_000),
        block(CHECK),
        block(WATCH),
        block("/nothing"),
        block(path, content_type="text/plain"),
        block(path, method="GET"),
        block(path, connection="close"),
        b"\x82\x87",
        b"\x40\x01a\x01b" + block(path),
        b"\x20" + block(path),
    ]


class Chaos:
    """A peer that sends mostly valid frames, and a server on which other events happen."""

    def __init__(self, seed: int, peer: RawPeer, messages: Sequence[bytes]) -> None:
        """Create a peer and open a stream.

        Args:
            seed: Two peers with the same seed send the same.
            peer: The server under test, and the client that sends to it.
            messages: Messages that the method handles.
        """
        self.random = random.Random(seed)
        self.peer = peer
        self.last = -1
        self._messages = [message(said) for said in messages]
        self._blocks = blocks(peer.path)
        self.open()

    def step(self) -> None:
        """Send something or change the state of the server."""
        acts = (self.say, self.open, self.end, self.world, self.manage, self.nonsense)
        act = self.random.choices(acts, (60, 18, 16, 8, 10, 0.5))[0]
        act()

    def number(self) -> int:
        """One of the most recent streams."""
        return max(1, self.last - 2 * self.random.randrange(6))

    def send(self, *sent: bytes) -> None:
        self.peer.receive(b"".join(sent))

    def open(self) -> None:
        rng = self.random
        self.last += 2
        fields = rng.choice(self._blocks) if rng.random() < 0.4 else block(self.peer.path)
        flags = frames.END_STREAM if rng.random() < 0.1 else 0
        if rng.random() < 0.1:
            middle = rng.randrange(len(fields) + 1)
            self.send(
                frame(frames.HEADERS, flags, self.last, fields[:middle]),
                frame(frames.CONTINUATION, frames.END_HEADERS, self.last, fields[middle:]),
            )
        else:
            self.send(frame(frames.HEADERS, flags | frames.END_HEADERS, self.last, fields))

    def say(self) -> None:
        rng = self.random
        said = rng.choice(self._messages)
        if rng.random() < 0.1:
            said = rng.choice((said[:-3], rng.randbytes(8), b"\1\0\0\0\1x", message(b"\xff")))
        flags, data = frames.END_STREAM if rng.random() < 0.1 else 0, said
        if rng.random() < 0.1:
            flags, data = flags | frames.PADDED, b"\x05" + said + bytes(5)
        self.send(frame(frames.DATA, flags, self.number(), data))

    def end(self) -> None:
        number = self.number()
        endings = (
            frame(frames.DATA, frames.END_STREAM, number),
            frames.rst_stream(number, 8),
            frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number, b"\0\1a\1b"),
        )
        # A HEADERS frame on a closed stream ends the connection, so it goes only to open ones.
        self.send(self.random.choices(endings, (4, 3, number in self.peer.connection.streams))[0])

    def world(self) -> None:
        rng, connection = self.random, self.peer.connection
        rng.choices(
            (
                lambda: self.peer.clock.advance(rng.choice((0.01, 0.5, 1.5))),
                lambda: self.peer.health.set("", rng.choice((SERVING, NOT_SERVING))),
                connection.control.ping,
                connection.drain,
                lambda: all_at_once(connection.let_go()),
                connection.refuse_new,
            ),
            (6, 2, 1, 1, 1, 0.2),
        )[0]()

    def manage(self) -> None:
        rng = self.random
        self.send(
            rng.choice(
                (
                    frames.window_update(0, rng.choice(WINDOWS)),
                    frames.window_update(self.number(), rng.choice(WINDOWS)),
                    frames.settings({frames.INITIAL_WINDOW_SIZE: rng.choice((0, 50, 1000, 65535))}),
                    frames.settings({frames.MAX_FRAME_SIZE: rng.choice((16384, 20000))}),
                    frame(frames.PING, rng.randrange(2), 0, rng.choice((b"draining", b"12345678"))),
                    frame(frames.PRIORITY, 0, self.number(), b"\0\0\0\0\1"),
                    frame(99, rng.randrange(256), self.number(), b"?"),
                )
            )
        )

    def nonsense(self) -> None:
        rng = self.random
        length = rng.choice((0, 4, 5, 6, 8, 12))
        number = rng.choice((0, 2, self.number(), self.last + 2))
        self.send(frame(rng.randrange(12), rng.randrange(256), number, rng.randbytes(length)))


def check(peer: RawPeer) -> None:
    """Check the invariants that hold at any time."""
    connection = peer.connection
    streams = connection.streams
    assert len(streams) <= LIMITS.max_streams
    assert peer.echo.open <= len(streams)
    assert connection.outbox.queued == sum(
        len(piece) for stream in streams.values() for piece in stream.queue or ()
    )
    if connection.failure is not None:
        assert not streams
    # The output consists of frames that the peer accepts.
    reader = FrameReader()
    list(reader.feed(frames.PREFACE))
    data = connection.output()
    got = list(reader.feed(data))
    assert sum(9 + len(payload) for *_, payload in got) == len(data)


def finish(peer: RawPeer) -> None:
    peer.connection.lost()
    peer.connection.output()
    assert peer.idle
    peer.clock.advance(1000)
    assert peer.idle
