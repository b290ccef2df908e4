"""A connection and its calls, tested with the ``h2`` library and with raw frames."""

import gc
import gzip
import struct

import pytest

from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import frame, rst_stream
from lora_router.grpc_server.limits import Limits
from lora_router.steps import all_at_once
from tests.unit.grpc_server.echo import ECHO, FAILS
from tests.unit.grpc_server.peer import Gateway, RawPeer, message


def test_messages_are_answered_until_the_client_has_said_all() -> None:
    gateway = Gateway()
    number = gateway.open()
    gateway.say(number, b"one")
    gateway.say(number, b"two")

    assert gateway.messages(number) == [b"one", b"two"]
    assert gateway.headers(number)[":status"] == "200"
    assert gateway.headers(number)["content-type"] == "application/grpc"
    assert gateway.headers(number)["grpc-accept-encoding"] == "identity,deflate,gzip"
    assert gateway.status(number) is None

    gateway.end(number)

    assert gateway.status(number) == 0
    assert gateway.ended(number)
    assert gateway.reset_code(number) is None
    assert gateway.idle


def test_a_call_learns_that_its_stream_was_reset() -> None:
    gateway = Gateway()
    number = gateway.open()
    gateway.say(number, b"wait")

    gateway.reset(number)

    assert gateway.idle


def test_all_calls_learn_that_their_connection_is_lost() -> None:
    gateway = Gateway()
    for _ in range(3):
        gateway.say(gateway.open(), b"wait")

    gateway.connection.lost()

    assert gateway.idle
    gateway.connection.lost()


def test_trailers_of_the_client_end_a_request_too() -> None:
    gateway = Gateway()
    number = gateway.open()
    gateway.say(number, b"x")

    gateway.client.send_headers(number, [("x-end", "1")], end_stream=True)
    gateway.exchange()

    assert gateway.status(number) == 0
    assert gateway.idle


def test_what_is_sent_without_anything_having_been_received_wakes_the_owner() -> None:
    gateway = Gateway()
    number = gateway.open()
    gateway.say(number, b"wait")
    assert gateway.woken == 0

    gateway.echo.send_waiting()
    gateway.exchange()

    assert gateway.woken == 1
    assert gateway.messages(number) == [b"wait"]


def test_a_message_in_many_frames_is_one_message() -> None:
    gateway = Gateway(Limits(stream_window=65536, connection_window=1_000_000))
    number = gateway.open()

    gateway.say(number, b"mute" + b"y" * 700_000, end=True)

    assert gateway.echo.taken == [b"mute" + b"y" * 700_000]
    assert gateway.status(number) == 0
    assert gateway.idle


def test_messages_that_arrive_byte_by_byte_are_the_same() -> None:
    gateway = Gateway(cut=lambda data: [data[at : at + 1] for at in range(len(data))])
    number = gateway.open()
    gateway.say(number, b"one")
    gateway.say(number, b"two", end=True)

    assert gateway.messages(number) == [b"one", b"two"]
    assert gateway.idle


def test_an_answer_waits_for_the_windows() -> None:
    gateway = Gateway(reads=False)
    number = gateway.open()
    document = b"y" * 200_000
    gateway.say(number, document, end=True)
    # The call has ended, but its response has not.
    assert gateway.echo.open == 0
    assert gateway.status(number) is None
    assert gateway.connection.outbox.queued > 100_000

    while not gateway.ended(number):
        for each in (number, None):
            gateway.client.increment_flow_control_window(30_000, each)
        gateway.exchange()

    assert gateway.messages(number) == [document]
    assert gateway.status(number) == 0
    assert gateway.idle


def test_what_is_not_grpc_is_told_so_when_it_is_complete() -> None:
    gateway = Gateway()
    number = gateway.open(content_type="application/json")
    assert gateway.headers(number) == {}
    gateway.send(number, b"{}", end=True)

    assert gateway.headers(number)[":status"] == "415"
    assert b"application/grpc" in gateway.data(number)
    got = gateway.open("/", end=True, method="GET")
    assert gateway.headers(got)[":status"] == "405"
    assert gateway.idle


