"""The server that decides nothing, with which the router is compared."""

import pytest

from bench.noop import NoSession
from bench.wire import failed_calls
from lora_router.extproc import process_call
from lora_router.steps import all_at_once
from tests.unit.extproc.conversation import (
    Conversation,
    request_body,
    request_headers,
    response_headers,
)
from tests.unit.extproc.process_peer import EnvoyPeer

SQL = request_body(b'{"model": "sql-lora"}')


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> EnvoyPeer:
    monkeypatch.setattr(process_call, "Session", NoSession)
    return EnvoyPeer()


def test_it_answers_every_message_of_a_stream_and_decides_nothing(gateway: EnvoyPeer) -> None:
    number = gateway.open()
    gateway.tell(number, request_headers(), SQL, response_headers())

    kinds = [answer.WhichOneof("response") for answer in gateway.answers(number)]
    assert kinds == ["request_headers", "request_body", "response_headers"]
    assert not any(
        answer.request_body.response.HasField("header_mutation")
        for answer in gateway.answers(number)
    )
    assert gateway.conversation.fleet.ledger.total == 0
    gateway.end(number)
    assert gateway.status(number) == 0
    assert gateway.idle


def test_a_stream_that_is_reset_leaves_nothing_behind(gateway: EnvoyPeer) -> None:
    number = gateway.open()
    gateway.tell(number, request_headers(), SQL)
    gateway.reset(number)

    assert gateway.idle


def test_a_stream_that_the_server_ends_gets_no_refusal(gateway: EnvoyPeer) -> None:
    number = gateway.open()
    gateway.tell(number, request_headers())
    all_at_once(gateway.connection.let_go())
    gateway.exchange()

    assert [each.WhichOneof("response") for each in gateway.answers(number)] == ["request_headers"]
    assert gateway.status(number) == 0


def test_it_has_what_the_other_transport_asks_of_a_session() -> None:
    session = NoSession(Conversation().context, lambda _outputs: None)

    for request in (request_headers(), SQL):
        assert len(session.receive(bytearray(request.SerializeToString()))) == 1
    assert (session.half_closed(), session.draining(), session.is_held) == ((), (), False)
    session.end()


def test_calls_that_failed_are_read_from_envoys_statistics() -> None:
    page = (
        "http.no-op-builtin.ext_proc.failure_mode_allowed: 674\n"
        "http.no-op-builtin.ext_proc.streams_failed: 1\n"
        "http.router-builtin.ext_proc.failure_mode_allowed: 0\n"
    )

    assert failed_calls(page, "no-op-builtin") == 674
    assert failed_calls(page, "router-builtin") == 0
    assert failed_calls(page, "router-grpcio") == 0
