"""Sessions over the built-in gRPC server: every request is released, however its stream ends."""

import gc
import json
import struct
import tracemalloc

import pytest

from lora_router.extproc.gateway_faults import EARLY_IN_A_ROW
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import frame, rst_stream
from lora_router.grpc_server.limits import Limits
from lora_router.steps import all_at_once
from tests.fleet import make_fleet
from tests.unit.extproc.conversation import (
    Conversation,
    request_body,
    request_headers,
    request_trailers,
    response_headers,
)
from tests.unit.extproc.process_peer import EnvoyPeer, RawEnvoyPeer, said
from tests.unit.extproc.test_session_fuzz import Moody
from tests.unit.grpc_server.peer import MAX_MESSAGE, message

SQL = request_body(b'{"model": "sql-lora"}')
HELD = request_body(b'{"model": "held"}')


def moody_conversation() -> Conversation:
    """Return a conversation in which the second request for the model ``held`` is held."""
    return Conversation(make_fleet(1, adapters=["held"]), algorithm=Moody())


def two_for_one_slot() -> tuple[EnvoyPeer, int, int]:
    """Return a gateway with two requests for ``held``, of which the second is held."""
    gateway = EnvoyPeer(conversation=moody_conversation())
    first, second = gateway.open(), gateway.open()
    for number in (first, second):
        gateway.tell(number, request_headers(), HELD)
    return gateway, first, second


def test_a_request_is_answered_and_counts_until_its_stream_ends() -> None:
    gateway = EnvoyPeer()
    number = gateway.open()
    gateway.tell(number, request_headers(), SQL)

    first, second = gateway.answers(number)
    assert first.HasField("request_headers")
    assert second.request_body.response.header_mutation.set_headers[0].header.key == "target-pod"
    assert (gateway.process.open, gateway.conversation.fleet.ledger.total) == (1, 1)
    assert gateway.status(number) is None

    gateway.end(number)

    assert gateway.status(number) == 0
    assert gateway.idle


def test_a_reset_gives_the_request_back() -> None:
    gateway = EnvoyPeer()
    number = gateway.open()
    gateway.tell(number, request_headers(), SQL)

    gateway.reset(number)

    assert gateway.idle


def test_only_streams_that_the_gateway_resets_show_that_it_closes_them_early() -> None:
    gateway = EnvoyPeer()
    faults = gateway.conversation.context.gateway
    events = response_headers(content_type="text/event-stream")
    for end in (gateway.end, gateway.reset):
        assert faults.closed_early == 0
        for _ in range(EARLY_IN_A_ROW):
            number = gateway.open()
            gateway.tell(number, request_headers(), SQL, events)
            end(number)

    assert faults.closed_early == EARLY_IN_A_ROW


def test_a_lost_connection_gives_all_requests_back() -> None:
    gateway, *_ = two_for_one_slot()
    assert gateway.conversation.context.director.held == 1

    gateway.connection.lost()

    assert gateway.idle
    gateway.connection.lost()


def test_a_held_request_is_answered_when_a_slot_frees_and_the_owner_is_woken() -> None:
    gateway, first, second = two_for_one_slot()
    assert gateway.answers(second)[-1].HasField("override_message_timeout")
    assert gateway.woken == 0

    gateway.end(first)

    assert gateway.woken == 1
    assert gateway.answers(second)[-1].HasField("request_body")
    gateway.end(second)
    assert gateway.idle


def test_a_held_request_is_answered_when_its_time_is_up() -> None:
    gateway, _, second = two_for_one_slot()

    gateway.clock.advance(1.5)
    gateway.exchange()

    assert gateway.answers(second)[-1].HasField("immediate_response")
    gateway.connection.lost()
    assert gateway.idle


def test_a_late_answer_that_cannot_be_sent_ends_its_stream_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway, first, second = two_for_one_slot()
    with monkeypatch.context() as broken:
        broken.setattr(gateway.connection.streams[second], "send_window", None)
        gateway.end(first)

    assert (gateway.status(first), gateway.status(second)) == (0, 13)
    assert gateway.idle


def test_a_deadline_gives_the_request_back() -> None:
    gateway = EnvoyPeer()
    number = gateway.open(grpc_timeout="500m")
    gateway.tell(number, request_headers(), SQL)
    assert gateway.conversation.fleet.ledger.total == 1

    gateway.clock.advance(0.6)
    gateway.exchange()

    assert gateway.status(number) == 4
    assert gateway.idle


def test_a_large_body_is_one_message() -> None:
    gateway = EnvoyPeer(Limits(stream_window=65536, connection_window=1_000_000))
    number = gateway.open()
    document = b'{"x": "' + b"y" * 700_000 + b'", "model": "sql-lora"}'

    gateway.tell(number, request_headers(), request_body(document))
    gateway.end(number)

    assert gateway.answers(number)[-1].HasField("request_body")
    assert gateway.status(number) == 0
    assert gateway.idle


