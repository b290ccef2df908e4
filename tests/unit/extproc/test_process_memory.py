"""Bodies for which the process has no memory: they wait, and then the client is told."""

import json

from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.routing.model_names import NamePolicy
from tests.fleet import make_fleet
from tests.unit.extproc.conversation import Conversation, request_body, request_headers
from tests.unit.extproc.process_peer import EnvoyPeer
from tests.unit.extproc.test_session_fuzz import Moody
from tests.unit.grpc_server.peer import MAX_MESSAGE, message

BODY = b'{"model": "sql-lora", "x": "' + b"y" * 200_000 + b'"}'


def begun(peer: EnvoyPeer, first: ProcessingRequest, rest: ProcessingRequest) -> tuple[int, bytes]:
    """Send a request as far as its window allows; return its number and the unsent bytes."""
    number = peer.open()
    peer.tell(number, first)
    data = message(rest.SerializeToString())
    while data and (room := min(peer.client.local_flow_control_window(number), 16384)):
        peer.send(number, data[:room])
        data = data[room:]
    return number, data


def test_a_body_waits_until_there_is_room() -> None:
    peer = EnvoyPeer()
    budget = peer.bounds.budget
    budget.count_output(budget.largest)
    number, unsent = begun(peer, request_headers(), request_body(BODY))
    assert len(unsent) > 100_000
    # Envoy is asked for time, and may send only what a waiting stream may hold.
    assert peer.answers(number)[-1].override_message_timeout.ToMilliseconds() == 35_000
    assert (budget.waiting, budget.loose < 70_000) == (1, True)

    budget.count_output(-budget.largest)
    peer.exchange()
    peer.send(number, unsent)

    assert peer.answers(number)[-1].HasField("request_body")
    assert budget.used == 0
    peer.end(number)
    assert peer.idle


def test_a_client_whose_body_waited_too_long_is_told_when_to_come_again() -> None:
    peer = EnvoyPeer()
    budget = peer.bounds.budget
    budget.count_output(budget.largest)
    number, _ = begun(peer, request_headers(), request_body(BODY))

    peer.clock.advance(budget.wait_seconds)
    peer.exchange()

    refusal = peer.answers(number)[-1].immediate_response
    assert refusal.status.code == 503
    headers = {each.header.key: each.header.raw_value for each in refusal.headers.set_headers}
    assert headers["retry-after"] == b"1"
    assert json.loads(refusal.body)["error"]["code"] == "router_overloaded"
    budget.count_output(-budget.largest)
    peer.reset(number)
    assert peer.idle


def error_in(answer: ProcessingResponse) -> tuple[int, str]:
    """Return the status and the code of the answer to a client."""
    refusal = answer.immediate_response
    return refusal.status.code, json.loads(refusal.body)["error"]["code"]


def test_a_held_request_whose_body_no_longer_fits_is_refused_and_leaves_the_queue() -> None:
    """Without an answer, a gateway that fails open would forward it under the client's name."""
    conversation = Conversation(
        make_fleet(1, adapters=["held"]), algorithm=Moody(), max_body_bytes=MAX_MESSAGE
    )
    peer = EnvoyPeer(conversation=conversation)
    first, second = peer.open(), peer.open()
    peer.tell(first, request_headers(), request_body(b'{"model": "held"}'))
    body = b'{"model": "held", "x": "' + b"y" * 200_000 + b'"}'
    mode = ProcessingMode.FULL_DUPLEX_STREAMED
    peer.tell(second, request_headers(mode=mode), request_body(body, end=False))
    assert conversation.context.director.held == 1

    budget = peer.bounds.budget
    budget.count_output(budget.limit)
    peer.tell(second, request_body(b" " * 10_000))

    assert error_in(peer.answers(second)[-1]) == (503, "router_overloaded")
    assert conversation.context.director.held == 0
    outcomes = [outcome for _, outcome, _ in conversation.decisions.seen]
    assert outcomes == ["routed", "held", "refused"]
    peer.reset(second)
    peer.end(first)
    budget.count_output(-budget.limit)
    assert peer.idle


def test_a_held_request_keeps_the_room_that_its_body_was_let_in_with() -> None:
    """Its room is not given away between the end of its message and the decision to hold it."""
    conversation = Conversation(
        make_fleet(1, adapters=["held"]),
        algorithm=Moody(),
        names=NamePolicy(by_header=True),
        max_body_bytes=MAX_MESSAGE,
    )
    peer = EnvoyPeer(conversation=conversation)
    budget = peer.bounds.budget
    first, second = peer.open(), peer.open()
    peer.tell(first, request_headers(), request_body(b'{"model": "held"}'))
    budget.count_output(budget.largest - 250_000)
    body = b'{"model": "held", "x": "' + b"y" * 200_000 + b'"}'
    number, unsent = begun(peer, request_headers(), request_body(body))
    waiting, _ = begun(peer, request_headers(), request_body(body))

    assert not unsent
    assert peer.answers(number)[-1].HasField("override_message_timeout")
    assert conversation.context.director.held == 1
    assert budget.waiting == 1
    peer.reset(number)
    peer.exchange()
    assert budget.waiting == 0
    for each in (first, second, waiting):
        peer.reset(each)
    budget.count_output(250_000 - budget.largest)
    assert peer.idle


def test_what_still_arrives_after_a_refusal_is_discarded() -> None:
    peer = EnvoyPeer()
    budget = peer.bounds.budget
    budget.count_output(budget.limit)
    number, _ = begun(peer, request_headers(), request_body(BODY))

    assert peer.answers(number)[-1].HasField("immediate_response")
    assert budget.used == budget.limit
    peer.end(number)
    assert peer.status(number) == 0
    budget.count_output(-budget.limit)
    assert peer.idle


def test_pieces_of_a_body_are_counted_until_they_are_answered() -> None:
    peer = EnvoyPeer()
    budget = peer.bounds.budget
    number = peer.open()
    length = [("content-length", b"%d" % len(BODY))]
    peer.tell(number, request_headers(mode=ProcessingMode.FULL_DUPLEX_STREAMED, headers=length))
    pieces = [BODY[at : at + 30_000] for at in range(0, len(BODY), 30_000)]
    for piece in pieces[:-1]:
        peer.tell(number, request_body(piece, end=False))
    assert budget.used == len(BODY) + 16 * 1024
    # The answer to the headers waits for the body, so Envoy is asked for time.
    [more_time] = peer.answers(number)
    assert more_time.HasField("override_message_timeout")

    peer.tell(number, request_body(pieces[-1]))

    _, headers, *sent_back = peer.answers(number)
    assert headers.HasField("request_headers")
    streamed = [each.request_body.response.body_mutation.streamed_response for each in sent_back]
    assert b"".join(piece.body for piece in streamed) == BODY
    assert budget.used == 0
    peer.end(number)
    assert peer.idle
