"""Sessions with arbitrary input: no stream, session or count is left over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.transport import PROCESS_PATH
from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import frame
from tests.examples import examples
from tests.fleet import make_fleet
from tests.unit.extproc.conversation import (
    Conversation,
    request_body,
    request_headers,
    request_trailers,
    response_body,
)
from tests.unit.extproc.process_peer import RawEnvoyPeer, said
from tests.unit.extproc.test_session_fuzz import Moody
from tests.unit.grpc_server.chaos import LIMITS, Chaos, finish
from tests.unit.grpc_server.chaos import check as check_connection
from tests.unit.grpc_server.peer import block

FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED
MESSAGES = [
    request.SerializeToString()
    for request in (
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


def server() -> RawEnvoyPeer:
    fleet = make_fleet(1, adapters=["held", "raises"])
    return RawEnvoyPeer(LIMITS, Conversation(fleet, algorithm=Moody(), max_body_bytes=3000))


def check(peer: RawEnvoyPeer) -> None:
    check_connection(peer)
    assert peer.process.open <= len(peer.connection.streams)
    assert peer.conversation.fleet.ledger.total <= peer.process.open


@pytest.mark.slow
@examples(150)
@given(st.integers(0, 2**32))
def test_conversations_in_which_anything_happens(seed: int) -> None:
    peer = server()
    chaos = Chaos(seed, peer, MESSAGES)
    for _ in range(120):
        chaos.step()
        check(peer)
        if peer.failure() is not None:
            break
    finish(peer)


def conversation(number: int) -> bytes:
    """Return the frames that Envoy sends for a request."""
    return b"".join(
        [
            frame(frames.HEADERS, frames.END_HEADERS, number, block(PROCESS_PATH)),
            frame(frames.DATA, 0, number, said(request_headers())),
            frame(frames.DATA, 0, number, said(request_body(b'{"model": "held"}'))),
            frame(frames.DATA, frames.END_STREAM, number),
            frames.rst_stream(number, 2),
        ]
    )


VALID = b"".join(conversation(number) for number in (1, 3, 5, 7)) + frames.settings({4: 100})


@pytest.mark.slow
@examples(300)
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


def test_the_valid_conversation_is_valid() -> None:
    peer = server()
    peer.connection.receive(VALID)

    assert peer.failure() is None
    assert [outcome for _, outcome, _ in peer.conversation.decisions.seen] == ["routed"] * 4
    finish(peer)