def test_a_request_that_is_over_counts_no_more_though_its_body_still_goes_back() -> None:
    gateway = EnvoyPeer(reads=False)
    number = gateway.open()
    document = b'{"model": "sql-lora", "x": "' + b"y" * 200_000 + b'"}'
    mode = ProcessingMode.FULL_DUPLEX_STREAMED
    gateway.tell(number, request_headers(mode=mode), request_body(document))
    gateway.end(number)
    assert gateway.conversation.fleet.ledger.total == 0
    assert gateway.status(number) is None

    while not gateway.ended(number):
        for each in (number, None):
            gateway.client.increment_flow_control_window(30_000, each)
        gateway.exchange()

    back = b"".join(
        answer.request_body.response.body_mutation.streamed_response.body
        for answer in gateway.answers(number)
    )
    assert back == document
    assert gateway.idle


@pytest.mark.parametrize(("data", "code"), [(b"\xff\xff\xff", 3), (b"", 9)])
def test_what_a_session_cannot_take_ends_its_stream_with_a_status(data: bytes, code: int) -> None:
    gateway = EnvoyPeer()
    number = gateway.open()
    gateway.say(number, data)

    assert gateway.status(number) == code
    assert gateway.headers(number)["grpc-message"].startswith("lora-router: ")
    assert gateway.idle


def test_a_refusal_is_an_answer_and_the_stream_may_end_as_it_likes() -> None:
    gateway = EnvoyPeer()
    number = gateway.open()
    gateway.tell(number, request_headers(), request_body(b'{"model": "unknown"}'))
    assert gateway.answers(number)[-1].immediate_response.status.code == 404
    gateway.reset(number)

    assert gateway.idle


