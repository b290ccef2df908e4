"""Whatever bytes come: nothing escapes, and no stream, session or count is left behind."""

import random

from grpc_health.v1.health_pb2 import HealthCheckResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import FrameReader, frame
from lora_router.grpc_server.limits import Limits, Rate
from tests.fleet import make_fleet
from tests.unit.extproc.conversation import (
    Conversation,
    request_body,
    request_headers,
    request_trailers,
    response_body,
)
from tests.unit.extproc.test_session_fuzz import Moody
from tests.unit.grpc_server.peer import CHECK, PROCESS, WATCH, RawPeer, block, message

FEW = Rate(20, 5)
LIMITS = Limits(
    max_streams=5,
    stream_window=3000,
    held_bytes=65536,
    queued_bytes=4000,
    settings=FEW,
    pings=FEW,
    resets=Rate(60, 5),
    idle_frames=FEW,
)
SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED


MESSAGES = [
    message(said)
    for said in (
        request_headers(),
        request_headers(),
        request_headers(end=True),
        request_headers(mode=FULL_DUPLEX),
        request_headers(mode=FULL_DUPLEX),
        request_headers(subset=[]),
        request_body(b'{"model": "base"}'),
        request_body(b'{"model": "held"}'),
        request_body(b'{"model": "held"}'),
        request_body(b'{"model": "raises"}'),
        request_body(b'{"model": "base", "x": "' + b"y" * 500 + b'"}', end=False),
        request_body(b'{"model": "held", "x": "' + b"y" * 1500 + b'"}'),
        request_body(b"", end=True),
        request_trailers(),
        response_body(b"z" * 900, end=False),
    )
]
BLOCKS = [
    block(),
    block(PROCESS, grpc_timeout="1S"),
    block(PROCESS, grpc_encoding="gzip"),
    block(PROCESS, content_length="300"),
    block(PROCESS, x_long="y" * 12_000),
    block(CHECK),
    block(WATCH),
    block("/nothing"),
    block(PROCESS, content_type="text/plain"),
    block(PROCESS, method="GET"),
    block(PROCESS, connection="close"),
    b"\x82\x87",
    b"\x40\x01a\x01b" + block(),
    b"\x20" + block(),
]
WINDOWS = (1, 100, 3000, 70_000)


class Chaos:
    """A peer that mostly makes sense, and a world in which things happen."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.peer = server()
        self.last = -1
        self.open()

    def step(self) -> None:
        """Do something."""
        acts = (self.say, self.open, self.end, self.world, self.manage, self.nonsense)
        act = self.random.choices(acts, (60, 18, 16, 8, 10, 0.5))[0]
        act()

    def number(self) -> int:
        """One of the last streams."""
        return max(1, self.last - 2 * self.random.randrange(6))

    def send(self, *sent: bytes) -> None:
        self.peer.connection.receive(b"".join(sent))

    def open(self) -> None:
        rng = self.random
        self.last += 2
        fields = rng.choice(BLOCKS) if rng.random() < 0.4 else block()
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
        said = rng.choice(MESSAGES)
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
        # A HEADERS frame on a stream that is closed ends the connection.
        self.send(self.random.choices(endings, (4, 3, number in self.peer.connection.streams))[0])

    def world(self) -> None:
        rng, connection = self.random, self.peer.connection
        rng.choices(
            (
                lambda: self.peer.clock.advance(rng.choice((0.01, 0.5, 1.5))),
                lambda: self.peer.health.set("", rng.choice((SERVING, NOT_SERVING))),
                connection.control.ping,
                connection.control.drain,
                connection.let_go,
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


def server() -> RawPeer:
    fleet = make_fleet(1, adapters=["held", "raises"])
    return RawPeer(LIMITS, Conversation(fleet, algorithm=Moody(), max_body_bytes=3000))


def check(peer: RawPeer) -> None:
    """What holds at any time."""
    connection = peer.connection
    streams = connection.streams
    assert len(streams) <= LIMITS.max_streams
    assert peer.calls.open <= len(streams)
    assert peer.conversation.fleet.ledger.total <= peer.calls.open
    assert connection.outbox.queued == sum(
        len(piece) for stream in streams.values() for piece in stream.queue or ()
    )
    if connection.failure is not None:
        assert not streams
    # All that goes out is frames, each as long as the peer takes them.
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


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_conversations_in_which_anything_happens(seed: int) -> None:
    chaos = Chaos(seed)
    for _ in range(120):
        chaos.step()
        check(chaos.peer)
        if chaos.peer.failure() is not None:
            break
    finish(chaos.peer)


def conversation(number: int) -> bytes:
    """What Envoy sends for a request."""
    return b"".join(
        [
            frame(frames.HEADERS, frames.END_HEADERS, number, block()),
            frame(frames.DATA, 0, number, message(request_headers())),
            frame(frames.DATA, 0, number, message(request_body(b'{"model": "held"}'))),
            frame(frames.DATA, frames.END_STREAM, number),
            frames.rst_stream(number, 2),
        ]
    )


VALID = b"".join(conversation(number) for number in (1, 3, 5, 7)) + frames.settings({4: 100})


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=8),
    st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 60)), max_size=2),
    st.integers(1, 400),
)
def test_valid_conversations_with_some_bytes_changed_or_lost(
    changes: list[tuple[int, int]], losses: list[tuple[int, int]], step: int
) -> None:
    data = bytearray(VALID)
    for place, value in changes:
        data[place] = value
    for place, length in losses:
        del data[place : place + length]
    peer = server()
    for at in range(0, len(data), step):
        peer.connection.receive(bytes(data[at : at + step]))
        check(peer)
    finish(peer)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=10))
def test_any_bytes(pieces: list[bytes]) -> None:
    peer = server()
    for piece in pieces:
        peer.connection.receive(piece)
        check(peer)
    finish(peer)


def test_the_valid_conversation_is_valid() -> None:
    peer = server()
    peer.connection.receive(VALID)

    assert peer.failure() is None
    assert [outcome for _, outcome, _ in peer.conversation.decisions.seen] == ["routed"] * 4
    finish(peer)
