"""The limits of one connection, and what happens beyond them."""

import struct
from collections.abc import Callable

import pytest

from lora_router.grpc_server import frames
from lora_router.grpc_server.flow import Flow, Outbox
from lora_router.grpc_server.frames import frame, rst_stream, settings, window_update
from lora_router.grpc_server.limits import Allowance, Limits, Rate
from lora_router.grpc_server.violations import ErrorCode, PeerError
from lora_router.steps import all_at_once
from tests.fleet import ManualClock
from tests.unit.grpc_server.peer import Gateway, RawPeer, block, message

CALM = ErrorCode.ENHANCE_YOUR_CALM
PING = frame(frames.PING, 0, 0, b"01234567")
FEW = Rate(3, 1)


def test_an_allowance_is_spent_and_comes_back_with_time() -> None:
    now = 100.0
    allowance = Allowance(Rate(3, 2), lambda: now, "things")
    for _ in range(3):
        allowance.spend()
    with pytest.raises(PeerError, match="too many things"):
        allowance.spend()
    now += 1
    allowance.spend()
    allowance.spend()
    with pytest.raises(PeerError):
        allowance.spend()
    now += 1000
    for _ in range(3):
        allowance.spend()
    with pytest.raises(PeerError):
        allowance.spend()


FLOODS: dict[str, tuple[Limits, Callable[[int], bytes]]] = {
    "PINGs": (Limits(pings=FEW), lambda _: PING),
    "SETTINGS": (Limits(settings=FEW), lambda _: settings({4: 1000})),
    "PRIORITY": (Limits(idle_frames=FEW), lambda _: frame(frames.PRIORITY, 0, 9, b"\0\0\0\1\0")),
    "unknown frames": (Limits(idle_frames=FEW), lambda _: frame(77, 0, 0, b"?")),
    "GOAWAYs": (Limits(idle_frames=FEW), lambda _: frame(frames.GOAWAY, 0, 0, bytes(8))),
}


@pytest.mark.parametrize("what", FLOODS)
def test_a_flood_ends_the_connection_and_a_trickle_does_not(what: str) -> None:
    limits, one = FLOODS[what]
    peer = RawPeer(limits)
    for number in range(1, 41, 2):
        peer.send(one(number))
        peer.clock.advance(1)
    assert peer.failure() is None

    for number in range(41, 61, 2):
        peer.send(one(number))

    assert peer.failure() == CALM
    assert peer.idle


def test_empty_data_that_ends_nothing_is_counted_and_the_end_of_a_stream_is_not() -> None:
    peer = RawPeer(Limits(idle_frames=FEW))
    for number in range(1, 41, 2):
        peer.open(number)
        peer.send(frame(frames.DATA, frames.END_STREAM, number))
    assert peer.failure() is None

    peer.open(41)
    for _ in range(5):
        peer.send(frame(frames.DATA, 0, 41))
    assert peer.failure() == CALM


@pytest.mark.parametrize("piece", [b"", b"\x82"])
def test_continuations_without_end_are_cut_off(piece: bytes) -> None:
    peer = RawPeer()
    peer.send(frame(frames.HEADERS, 0, 1, b"\x82"))
    for _ in range(16):
        peer.send(frame(frames.CONTINUATION, 0, 1, piece))
        assert peer.failure() is None
    peer.send(frame(frames.CONTINUATION, 0, 1, piece))

    assert peer.failure() == CALM


def test_a_block_of_headers_without_end_is_cut_off() -> None:
    peer = RawPeer()
    peer.send(frame(frames.HEADERS, 0, 1, b"x" * 16384))
    for _ in range(3):
        peer.send(frame(frames.CONTINUATION, 0, 1, b"x" * 16384))
    assert peer.failure() is None
    peer.send(frame(frames.CONTINUATION, 0, 1, b"x"))

    assert peer.failure() == CALM


def test_only_a_continuation_may_follow_headers_without_their_end() -> None:
    for intruder in (PING, frame(frames.CONTINUATION, 4, 3), frame(frames.HEADERS, 4, 3)):
        peer = RawPeer()
        peer.send(frame(frames.HEADERS, 0, 1, block()[:9]), intruder)
        assert peer.failure() == ErrorCode.PROTOCOL_ERROR


def test_headers_in_pieces_are_headers() -> None:
    peer = RawPeer()
    whole = block()
    peer.send(
        frame(frames.HEADERS, 0, 1, whole[:9]),
        frame(frames.CONTINUATION, 0, 1, whole[9:20]),
        frame(frames.CONTINUATION, frames.END_HEADERS, 1, whole[20:]),
    )
    assert peer.echo.open == 1


def test_streams_past_the_limit_are_refused_and_the_others_go_on() -> None:
    peer = RawPeer(Limits(max_streams=3))
    for number in (1, 3, 5):
        peer.open(number)
    peer.open(7)

    assert (frames.RST_STREAM, 0, 7, ErrorCode.REFUSED_STREAM.to_bytes(4, "big")) in peer.received()
    assert peer.echo.open == 3
    peer.send(rst_stream(1, 8))
    peer.open(9)
    assert peer.echo.open == 3
    assert peer.failure() is None


def test_a_peer_that_opens_its_windows_by_single_bytes_is_cut_off() -> None:
    gateway = Gateway(Limits(idle_frames=Rate(20, 1)), reads=False)
    number = gateway.open()
    gateway.say(number, b"y" * 100_000)
    assert gateway.connection.outbox.queued > 0

    for _ in range(30):
        gateway.connection.receive(window_update(0, 1) + window_update(number, 1))

    assert gateway.connection.failure is not None
    assert gateway.connection.failure.code == CALM
    assert gateway.idle