def test_a_session_that_fails_ends_its_stream_only(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = EnvoyPeer()
    fails, works = gateway.open(), gateway.open()
    with monkeypatch.context() as broken:
        broken.setattr(gateway.conversation.context.director, "pass_through", lambda _subset: 1 / 0)
        gateway.tell(fails, request_headers(end=True))
    assert gateway.status(fails) == 13

    gateway.tell(works, request_headers(), SQL)
    gateway.end(works)
    assert gateway.status(works) == 0
    assert gateway.idle


@pytest.mark.parametrize("name", ["__init__", "receive", "end"])
def test_a_session_that_is_broken_throughout_ends_its_streams_only(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = RawEnvoyPeer()
    with monkeypatch.context() as broken:
        broken.setattr(f"lora_router.extproc.session.Session.{name}", lambda *_: 1 / 0)
        for number in (1, 3, 5):
            peer.open(number)
            peer.send(frame(frames.DATA, 0, number, said(request_headers(end=True))))
        peer.send(rst_stream(3, 8), frame(frames.DATA, frames.END_STREAM, 5))
        peer.connection.lost()
    assert peer.connection.failure is None
    assert peer.process.open == 0


def test_streams_that_are_let_go_end_with_ok() -> None:
    """Envoy treats OK as "no further changes" and continues the response."""
    peer = RawEnvoyPeer(conversation=moody_conversation())
    for number in (1, 3):
        peer.open(number)
        peer.send(frame(frames.DATA, 0, number, said(request_headers()) + said(HELD)))

    peer.connection.refuse_new()
    assert all_at_once(peer.connection.let_go()) == 2

    endings = {number: payload for kind, _, number, payload in peer.received() if kind == 1}
    assert endings == dict.fromkeys((1, 3), b"\x00\x0bgrpc-status\x010")
    assert peer.connection.done
    assert peer.idle


@pytest.mark.slow
def test_a_stream_leaves_no_circle_for_the_garbage_collector() -> None:
    peer = RawEnvoyPeer()
    gc.collect()
    gc.disable()
    try:
        for number in range(1, 21, 2):
            peer.open(number)
            peer.connection.receive(
                frame(frames.DATA, 0, number, said(request_headers()) + said(SQL))
            )
            peer.connection.receive(frame(frames.DATA, frames.END_STREAM, number))
        assert peer.idle
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "mode", [ProcessingMode.FULL_DUPLEX_STREAMED, ProcessingMode.BUFFERED], ids=["pieces", "whole"]
)
def test_an_upload_that_is_given_up_leaves_no_circle_for_the_garbage_collector(
    mode: "ProcessingMode.BodySendMode",
) -> None:
    """Such a circle would hold what had arrived of the body."""
    peer = RawEnvoyPeer()
    headers = request_headers(mode=mode, headers=[("content-length", b"300000")])
    # A complete piece of the body, and the start of the next one.
    body = said(request_body(b"x" * 10_000, end=False)) + said(request_body(b"x" * 20_000))[:5_000]
    gc.collect()
    gc.disable()
    try:
        for number in range(1, 21, 2):
            peer.open(number)
            peer.receive(frame(frames.DATA, 0, number, said(headers)))
            peer.receive(frame(frames.DATA, 0, number, body))
            assert peer.bounds.budget.used > 0
            peer.receive(rst_stream(number, 8))
        assert peer.idle
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.slow
def test_an_open_stream_takes_little_memory() -> None:
    """The limit includes the session and the reservation."""
    peer = RawEnvoyPeer()
    peer.send(frames.window_update(0, 2**30))
    data = said(request_headers(headers=[("x-request-id", b"2f1c7c52-7d0c-4d1b-9c0f")]))
    data += said(request_body(b'{"model": "sql-lora", "x": "' + b"y" * 1000 + b'"}'))

    def open_streams(first: int, count: int) -> None:
        for number in range(first, first + 2 * count, 2):
            peer.open(number)
            peer.send(frame(frames.DATA, 0, number, data))

    open_streams(1, 100)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        open_streams(1001, 1000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peer.process.open == 1100
    assert (after - before) / 1000 < 3000


def test_health_and_conversations_share_a_connection() -> None:
    gateway = EnvoyPeer()
    gateway.health.set("liveness", 1)
    number, check = gateway.open(), gateway.open("/grpc.health.v1.Health/Check")
    gateway.send(check, message(b"\x0a\x08liveness"), end=True)

    assert gateway.data(check) == message(b"\x08\x01")
    gateway.tell(number, request_headers(), SQL)
    gateway.end(number)
    assert gateway.idle


def refusal(gateway: EnvoyPeer, number: int) -> tuple[int, str]:
    """Return the status and the code of the answer with which a stream refuses its request."""
    answer = gateway.answers(number)[-1].immediate_response
    return answer.status.code, json.loads(answer.body)["error"]["code"]


UNDECIDED = {
    "before the body": [request_headers()],
    "amid the body": [
        request_headers(mode=ProcessingMode.FULL_DUPLEX_STREAMED),
        request_body(b'{"model": "he', end=False),
    ],
    "held": [request_headers(), HELD],
    "held, with trailers": [
        request_headers(mode=ProcessingMode.FULL_DUPLEX_STREAMED),
        request_body(b'{"model": "held"}', end=False),
        request_trailers(),
    ],
}
"""What a gateway has said whose request is not decided yet."""


@pytest.mark.parametrize("said_before", UNDECIDED.values(), ids=UNDECIDED)
class TestARequestThatIsNotDecidedIsAnswered:
    """A gateway that fails open would forward it as it is, under a name that pods do not know."""

    def begin(
        self, said_before: list[ProcessingRequest], timeout: str = "99S"
    ) -> tuple[EnvoyPeer, int]:
        gateway = EnvoyPeer(conversation=moody_conversation())
        first = gateway.open()
        gateway.tell(first, request_headers(), HELD)
        number = gateway.open(grpc_timeout=timeout)
        gateway.tell(number, *said_before)
        return gateway, number

    def test_when_the_router_stops(self, said_before: list[ProcessingRequest]) -> None:
        gateway, number = self.begin(said_before)

        gateway.connection.streams[number].call.let_go()
        gateway.exchange()

        assert refusal(gateway, number) == (503, "router_draining")
        assert gateway.status(number) == 0
        assert gateway.conversation.context.director.held == 0

    def test_at_the_deadline_of_its_stream(self, said_before: list[ProcessingRequest]) -> None:
        gateway, number = self.begin(said_before, "500m")

        gateway.clock.advance(0.6)
        gateway.exchange()

        assert refusal(gateway, number) == (503, "router_unavailable")
        assert gateway.status(number) == 4
        assert gateway.conversation.context.director.held == 0

    def test_when_a_message_is_longer_than_the_router_reads(
        self, said_before: list[ProcessingRequest]
    ) -> None:
        gateway, number = self.begin(said_before)

        gateway.send(number, struct.pack(">BI", 0, MAX_MESSAGE + 1))

        assert refusal(gateway, number) == (413, "request_too_large")
        assert gateway.status(number) == 8
        assert gateway.conversation.context.director.held == 0

    def test_when_the_session_fails(
        self, said_before: list[ProcessingRequest], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gateway, number = self.begin(said_before)

        def out_of_memory(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr("lora_router.extproc.session.read_event", out_of_memory)
        gateway.tell(number, request_trailers())

        assert refusal(gateway, number) == (503, "router_unavailable")
        assert gateway.status(number) == 13
        assert gateway.conversation.context.director.held == 0


def test_a_request_whose_late_answer_fails_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, first, second = two_for_one_slot()
    monkeypatch.setattr("lora_router.extproc.exchange.encode_routed", lambda *_, **__: 1 / 0)

    gateway.end(first)

    assert refusal(gateway, second) == (503, "router_unavailable")
    assert gateway.status(second) == 13
    assert gateway.idle


def test_a_request_that_is_routed_is_let_go_without_an_answer() -> None:
    """Envoy goes on with the answer of the pod."""
    gateway = EnvoyPeer()
    number = gateway.open()
    gateway.tell(number, request_headers(), SQL)

    all_at_once(gateway.connection.let_go())
    gateway.exchange()

    assert not gateway.answers(number)[-1].HasField("immediate_response")
    assert gateway.status(number) == 0
