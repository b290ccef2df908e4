"""A gateway made of the ``h2`` library talks to a connection."""

import gc
import tracemalloc

import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import frame, rst_stream
from lora_router.grpc_server.limits import Limits
from tests.fleet import make_fleet
from tests.unit.extproc.conversation import Conversation, request_body, request_headers
from tests.unit.extproc.test_session_fuzz import Moody
from tests.unit.grpc_server.peer import CHECK, PROCESS, Gateway, RawPeer, message

BODY = b'{"model": "sql-lora"}'
HELD = b'{"model": "held"}'


def route(gateway: Gateway, number: int) -> None:
    """Have the usual conversation."""
    gateway.say(number, request_headers())
    gateway.say(number, request_body(BODY))


def moody_conversation() -> Conversation:
    """One whose second request for the model ``held`` is held."""
    return Conversation(make_fleet(1, adapters=["held"]), algorithm=Moody())


def moody() -> Gateway:
    return Gateway(conversation=moody_conversation())


def test_a_request_is_answered_and_counts_until_its_stream_ends() -> None:
    gateway = Gateway()
    number = gateway.open()
    route(gateway, number)

    first, second = gateway.answers(number)
    assert first.HasField("request_headers")
    assert second.request_body.response.header_mutation.set_headers[0].header.key == "target-pod"
    assert gateway.headers(number)[":status"] == "200"
    assert gateway.headers(number)["content-type"] == "application/grpc"
    assert gateway.headers(number)["grpc-accept-encoding"] == "identity"
    assert gateway.conversation.fleet.ledger.total == 1
    assert gateway.status(number) is None

    gateway.say(number, end=True)

    assert gateway.status(number) == 0
    assert gateway.ended(number)
    assert gateway.reset_code(number) is None
    assert gateway.idle


def test_a_reset_gives_the_request_back() -> None:
    gateway = Gateway()
    number = gateway.open()
    route(gateway, number)

    gateway.reset(number)

    assert gateway.idle


def test_a_lost_connection_gives_all_requests_back() -> None:
    gateway = moody()
    numbers = [gateway.open() for _ in range(3)]
    for number in numbers:
        gateway.say(number, request_headers())
        gateway.say(number, request_body(HELD))
    assert gateway.conversation.context.director.held == 2

    gateway.connection.lost()

    assert gateway.idle
    gateway.connection.lost()


def test_trailers_of_the_client_end_a_request_too() -> None:
    gateway = Gateway()
    number = gateway.open()
    route(gateway, number)

    gateway.client.send_headers(number, [("x-end", "1")], end_stream=True)
    gateway.exchange()

    assert gateway.status(number) == 0
    assert gateway.idle


def test_a_held_request_is_answered_when_a_slot_frees_and_the_owner_is_woken() -> None:
    gateway = moody()
    first, second = gateway.open(), gateway.open()
    for number in (first, second):
        gateway.say(number, request_headers())
        gateway.say(number, request_body(HELD))
    assert gateway.answers(second)[-1].HasField("override_message_timeout")
    assert gateway.woken == 0

    gateway.say(first, end=True)

    assert gateway.woken == 1
    assert gateway.answers(second)[-1].HasField("request_body")
    gateway.say(second, end=True)
    assert gateway.idle


def test_a_held_request_is_answered_when_its_time_is_up() -> None:
    gateway = moody()
    first, second = gateway.open(), gateway.open()
    for number in (first, second):
        gateway.say(number, request_headers())
        gateway.say(number, request_body(HELD))

    gateway.clock.advance(1.5)
    gateway.exchange()

    assert gateway.answers(second)[-1].HasField("immediate_response")
    gateway.connection.lost()
    assert gateway.idle


def test_a_body_in_many_frames_is_one_message() -> None:
    gateway = Gateway(Limits(stream_window=65536, held_bytes=1_000_000))
    number = gateway.open()
    gateway.say(number, request_headers())
    document = b'{"x": "' + b"y" * 700_000 + b'", "model": "sql-lora"}'

    gateway.say(number, request_body(document), end=True)

    assert gateway.answers(number)[-1].HasField("request_body")
    assert gateway.status(number) == 0
    assert gateway.idle


def test_messages_that_arrive_byte_by_byte_are_the_same() -> None:
    gateway = Gateway(cut=lambda data: [data[at : at + 1] for at in range(len(data))])
    number = gateway.open()
    route(gateway, number)
    gateway.say(number, end=True)

    assert len(gateway.answers(number)) == 2
    assert gateway.idle