def test_answers_that_pile_up_end_the_connection() -> None:
    gateway = Gateway(Limits(queued_bytes=300_000), reads=False)
    for _ in range(5):
        if gateway.connection.failure is not None:
            break
        number = gateway.open()
        gateway.receive(
            b"".join(
                frame(frames.DATA, 0, number, piece) for piece in pieces(message(b"y" * 100_000))
            )
        )

    assert gateway.connection.failure is not None
    assert gateway.connection.failure.code == CALM
    assert gateway.idle


def pieces(data: bytes) -> list[bytes]:
    return [data[at : at + 16384] for at in range(0, len(data), 16384)]


def test_a_stream_that_overruns_its_window_is_reset() -> None:
    peer = RawPeer(Limits(stream_window=20_000))
    peer.open(1)
    # Less than half of the window is used, so it is not topped up yet.
    peer.send(frame(frames.DATA, 0, 1, b"\0\0\1\0\0" + b"x" * 9_000))
    got = peer.send(frame(frames.DATA, 0, 1, b"x" * 16384), frame(frames.DATA, 0, 1, b"x" * 16384))
    codes = [int.from_bytes(payload, "big") for kind, _, _, payload in got if kind == 3]

    assert codes == [ErrorCode.FLOW_CONTROL_ERROR]
    assert peer.failure() is None


def test_a_failed_connection_takes_nothing_more() -> None:
    peer = RawPeer()
    peer.open(1)
    got = peer.send(frame(frames.DATA, 0, 0, b"x"))
    assert [kind for kind, *_ in got] == [frames.GOAWAY]
    assert peer.idle

    assert peer.send(PING, frame(frames.HEADERS, 4, 3, block())) == []


class SlowList(list[bytes]):
    """A list to which each append takes time."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def append(self, message: bytes) -> None:
        super().append(message)
        self.clock.time += self.seconds


class Slow(RawPeer):
    """A server whose method takes time for each message."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.messages = self.echo.taken = SlowList(self.clock, seconds)

    def turns(self, data: bytes) -> list[int]:
        """Receive frames; return the number of messages that each turn handled."""
        counts, before = [], 0
        self.connection.receive(data)
        while True:
            counts.append(len(self.messages) - before)
            before = len(self.messages)
            if not self.connection.behind:
                return counts
            self.connection.proceed()


def test_a_turn_ends_after_some_milliseconds() -> None:
    peer = Slow(seconds=0.001)
    peer.open()
    frames_of_one = frame(frames.DATA, 0, 1, message(b"mute".ljust(500))) * 10

    assert peer.turns(frames_of_one) == [3, 3, 3, 1]


class Ticking(ManualClock):
    """Time passes whenever somebody looks."""

    def now(self) -> float:
        self.time += 0.001
        return self.time


def test_a_window_that_opens_for_many_streams_is_used_in_turns_and_before_what_follows() -> None:
    peer = RawPeer(clock=Ticking())
    answer = b"x" * 1000
    count = 1000
    for number in range(1, 2 * count, 2):
        peer.open(number)
        peer.receive(frame(frames.DATA, 0, number, message(answer)))
    peer.received()
    ping = frame(frames.PING, 0, 0, b"12345678")

    peer.connection.receive(frames.window_update(0, 2 * count * len(answer)) + ping)
    turns = []
    while True:
        turns.append([kind for kind, *_ in peer.received()])
        if not peer.connection.behind:
            break
        peer.connection.proceed()

    assert len(turns) > 3
    assert max(map(len, turns)) < 300
    assert [kind for turn in turns for kind in turn][-1] == frames.PING
    assert peer.connection.outbox.queued == 0


def test_a_frame_with_many_messages_is_handled_in_parts_and_before_what_follows() -> None:
    peer = Slow(seconds=0.0001)
    peer.open()
    peer.open(3)
    said = [b"mute %60d" % number for number in range(100)]
    many = b"".join(map(message, said))
    data = frame(frames.DATA, frames.END_STREAM, 1, many) + frame(
        frames.DATA, frames.END_STREAM, 3, message(b"mute, and last")
    )

    turns = peer.turns(data)

    assert turns == [32, 32, 32, 5]
    assert peer.messages == [*said, b"mute, and last"]
    assert peer.idle


def test_the_rest_of_a_frame_dies_with_its_stream_and_its_connection() -> None:
    for ends in ("stream", "connection"):
        peer = Slow(seconds=0.0001)
        peer.open()
        peer.connection.receive(frame(frames.DATA, 0, 1, message(b"mute".ljust(60)) * 100))
        assert peer.connection.behind
        if ends == "stream":
            all_at_once(peer.connection.let_go())
        else:
            peer.connection.lost()

        peer.receive(b"")

        assert len(peer.messages) == 32
        assert peer.idle


def test_the_last_of_many_initial_windows_counts_and_the_streams_are_looked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peer = RawPeer()
    peer.open()
    resized: list[int] = []
    resize = peer.connection.outbox.resize

    def counted(flows: list[Flow], window: int) -> None:
        resized.append(window)
        resize(flows, window)

    monkeypatch.setattr(Outbox, "resize", lambda _self, flows, window: counted(flows, window))
    windows = struct.pack(">HI", 4, 2**31 - 1) * 2000 + struct.pack(">HI", 4, 70_000)
    peer.send(frame(frames.SETTINGS, 0, 0, windows))

    assert resized == [70_000]
    assert peer.connection.streams[1].send_window == 70_000
    assert peer.failure() is None
