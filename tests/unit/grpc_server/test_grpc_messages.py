"""gRPC messages in the bytes of a stream."""

import struct
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
        (struct.pack(">BI", 1, 1) + b"x", b"gzip", UNIMPLEMENTED),
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


def test_a_message_of_the_longest_kind_is_taken() -> None:
    assert MessageReader(1000, b"identity").feed(message(b"x" * 1000)) == (b"x" * 1000,)


def test_an_encoding_that_no_message_uses_does_no_harm() -> None:
    assert MessageReader(1000, b"gzip").feed(message(b"x")) == (b"x",)
