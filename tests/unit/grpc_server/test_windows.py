"""Receive windows and the budget, driven by peers that do anything that the windows allow.

Each peer keeps its own books of the windows, as RFC 9113 defines them.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from lora_router.grpc_server import frames
from lora_router.grpc_server.call_headers import CallHeaders
from lora_router.grpc_server.connection import Connection
from lora_router.grpc_server.frames import FrameReader, frame
from lora_router.grpc_server.grpc_messages import Message
from lora_router.grpc_server.limits import Limits, ProcessLimits
from lora_router.grpc_server.message_call import MessageCall
from lora_router.grpc_server.status import OK
from lora_router.grpc_server.stream import OVER, Stream
from tests.examples import examples
from tests.unit.grpc_server.peer import Server, block, message

COLLECT = "/test.Collect/Collect"
LIMITS = Limits(
    stream_window=1000,
    body_window=3000,
    connection_window=70_000,
    frames_per_turn=3,
    queued_bytes=10**9,
)
PROCESS = ProcessLimits(buffered_bytes=40_000, wait_seconds=3.0, streams=12)
LARGEST = 20_000
ROOM = 50
"""Bytes by which a body may turn out shorter than expected."""
ENDS = frames.END_HEADERS | frames.END_STREAM


class Collect(MessageCall):
    """Keeps messages until their sizes add up to what the first one names, then answers.

    A first message ``N echo`` makes it send everything back. After ``N stop`` it ends the call when
    half has arrived, while the peer is still sending.
    """

    __slots__ = ("_kept", "_said", "_size")

    def __init__(self, stream: Stream, headers: CallHeaders) -> None:
        super().__init__(stream, headers, LARGEST)
        self._said = b""
        self._size = 0
        self._kept: list[Message] = []

    def message(self, message: Message) -> None:
        if not self._said:
            size, self._said = bytes(message).split(b" ")
            self._size = int(size)
            # Before any piece arrives, the length of all is known, as by a content-length.
            self.account().keep(0, self._size + ROOM)
            return
        self._kept.append(message)
        kept = sum(map(len, self._kept))
        if kept >= self._size // 2 and self._said == b"stop":
            self.finish(OK)
        elif kept < self._size:
            self.account().keep(kept, self._size + ROOM)
        else:
            for each in self._kept:
                self.stream.send_message(bytes(each) if self._said == b"echo" else b"")
            self._said, self._kept = b"", []
            self.account().keep(0, 0)

    def request_ended(self) -> None:
        self.finish(OK)


@dataclass
class Sending:
    """One stream, as its peer sees it."""

    number: int
    window: int
    left: bytearray = field(default_factory=bytearray)
    """What the peer still wants to send."""
    ended: bool = False
    """Whether the peer has ended its side."""


class Peer:
    """A peer that respects its windows, and whose own windows are wide or narrow."""

    def __init__(self, server: Server, window: int) -> None:
        self.connection: Connection = server.another()
        self.window = frames.DEFAULT_WINDOW
        self.streams: dict[int, Sending] = {}
        self._initial = frames.DEFAULT_WINDOW
        self._next = 1
        self._reader = FrameReader()
        list(self._reader.feed(frames.PREFACE))
        settings = frames.settings({frames.INITIAL_WINDOW_SIZE: window})
        self.receive(frames.PREFACE + settings)

    def receive(self, data: bytes) -> None:
        """Send bytes, and read what the server answers."""
        self.connection.receive(data)
        while self.connection.behind:
            self.connection.proceed()
        self.read()

    def read(self) -> None:
        """Read what the server has sent."""
        assert self.connection.failure is None
        for kind, flags, number, payload in self._reader.feed(self.connection.output()):
            if kind == frames.WINDOW_UPDATE:
                self.update(number, int.from_bytes(payload, "big"))
            elif kind == frames.SETTINGS and not flags & frames.ACK:
                self._initial = dict(frames.read_settings(payload))[frames.INITIAL_WINDOW_SIZE]
            elif kind == frames.RST_STREAM or (
                kind == frames.HEADERS and flags & frames.END_STREAM
            ):
                self.streams.pop(number, None)

    def update(self, number: int, increment: int) -> None:
        assert 1 <= increment <= frames.MAX_WINDOW
        if not number:
            self.window += increment
            assert self.window <= LIMITS.connection_window
        elif number in self.streams:
            self.streams[number].window += increment
            assert self.streams[number].window <= LIMITS.body_window

    def open(self) -> None:
        number, self._next = self._next, self._next + 2
        self.streams[number] = Sending(number, self._initial)
        self.receive(frame(frames.HEADERS, frames.END_HEADERS, number, block(COLLECT)))

    def say(self, stream: Sending, sizes: Sequence[int], what: str) -> None:
        stream.left += message(f"{sum(sizes)} {what}".encode())
        for size in sizes:
            stream.left += message(bytes(size))

    def send(self, stream: Sending, size: int, padding: int) -> bool:
        """Send a frame, as large as the windows allow; return whether there was one."""
        room = min(stream.window, self.window, frames.SMALLEST_MAX_FRAME)
        padded = bool(padding) and room > padding + 1
        room -= padding + 1 if padded else 0
        data = bytes(stream.left[: min(size, room)])
        if not data and (stream.left or not padded):
            return False
        del stream.left[: len(data)]
        flags = frames.PADDED if padded else 0
        payload = bytes((padding,)) + data + bytes(padding) if padded else data
        stream.window -= len(payload)
        self.window -= len(payload)
        self.receive(frame(frames.DATA, flags, stream.number, payload))
        return True

    def end(self, stream: Sending) -> None:
        stream.ended = True
        stream.left.clear()
        self.receive(frame(frames.DATA, frames.END_STREAM, stream.number))

    def reset(self, stream: Sending) -> None:
        self.receive(frames.rst_stream(stream.number, 8))
        self.streams.pop(stream.number, None)

    def take(self, increment: int) -> None:
        """Return bytes to the server's windows."""
        self.receive(frames.window_update(0, increment))
        for number in tuple(self.streams):
            self.receive(frames.window_update(number, increment))


