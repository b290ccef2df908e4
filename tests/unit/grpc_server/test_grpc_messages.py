"""gRPC messages in the bytes of a stream."""

import gzip
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_router.grpc_server.grpc_messages import MessageError, MessageReader
from lora_router.grpc_server.status import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from tests.unit.grpc_server.peer import message


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=6), st.lists(st.integers(0, 300), max_size=10))
def test_messages_are_the_same_however_the_bytes_are_cut(
    sent: list[bytes], places: list[int]
) -> None:
    data = b"".join(message(one) for one in sent)
    ends = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    reader = MessageReader(1000, b"identity")
    got: list[bytes] = []
    for start, end in pairwise(ends):
        got += [bytes(one) for one in reader.feed(memoryview(data)[start:end])]
        # Only the incomplete message is held.
        whole = sum(len(one) + 5 for one in got)
        assert reader.held <= max(0, end - whole)

    assert got == sent
    assert reader.held == 0
    reader.check_end()


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x00\x00\x00", b"\x00\x00\x00\x00\x05abc"])
def test_a_stream_that_ends_within_a_message_is_an_error(data: bytes) -> None:
    reader = MessageReader(1000, b"identity")
    assert reader.feed(data) == []

    with pytest.raises(MessageError) as raised:
        reader.check_end()
    assert raised.value.code == INTERNAL


@pytest.mark.parametrize(
    ("data", "encoding", "code"),
    [
        (struct.pack(">BI", 0, 1001), b"identity", RESOURCE_EXHAUSTED),
        (struct.pack(">BI", 1, 1) + b"x", b"snappy", UNIMPLEMENTED),
        (struct.pack(">BI", 1, 1) + b"x", b"gzip", INTERNAL),
        (struct.pack(">BI", 1, 1) + b"x", b"identity", INTERNAL),
        (struct.pack(">BI", 2, 1) + b"x", b"identity", INTERNAL),
    ],
)
def test_what_is_too_long_or_compressed_is_refused_by_its_prefix(
    data: bytes, encoding: bytes, code: int
) -> None:
    with pytest.raises(MessageError) as raised:
        MessageReader(1000, encoding).feed(data)
    assert raised.value.code == code


@given(
    st.lists(st.binary(max_size=2000), max_size=4),
    st.sampled_from(["gzip", "deflate"]),
    st.integers(1, 50),
)
def test_compressed_messages_are_read_however_they_are_cut(
    messages: list[bytes], encoding: str, step: int
) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    packed = [pack(each) for each in messages]
    data = b"".join(struct.pack(">BI", 1, len(each)) + each for each in packed)
    reader = MessageReader(10_000, encoding.encode())

    read = [m for at in range(0, len(data), step) for m in reader.feed(data[at : at + step])]

    assert read == messages
    reader.check_end()


@pytest.mark.parametrize(
    ("contents", "count", "limit"),
    [
        (b"x" * 900_000, 1, 10_000_000),
        (bytes(range(256)) * 200, 1, 51_199),
        (bytes(range(256)) * 200, 3, 120_000),
    ],
    ids=["more than its length allows", "more than the limit", "too long together"],
)
def test_what_messages_contain_is_bounded_however_well_they_are_compressed(
    contents: bytes, count: int, limit: int
) -> None:
    packed = gzip.compress(contents)
    data = (struct.pack(">BI", 1, len(packed)) + packed) * count
    with pytest.raises(MessageError) as raised:
        MessageReader(limit, b"gzip").feed(data)
    assert raised.value.code == RESOURCE_EXHAUSTED


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x"])
def test_a_compressed_message_must_be_complete(change: Callable[[bytes], bytes]) -> None:
    data = change(gzip.compress(b"hello"))
    with pytest.raises(MessageError) as raised:
        MessageReader(1000, b"gzip").feed(struct.pack(">BI", 1, len(data)) + data)
    assert raised.value.code == INTERNAL


def test_a_message_of_the_longest_kind_is_taken() -> None:
    assert MessageReader(1000, b"identity").feed(message(b"x" * 1000)) == (b"x" * 1000,)


def test_an_encoding_that_no_message_uses_does_no_harm() -> None:
    assert MessageReader(1000, b"gzip").feed(message(b"x")) == (b"x",)
