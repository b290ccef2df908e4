"""What GOAWAY frames say, in whichever order a server drains its connections."""

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import frame
from lora_router.steps import all_at_once
from tests.unit.grpc_server.peer import RawPeer

ACKNOWLEDGE = frame(frames.PING, frames.ACK, 0, b"draining")
STEPS = ("drain", "refuse_new", "acknowledge", "open", "end", "let_go", "violate")


def last_streams(peer: RawPeer, steps: Sequence[str]) -> list[int]:
    """Take steps, and return the last stream of each GOAWAY."""
    opened = 0
    for step in steps:
        match step:
            case "drain":
                peer.connection.drain()
            case "refuse_new":
                peer.connection.refuse_new()
            case "let_go":
                all_at_once(peer.connection.let_go())
            case "acknowledge":
                peer.receive(ACKNOWLEDGE)
            case "open":
                opened += 1
                peer.open(2 * opened - 1)
            case "end" if opened:
                peer.receive(frame(frames.DATA, frames.END_STREAM, 2 * opened - 1))
            case "violate":
                peer.receive(frame(frames.PING, 0, 0, b"short"))
    said = [payload for kind, *_, payload in peer.received() if kind == frames.GOAWAY]
    return [int.from_bytes(payload[:4], "big") for payload in said]


# A connection that was moved to another worker, and then drained with all others.
@example(["open", "drain", "acknowledge", "open", "drain"])
# A second SIGTERM after new streams are refused.
@example(["open", "drain", "refuse_new", "drain", "refuse_new", "let_go"])
# A violation on a stream that was refused.
@example(["open", "drain", "acknowledge", "open", "violate"])
@given(st.lists(st.sampled_from(STEPS), max_size=12))
def test_the_last_stream_of_a_goaway_never_rises(steps: list[str]) -> None:
    last = last_streams(RawPeer(), steps)
    assert last == sorted(last, reverse=True)


def test_a_peer_is_asked_once() -> None:
    peer = RawPeer()
    peer.received()
    peer.connection.drain()
    peer.connection.drain()
    assert [kind for kind, *_ in peer.received()] == [frames.GOAWAY, frames.PING]


def test_a_peer_that_acknowledges_what_it_was_not_asked_is_served() -> None:
    peer = RawPeer()
    peer.received()
    assert peer.send(ACKNOWLEDGE) == []
    peer.open(1)
    assert peer.echo.open == 1


def test_streams_in_transit_are_served_although_the_peer_has_only_connected() -> None:
    peer = RawPeer()
    peer.connection = peer.another()
    peer.connection.drain()
    peer.receive(frames.PREFACE + frames.settings({}))
    peer.open(1)
    assert peer.echo.open == 1