@pytest.mark.parametrize("path", ["/other.Service/Echo", ECHO + "es", "*"])
def test_an_unknown_method_is_unimplemented_at_once(path: str) -> None:
    gateway = Gateway()
    number = gateway.open(path)

    assert gateway.status(number) == 12
    # The client is told to stop sending. Frames in transit do no harm.
    assert gateway.reset_code(number) == 0
    assert gateway.idle


def test_what_is_on_the_way_to_a_stream_that_was_ended_is_ignored() -> None:
    gateway = Gateway()
    number = gateway.client.get_next_available_stream_id()
    gateway.open("/unknown")
    other = gateway.open()
    for _ in range(3):
        gateway.connection.receive(b"\0\0\5\0\0" + number.to_bytes(4, "big") + b"hello")

    gateway.say(other, b"x", end=True)

    assert gateway.status(other) == 0
    assert gateway.connection.failure is None


def test_metadata_over_the_limit_is_refused_and_the_connection_goes_on() -> None:
    gateway = Gateway()
    flood = gateway.open(x_flood="y" * 17_000)
    assert gateway.status(flood) == 8

    number = gateway.open()
    gateway.say(number, b"x", end=True)
    assert gateway.status(number) == 0


def test_a_message_over_the_limit_ends_its_stream_only() -> None:
    gateway = Gateway(max_message=10_000)
    big, number = gateway.open(), gateway.open()
    gateway.send(big, b"\0\0\0\x27\x11")
    assert gateway.status(big) == 8
    assert "the limit is 10000" in gateway.headers(big)["grpc-message"]

    gateway.say(number, b"x", end=True)
    assert gateway.status(number) == 0
    assert gateway.idle


@pytest.mark.parametrize("data", [b"\x01\0\0\0\x01x", b"\x07\0\0\0\x01x"])
def test_what_is_no_message_ends_its_stream_with_a_status(data: bytes) -> None:
    gateway = Gateway()
    number = gateway.open()
    gateway.send(number, data)

    assert gateway.status(number) == 13
    assert gateway.headers(number)["grpc-message"].startswith("lora-router: ")
    assert gateway.idle


def test_a_compressed_message_is_decompressed() -> None:
    gateway = Gateway()
    number = gateway.open(grpc_encoding="gzip")
    data = gzip.compress(b"hello" * 100)
    gateway.send(number, struct.pack(">BI", 1, len(data)) + data)

    assert gateway.messages(number) == [b"hello" * 100]


def test_a_message_in_an_unknown_compression_is_unimplemented() -> None:
    gateway = Gateway()
    number = gateway.open(grpc_encoding="snappy")
    gateway.send(number, b"\x01\0\0\0\x01x")

    assert gateway.status(number) == 12
    assert gateway.headers(number)["grpc-accept-encoding"] == "identity,deflate,gzip"


def test_a_stream_that_ends_within_a_message_is_an_error() -> None:
    gateway = Gateway()
    number = gateway.open()
    gateway.send(number, message(b"hello")[:-3], end=True)

    assert gateway.status(number) == 13
    assert gateway.echo.taken == []
    assert gateway.idle


def test_a_call_that_ends_itself_gets_no_further_message() -> None:
    gateway = Gateway()
    number = gateway.open()
    gateway.send(number, message(b"stop") + message(b"more"))

    assert gateway.status(number) == 9
    assert gateway.headers(number)["grpc-message"] == "stopped"
    assert gateway.echo.taken == [b"stop"]
    assert gateway.idle


def test_a_deadline_ends_the_call() -> None:
    gateway = Gateway()
    number = gateway.open(grpc_timeout="500m")
    gateway.say(number, b"wait")

    gateway.clock.advance(0.4)
    assert gateway.status(number) is None
    gateway.clock.advance(0.2)
    assert gateway.woken == 1
    gateway.exchange()

    assert gateway.status(number) == 4
    assert gateway.idle


