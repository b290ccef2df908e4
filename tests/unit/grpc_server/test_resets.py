"""Peers that waste streams are read more slowly, and nobody else."""

from collections.abc import Callable

import pytest

from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import frame, rst_stream, window_update
from lora_router.grpc_server.limits import Limits, ProcessLimits, Rate
from lora_router.grpc_server.resets import Resets, ResetShare
from lora_router.grpc_server.violations import ErrorCode
from tests.fleet import ManualClock
from tests.unit.grpc_server.peer import RawPeer, block, message

FEW = ProcessLimits(resets=Rate(3, 1))


def opened(number: int) -> bytes:
    return frame(frames.HEADERS, frames.END_HEADERS, number, block())


def opened_and_reset(number: int) -> bytes:
    return opened(number) + rst_stream(number, 8)


def answered_and_reset(number: int) -> bytes:
    return opened(number) + frame(frames.DATA, 0, number, message(b"x")) + rst_stream(number, 8)


def malformed(number: int) -> bytes:
    return frame(frames.HEADERS, frames.END_HEADERS, number, b"\x82")


def data_after_the_end(number: int) -> bytes:
    return (
        opened(number)
        + frame(frames.DATA, frames.END_STREAM, number)
        + frame(frames.DATA, 0, number, b"x")
    )


WASTES: dict[str, Callable[[int], bytes]] = {
    "reset before an answer": opened_and_reset,
    "reset in the same breath as an answer": answered_and_reset,
    "malformed": malformed,
    "data after the end": data_after_the_end,
}


def waits(peer: RawPeer) -> bool:
    """Whether input of the peer waits for a later turn."""
    return peer.connection.behind


@pytest.mark.parametrize("what", WASTES)
def test_a_flood_is_read_slowly_and_a_trickle_is_not(what: str) -> None:
    peer = RawPeer(process_limits=FEW)
    for number in range(1, 41, 2):
        peer.connection.receive(WASTES[what](number))
        assert not waits(peer)
        peer.clock.advance(1)

    for number in range(41, 81, 2):
        peer.connection.receive(WASTES[what](number))

    assert waits(peer)
    assert peer.connection.pause > 0
    assert peer.failure() is None
    # What has arrived waits, and is handled when its turns come.
    while waits(peer):
        peer.connection.proceed()
    assert peer.bounds.resets.total == 40
    assert peer.idle


def test_streams_that_were_answered_may_be_reset_at_any_rate() -> None:
    """Envoy resets every stream after its end."""
    peer = RawPeer(Limits(idle_frames=Rate(3, 1)), process_limits=FEW)
    for number in range(1, 201, 2):
        peer.connection.receive(opened(number) + frame(frames.DATA, 0, number, message(b"x")))
        peer.connection.receive(rst_stream(number, 8))
        peer.connection.receive(rst_stream(number, 0) + window_update(number, 1))

    assert not waits(peer)
    assert peer.bounds.resets.total == 0
    assert peer.idle


def test_only_who_wastes_streams_waits() -> None:
    peer = RawPeer(process_limits=FEW)
    other = peer.another()
    other.receive(frames.PREFACE + frames.settings({}))
    for number in range(1, 21, 2):
        peer.connection.receive(opened_and_reset(number))
    assert waits(peer)

    other.receive(opened(1) + frame(frames.DATA, 0, 1, message(b"x")))

    assert not other.behind
    assert peer.echo.taken == [b"x"]


def test_every_connection_has_a_share_when_the_rate_is_spent() -> None:
    clock = ManualClock()
    resets = Resets(Rate(10, 100), clock.now)
    resets.connections = 4
    flooding, calm = ResetShare(resets), ResetShare(resets)

    pause = max(flooding.spend() for _ in range(100))
    # A debt of 90 at 25 per second.
    assert pause == pytest.approx(3.6)

    clock.advance(0.1)
    while flooding.spend() < 2:
        pass
    # The rate is spent again, but this one has earned a share.
    assert calm.spend() == calm.spend() == 0


def test_a_debt_is_paid_by_waiting() -> None:
    clock = ManualClock()
    resets = Resets(Rate(10, 100), clock.now)
    share = ResetShare(resets)
    while not (pause := share.spend()):
        pass

    clock.advance(pause + 0.02)

    assert share.spend() == 0


def test_streams_refused_for_others_are_no_waste() -> None:
    peer = RawPeer(process_limits=ProcessLimits(streams=2, resets=Rate(1, 0.001)))
    peer.open(1)
    other = peer.another()
    other.receive(frames.PREFACE + frames.settings({}) + opened(1))
    other.output()
    for number in range(3, 13, 2):
        peer.connection.receive(opened(number))

    assert not waits(peer)
    refused = [each for each in peer.received() if each[0] == frames.RST_STREAM]
    code = ErrorCode.REFUSED_STREAM.to_bytes(4, "big")
    assert refused == [(frames.RST_STREAM, 0, number, code) for number in range(3, 13, 2)]
    assert peer.bounds.refused_streams == 5

    other.lost()
    peer.open(13)
    assert peer.echo.open == 2