def test_a_body_that_is_sent_back_waits_for_the_windows() -> None:
    gateway = Gateway(reads=False)
    number = gateway.open()
    gateway.say(number, request_headers(mode=ProcessingMode.FULL_DUPLEX_STREAMED))
    document = b'{"model": "sql-lora", "x": "' + b"y" * 200_000 + b'"}'
    gateway.say(number, request_body(document), end=True)
    # The request is over, its answer is not: it counts no more, and waits.
    assert gateway.conversation.fleet.ledger.total == 0
    assert gateway.status(number) is None
    assert gateway.connection.outbox.queued > 100_000

    while not gateway.ended(number):
        for each in (number, None):
            gateway.client.increment_flow_control_window(30_000, each)
        gateway.exchange()

    back = b"".join(
        answer.request_body.response.body_mutation.streamed_response.body
        for answer in gateway.answers(number)
    )
    assert back == document
    assert gateway.status(number) == 0
    assert gateway.idle


def test_what_is_not_grpc_is_told_so_when_it_is_complete() -> None:
    gateway = Gateway()
    number = gateway.open(content_type="application/json")
    assert gateway.headers(number) == {}
    gateway.say(number, b"{}", end=True)

    assert gateway.headers(number)[":status"] == "415"
    assert b"application/grpc" in gateway.data(number)
    got = gateway.open("/", end=True, method="GET")
    assert gateway.headers(got)[":status"] == "405"
    assert gateway.idle


@pytest.mark.parametrize(
    ("path", "code"), [("/other.Service/Process", 12), (PROCESS + "es", 12), ("*", 12)]
)
def test_an_unknown_method_is_unimplemented_at_once(path: str, code: int) -> None:
    gateway = Gateway()
    number = gateway.open(path)

    assert gateway.status(number) == code
    # The client is told to stop speaking; what was on the way does no harm.
    assert gateway.reset_code(number) == 0
    assert gateway.idle


def test_what_is_on_the_way_to_a_stream_that_was_ended_is_ignored() -> None:
    gateway = Gateway()
    number = gateway.client.get_next_available_stream_id()
    gateway.open("/unknown")
    other = gateway.open()
    for _ in range(3):
        gateway.connection.receive(b"\0\0\5\0\0" + number.to_bytes(4, "big") + b"hello")

    route(gateway, other)
    gateway.say(other, end=True)

    assert gateway.status(other) == 0
    assert gateway.connection.failure is None


def test_metadata_over_the_limit_is_refused_and_the_connection_goes_on() -> None:
    gateway = Gateway()
    flood = gateway.open(x_flood="y" * 17_000)
    assert gateway.status(flood) == 8

    number = gateway.open()
    route(gateway, number)
    gateway.say(number, end=True)
    assert gateway.status(number) == 0


def test_a_message_over_the_limit_ends_its_stream_only() -> None:
    gateway = Gateway(max_message=10_000)
    big, number = gateway.open(), gateway.open()
    gateway.say(big, b"\0\0\0\x27\x11")
    assert gateway.status(big) == 8
    assert "at most 10000" in gateway.headers(big)["grpc-message"]

    route(gateway, number)
    gateway.say(number, end=True)
    assert gateway.status(number) == 0
    assert gateway.idle


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (message(b"\xff\xff\xff"), 3),
        (message(b""), 9),
        (b"\x01\0\0\0\x01x", 13),
        (b"\x07\0\0\0\x01x", 13),
    ],
)
def test_what_is_no_message_ends_its_stream_with_a_status(data: bytes, code: int) -> None:
    gateway = Gateway()
    number = gateway.open()
    gateway.say(number, data)

    assert gateway.status(number) == code
    assert gateway.headers(number)["grpc-message"].startswith("lora-router: ")
    assert gateway.idle


def test_a_compressed_message_is_unimplemented() -> None:
    gateway = Gateway()
    number = gateway.open(grpc_encoding="gzip")
    gateway.say(number, b"\x01\0\0\0\x01x")

    assert gateway.status(number) == 12
    assert gateway.headers(number)["grpc-accept-encoding"] == "identity"


def test_a_stream_that_ends_within_a_message_is_an_error() -> None:
    gateway = Gateway()
    number = gateway.open()
    gateway.say(number, request_headers())
    gateway.say(number, message(request_body(BODY))[:-3], end=True)

    assert gateway.status(number) == 13
    assert gateway.idle


def test_a_deadline_ends_the_stream_and_gives_the_request_back() -> None:
    gateway = Gateway()
    number = gateway.open(grpc_timeout="500m")
    route(gateway, number)
    assert gateway.conversation.fleet.ledger.total == 1

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
    route(gateway, number)
    gateway.say(number, end=True)
    gateway.clock.advance(2)

    assert gateway.status(number) == 0
    assert gateway.woken == 0


