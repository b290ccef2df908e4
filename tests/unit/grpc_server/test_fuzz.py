"""Arbitrary input: no exception escapes, and no stream or call is left over."""

from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.grpc_server.chaos import LIMITS, Chaos, check, finish
from tests.unit.grpc_server.peer import RawPeer

MESSAGES = [
    b"x",
    b"y" * 900,
    b"y" * 900,
    b"y" * 1500,
    b"wait",
    b"stop",
    b"raise",
    b"mute",
    b"",
]


@examples(100)
@given(st.integers(0, 2**32))
def test_streams_on_which_anything_happens(seed: int) -> None:
    peer = RawPeer(LIMITS)
    chaos = Chaos(seed, peer, MESSAGES)
    for step in range(120):
        chaos.step()
        if step % 10 == 0:
            peer.echo.send_waiting()
        check(peer)
        if peer.failure() is not None:
            break
    finish(peer)


@examples(100)
@given(st.lists(st.binary(max_size=60), max_size=10))
def test_any_bytes(pieces: list[bytes]) -> None:
    peer = RawPeer(LIMITS)
    for piece in pieces:
        peer.connection.receive(piece)
        check(peer)
    finish(peer)