def test_a_deadline_that_is_met_does_nothing() -> None:
    gateway = Gateway()
    number = gateway.open(grpc_timeout="1S")
    gateway.say(number, b"x", end=True)
    gateway.clock.advance(2)

    assert gateway.status(number) == 0
    assert gateway.woken == 0


def test_a_malformed_deadline_is_an_error() -> None:
    gateway = Gateway()
    assert gateway.status(gateway.open(grpc_timeout="soon")) == 13


@pytest.mark.parametrize("said", [b"raise", b"mute, and raise at the end"])
def test_a_call_that_raises_ends_its_stream_only(said: bytes) -> None:
    gateway = Gateway()
    fails, works = gateway.open(), gateway.open()
    gateway.say(works, b"one")
    gateway.say(fails, said, end=True)
    assert gateway.status(fails) == 13
    gateway.echo.taken.clear()

    gateway.say(works, b"two", end=True)
    assert gateway.messages(works) == [b"one", b"two"]
    assert gateway.status(works) == 0
    assert gateway.idle


def test_a_call_that_raises_when_it_is_closed_is_closed_all_the_same() -> None:
    gateway = Gateway()
    number = gateway.open()
    gateway.say(number, b"mute, and raise when closed", end=True)

    assert gateway.status(number) == 0
    assert gateway.idle


def test_a_call_that_cannot_be_opened_is_an_error() -> None:
    gateway = Gateway()
    assert gateway.status(gateway.open(FAILS)) == 13
    assert gateway.connection.failure is None


def test_drained_connections_finish_their_streams_and_are_done() -> None:
    peer = RawPeer()
    peer.open(1)
    peer.received()

    peer.connection.drain()
    (goaway, ping) = peer.received()
    assert goaway == (frames.GOAWAY, 0, 0, frames.goaway(2**31 - 1, 0)[9:])
    # A stream opened before the peer has seen the GOAWAY is served.
    peer.open(3)
    (last,) = peer.send(frame(frames.PING, frames.ACK, 0, ping[3]))
    assert last == (frames.GOAWAY, 0, 0, frames.goaway(3, 0)[9:])
    assert peer.echo.open == 2

    done = []
    for number in (1, 3):
        peer.send(frame(frames.DATA, frames.END_STREAM, number))
        done.append(peer.connection.done)
    assert done == [False, True]
    assert peer.idle


def test_streams_after_the_last_one_are_refused() -> None:
    peer = RawPeer()
    peer.open(1)
    peer.connection.refuse_new()
    peer.received()
    peer.open(3)

    assert peer.received() == [(frames.RST_STREAM, 0, 3, b"\0\0\0\7")]
    assert peer.echo.open == 1


def test_calls_that_are_let_go_end_by_a_status_and_are_counted() -> None:
    gateway = Gateway(reads=False)
    going_on, answered, ended = (gateway.open() for _ in range(3))
    gateway.say(going_on, b"wait")
    gateway.say(answered, b"y" * 100_000, end=True)
    gateway.say(ended, b"x", end=True)

    assert all_at_once(gateway.connection.let_go()) == 1
    gateway.exchange()

    assert gateway.status(going_on) == 14
    # This call had already ended. Its last message still waits for the window.
    assert gateway.status(answered) is None
    gateway.connection.lost()
    assert gateway.idle