def test_a_malformed_deadline_is_an_error() -> None:
    gateway = Gateway()
    assert gateway.status(gateway.open(grpc_timeout="soon")) == 13


def test_a_session_that_fails_ends_its_stream_only(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway()
    fails, works = gateway.open(), gateway.open()
    with monkeypatch.context() as broken:
        broken.setattr(gateway.conversation.context.director, "pass_through", lambda _subset: 1 / 0)
        gateway.say(fails, request_headers(end=True))
    assert gateway.status(fails) == 13

    route(gateway, works)
    gateway.say(works, end=True)
    assert gateway.status(works) == 0
    assert gateway.idle


@pytest.mark.parametrize("name", ["__init__", "receive", "end"])
def test_a_session_that_is_broken_throughout_ends_its_streams_only(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = RawPeer()
    with monkeypatch.context() as broken:
        broken.setattr(f"lora_router.extproc.session.Session.{name}", lambda *_: 1 / 0)
        for number in (1, 3, 5):
            peer.open(number)
            peer.send(frame(frames.DATA, 0, number, message(request_headers(end=True))))
        peer.send(rst_stream(3, 8), frame(frames.DATA, frames.END_STREAM, 5))
        peer.connection.lost()
    assert peer.connection.failure is None
    assert peer.calls.open == 0


def kinds(got: list[tuple[int, int, int, bytes]]) -> list[int]:
    return [kind for kind, *_ in got]


def test_drained_connections_finish_their_streams_and_are_done() -> None:
    peer = RawPeer()
    peer.open(1)
    peer.received()

    peer.connection.control.drain()
    (goaway, ping) = peer.received()
    assert goaway == (frames.GOAWAY, 0, 0, frames.goaway(2**31 - 1, 0)[9:])
    # What was opened before the peer had seen it still counts.
    peer.open(3)
    (last,) = peer.send(frame(frames.PING, frames.ACK, 0, ping[3]))
    assert last == (frames.GOAWAY, 0, 0, frames.goaway(3, 0)[9:])
    assert peer.calls.open == 2

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
    assert peer.calls.open == 1


def test_streams_that_are_let_go_end_with_ok() -> None:
    peer = RawPeer(conversation=moody_conversation())
    for number in (1, 3):
        peer.open(number)
        said = message(request_headers()) + message(request_body(HELD))
        peer.send(frame(frames.DATA, 0, number, said))

    peer.connection.refuse_new()
    peer.connection.let_go()

    endings = {number: payload for kind, _, number, payload in peer.received() if kind == 1}
    assert endings == dict.fromkeys((1, 3), b"\x00\x0bgrpc-status\x010")
    assert peer.connection.done
    assert peer.idle


def test_a_stream_leaves_no_circle_for_the_garbage_collector() -> None:
    peer = RawPeer()
    gc.collect()
    gc.disable()
    try:
        for number in range(1, 21, 2):
            peer.open(number)
            said = message(request_headers()) + message(request_body(BODY))
            peer.connection.receive(frame(frames.DATA, 0, number, said))
            peer.connection.receive(frame(frames.DATA, frames.END_STREAM, number))
        assert peer.idle
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_refusal_is_an_answer_and_the_stream_may_end_as_it_likes() -> None:
    gateway = Gateway()
    number = gateway.open()
    gateway.say(number, request_headers())
    gateway.say(number, request_body(b'{"model": "unknown"}'))
    assert gateway.answers(number)[-1].immediate_response.status.code == 404
    gateway.reset(number)

    assert gateway.idle


def test_health_and_conversations_share_a_connection() -> None:
    gateway = Gateway()
    gateway.health.set("liveness", HealthCheckResponse.SERVING)
    number = gateway.open()
    check = gateway.open(CHECK)
    gateway.say(check, message(b"\x0a\x08liveness"), end=True)

    assert gateway.data(check) == message(b"\x08\x01")
    assert gateway.status(check) == 0
    route(gateway, number)
    gateway.say(number, end=True)
    assert gateway.idle


def test_an_open_stream_takes_little_memory() -> None:
    """Its session and its reservation included."""
    peer = RawPeer()
    peer.send(frames.window_update(0, 2**30))
    said = message(request_headers(headers=[("x-request-id", b"2f1c7c52-7d0c-4d1b-9c0f")]))
    said += message(request_body(b'{"model": "sql-lora", "x": "' + b"y" * 1000 + b'"}'))

    def open_streams(first: int, count: int) -> None:
        for number in range(first, first + 2 * count, 2):
            peer.open(number)
            peer.send(frame(frames.DATA, 0, number, said))

    open_streams(1, 100)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        open_streams(1001, 1000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peer.calls.open == 1100
    assert (after - before) / 1000 < 3000