ACTS = ["open"] * 3 + ["say"] * 4 + ["send"] * 12 + ["end", "reset", "wait", "take"]


class Model:
    """Two connections to one server, and what must hold after each act."""

    def __init__(self, windows: tuple[int, int]) -> None:
        self.server = Server(LIMITS, methods={COLLECT: Collect}, process_limits=PROCESS)
        self.peers = [Peer(self.server, window) for window in windows]

    def act(self, chance: random.Random) -> None:
        """Let one of the peers do something, or let time pass."""
        peer = chance.choice(self.peers)
        what = chance.choice(ACTS)
        sending = [stream for stream in peer.streams.values() if not stream.ended]
        if what == "open" or not sending:
            peer.open()
        elif what == "wait":
            self.server.clock.advance(chance.random() * 4)
        elif what == "take":
            peer.take(chance.randint(1, 100_000))
        elif what == "say":
            sizes = [_size(chance) for _ in range(chance.randint(1, 3))]
            peer.say(chance.choice(sending), sizes, chance.choice(("keep", "keep", "echo", "stop")))
        elif what == "send":
            stream, size = chance.choice(sending), chance.randint(1, 20_000)
            padding = chance.choice((0, 0, 0, chance.randint(1, 255)))
            for _ in range(chance.randint(1, 20)):
                peer.send(stream, size, padding)
        elif what == "end":
            peer.end(chance.choice(sending))
        else:
            peer.reset(chance.choice(sending))
        self.check()

    def check(self) -> None:
        """Let the peers read what was sent, and check what holds at any time."""
        for peer in self.peers:
            peer.read()
        budget = self.server.bounds.budget
        assert budget.reserved >= 0
        assert budget.loose >= 0
        assert budget.reserved <= budget.largest
        assert budget.reserved + budget.loose <= budget.limit
        accounts = []
        for peer in self.peers:
            for number, stream in peer.connection.streams.items():
                account = stream.account
                sending = peer.streams.get(number)
                if sending is not None and not stream.remote_ended:
                    # Both sides have the same books.
                    assert stream.receive_window == sending.window
                    # Nobody can send what was not let in, except one small message. What a call
                    # that has ended early still receives is discarded.
                    lacks = 0 if account is None or not account.reserved else account.lacks
                    discards = stream.call is OVER or (account is not None and account.is_refused)
                    assert discards or sending.window <= LIMITS.stream_window + lacks + ROOM
                if account is None:
                    continue
                accounts.append(account)
                if (
                    sending is not None
                    and account.lacks
                    and not account.wanted
                    and account.reserved
                ):
                    # What was let in can finish, unless its peer leaves answers unread.
                    assert sending.window > 0 or stream.queue
        reserved = [each.charged for each in accounts if each.reserved]
        loose = [each.charged for each in accounts if not each.reserved]
        assert (budget.reserved, budget.loose) == (sum(reserved), sum(loose))
        assert self.server.bounds.streams == sum(
            len(peer.connection.streams) for peer in self.peers
        )

    def finish(self) -> None:
        """Send everything that is left. Nothing may be stuck for longer than the wait."""
        stuck = 0
        while any(stream.left for peer in self.peers for stream in peer.streams.values()):
            moved = False
            for peer in self.peers:
                peer.take(1_000_000)
                for stream in tuple(peer.streams.values()):
                    moved |= bool(stream.left) and peer.send(stream, 16384, 0)
            self.check()
            if moved:
                stuck = 0
                continue
            # All that is left waits for room, or has been refused.
            self.server.clock.advance(PROCESS.wait_seconds)
            self.check()
            stuck += 1
            assert stuck < 3
        for peer in self.peers:
            for stream in tuple(peer.streams.values()):
                if not stream.ended:
                    peer.end(stream)
            peer.take(1_000_000)
            assert not peer.connection.streams
        bounds = self.server.bounds
        assert (bounds.budget.used, bounds.budget.waiting, bounds.streams) == (0, 0, 0)
        self.server.clock.advance(1000)


def _size(chance: random.Random) -> int:
    return chance.randint(1, chance.choice((1000, 5000, LARGEST - 1)))


@examples(100)
@given(
    st.sampled_from([(70_000, 70_000), (70_000, 500), (0, 70_000)]),
    st.integers(0, 2**32),
    st.integers(1, 200),
)
def test_windows_never_break_and_what_was_let_in_can_finish(
    windows: tuple[int, int], seed: int, acts: int
) -> None:
    model, chance = Model(windows), random.Random(seed)
    for _ in range(acts):
        model.act(chance)
    model.finish()
