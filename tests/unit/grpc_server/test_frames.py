"""Frames from bytes, however the bytes are split."""

from itertools import pairwise
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import Frame, FrameReader
from lora_router.grpc_server.violations import ErrorCode, PeerError

Sent: TypeAlias = tuple[int, int, int, bytes | int]

SMALL: st.SearchStrategy[bytes | int] = st.binary(max_size=40)
LARGE: st.SearchStrategy[bytes | int] = st.sampled_from([4095, 4096, 16384])


def frames_with(payloads: st.SearchStrategy[bytes | int]) -> st.SearchStrategy[list[Sent]]:
    kinds, flags, numbers = st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31 - 1)
    return st.lists(st.tuples(kinds, flags, numbers, payloads), max_size=8)


def whole(sent: list[Sent]) -> list[Frame]:
    """Expand large payloads, which are given by their length so that examples stay readable."""
    return [
        (kind, flags, number, payload if isinstance(payload, bytes) else bytes(payload))
        for kind, flags, number, payload in sent
    ]


def written(sent: list[Frame]) -> bytes:
    return frames.PREFACE + b"".join(
        frames.frame(kind, flags, number, bytes(payload)) for kind, flags, number, payload in sent
    )


def read(reader: FrameReader, data: bytes) -> list[Frame]:
    return [
        (kind, flags, number, bytes(payload)) for kind, flags, number, payload in reader.feed(data)
    ]


@settings(deadline=None)
@given(frames_with(SMALL | LARGE), st.lists(st.integers(0, 2**20), max_size=12))
def test_frames_are_the_same_however_the_bytes_are_cut(
    given_frames: list[Sent], places: list[int]
) -> None:
    sent = whole(given_frames)
    data = written(sent)
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    reader = FrameReader()

    got = [frame for start, end in pairwise(ends) for frame in read(reader, data[start:end])]

    assert got == sent


@settings(deadline=None)
@given(frames_with(SMALL))
def test_frames_are_the_same_byte_by_byte(given_frames: list[Sent]) -> None:
    sent = whole(given_frames)
    data = written(sent)
    reader = FrameReader()

    got = [frame for at in range(len(data)) for frame in read(reader, data[at : at + 1])]

    assert got == sent


def test_the_reserved_bit_of_a_stream_is_ignored() -> None:
    reader = FrameReader()

    assert read(reader, frames.PREFACE + frames.frame(frames.PING, 0, 2**31 + 3)) == [
        (frames.PING, 0, 3, b"")
    ]


@pytest.mark.parametrize("cut", [3, 9, 100])
def test_a_frame_that_is_longer_than_allowed_is_a_violation_before_it_is_there(cut: int) -> None:
    reader = FrameReader()
    data = frames.frame(frames.DATA, 0, 1, b"x" * 16385)
    read(reader, frames.PREFACE + data[:cut] if cut < 9 else frames.PREFACE)

    with pytest.raises(PeerError) as raised:
        read(reader, data[cut:30] if cut < 9 else data[:cut])
    assert raised.value.code == ErrorCode.FRAME_SIZE_ERROR


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r"])
def test_what_does_not_begin_as_http_2_is_a_violation(data: bytes) -> None:
    with pytest.raises(PeerError):
        read(FrameReader(), data)


@pytest.mark.parametrize(
    ("payload", "data"), [(b"\x00abc", b"abc"), (b"\x02abcd", b"ab"), (b"\x03abc", b"")]
)
def test_padding_is_taken_off(payload: bytes, data: bytes) -> None:
    assert frames.unpadded(frames.PADDED, payload) == data


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x04abc"])
def test_padding_that_is_as_long_as_its_frame_is_a_violation(payload: bytes) -> None:
    with pytest.raises(PeerError):
        frames.unpadded(frames.PADDED, payload)


def test_settings_are_read_in_order_and_whole() -> None:
    payload = frames.settings({4: 10, 5: 20000})[9:]

    assert frames.read_settings(payload) == [(4, 10), (5, 20000)]
    with pytest.raises(PeerError):
        frames.read_settings(payload[:-1])