@pytest.mark.slow
def test_a_stream_leaves_no_circle_for_the_garbage_collector() -> None:
    peer = RawPeer()
    gc.collect()
    gc.disable()
    try:
        for number in range(1, 21, 2):
            peer.open(number)
            peer.connection.receive(frame(frames.DATA, 0, number, message(b"x")))
            peer.connection.receive(frame(frames.DATA, frames.END_STREAM, number))
        assert peer.idle
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("end", ["it is reset", "its message is complete", "its client is lost"])
def test_a_message_in_pieces_leaves_no_circle_for_the_garbage_collector(end: str) -> None:
    """Such a circle would hold the pieces of an unfinished message: 20 MB of an upload."""
    peer = RawPeer(Limits(connection_window=100_000, stream_window=50_000))
    gc.collect()
    gc.disable()
    try:
        for number in range(1, 21, 2):
            peer.open(number)
            whole = message(b"mute" + b"x" * 20_000)
            peer.send(frame(frames.DATA, 0, number, whole[:16_000]))
            if end == "it is reset":
                peer.send(rst_stream(number, 8))
            elif end == "its message is complete":
                peer.send(frame(frames.DATA, frames.END_STREAM, number, whole[16_000:]))
        peer.connection.lost()
        assert peer.idle
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_lost_connection_frees_what_it_had_to_write_and_to_handle() -> None:
    peer = RawPeer(Limits(frames_per_turn=1))
    peer.connection.receive(frame(frames.PING, 0, 0, b"12345678") * 1_000)
    assert peer.connection.outbox.chunks

    peer.connection.lost()

    assert not peer.connection.behind
    assert peer.connection.output() == b""
    peer.connection.proceed()
    assert peer.connection.output() == b""


def test_the_calls_of_a_lost_connection_end_in_turns() -> None:
    peer = RawPeer()
    for number in range(1, 201, 2):
        peer.open(number)

    peer.connection.lost()

    assert (len(peer.connection.streams), peer.bounds.streams) == (0, 0)
    assert 0 < peer.echo.open < 100
    peer.run_due()
    assert peer.idle


def test_a_call_that_ends_before_it_knows_of_the_loss_leaves_nothing_behind() -> None:
    peer = RawPeer()
    for number in range(1, 201, 2):
        peer.open(number)
        peer.receive(frame(frames.DATA, 0, number, message(b"wait" + b"x" * 100_000)))
    peer.connection.lost()
    peer.echo.send_waiting()
    peer.run_due()
    assert peer.idle


def test_calls_are_let_go_in_steps() -> None:
    peer = RawPeer()
    for number in range(1, 201, 2):
        peer.open(number)
    steps = peer.connection.let_go()
    next(steps)
    assert 0 < peer.echo.open < 100
    assert all_at_once(steps) == 100
    assert peer.echo.open == 0


def test_a_reset_stream_forgets_the_start_of_its_message() -> None:
    peer = RawPeer(Limits(connection_window=100_000, stream_window=50_000))
    peer.open(1)
    peer.send(frame(frames.DATA, 0, 1, b"\0\0\1\0\0" + b"x" * 16_000))
    peer.send(rst_stream(1, 8))

    assert peer.idle


def test_a_stream_whose_answers_wait_receives_no_more_until_they_have_left() -> None:
    peer = RawPeer(Limits(stream_window=1000))
    peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 0}))
    peer.open(1)
    sent = [message(b"y" * 295)] * 3 + [message(b"mute" + b"y" * 91)]
    got = [each for data in sent for each in peer.send(frame(frames.DATA, 0, 1, data))]
    assert not [each for each in got if each[0] == frames.WINDOW_UPDATE]

    got = peer.send(frames.window_update(1, 900))

    assert [each for each in got if each[0] == frames.WINDOW_UPDATE] == [
        (frames.WINDOW_UPDATE, 0, 1, (1000).to_bytes(4, "big"))
    ]
    peer.send(rst_stream(1, 8))
    assert peer.idle


def test_more_streams_than_were_announced_are_served() -> None:
    """A client may open them before it has read the settings."""
    peer = RawPeer(Limits(announced_streams=1))
    for number in (1, 3, 5):
        peer.open(number)
    assert peer.failure() is None
    assert frames.RST_STREAM not in {kind for kind, *_ in peer.received()}
