"""Header blocks are remembered only while their meaning is unchanged."""

from collections.abc import Sequence

import pytest
from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_router.grpc_server.headers import BlockReader, Headers, ListTooLongError, literals
from lora_router.grpc_server.outline import outline
from lora_router.grpc_server.violations import ErrorCode, PeerError


class Counted:
    """A reader that counts its decodings."""

    def __init__(self) -> None:
        self.decoded = 0
        self.reader = BlockReader(self.interpret, 65536)

    def interpret(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        self.decoded += 1
        return [(name, value) for name, value in headers]


NAMES = st.sampled_from([b":path", b":method", b"a", b"b", b"content-type"])
VALUES = st.sampled_from([b"", b"x", b"POST", b"/y", b"v" * 30, b"w" * 4000])
FIELDS = st.tuples(NAMES, VALUES, st.booleans())
"""Name, value, and whether the header must never be indexed."""
LISTS = st.lists(FIELDS, max_size=5)


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(LISTS, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([None, 0, 64, 200, 4096])), max_size=25),
)
def test_what_is_remembered_means_what_decoding_would_say(
    lists: list[list[tuple[bytes, bytes, bool]]], sent: list[tuple[int, int | None]]
) -> None:
    """An encoder with a dynamic table that grows, evicts and changes its size."""
    encoder, plain = Encoder(), Decoder()
    counted = Counted()
    for number, size in sent:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(lists[number % len(lists)])

        assert counted.reader.read(block) == list(plain.decode(block, raw=True))


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=10))
def test_any_blocks_mean_what_decoding_would_say_or_are_a_violation(blocks: list[bytes]) -> None:
    plain, counted = Decoder(), Counted()
    for block in [each for each in blocks for _ in range(2)]:
        try:
            meaning = counted.reader.read(block)
        except PeerError:
            return
        assert meaning == list(plain.decode(block, raw=True))


def encoded(encoder: Encoder, headers: Sequence[tuple[bytes, bytes, bool]]) -> bytes:
    return encoder.encode(headers)


def test_a_block_that_is_repeated_is_decoded_until_the_table_is_still() -> None:
    encoder, counted = Encoder(), Counted()
    headers = [(b":path", b"/a", True), (b"te", b"trailers", False)]

    for _ in range(10):
        counted.reader.read(encoded(encoder, headers))

    # The first block adds to the table, the second uses the index, the others are remembered.
    assert counted.decoded == 2


def test_any_change_of_the_table_forgets_all_blocks() -> None:
    """Index 62 is the newest entry, so the meaning of a block changes when an entry is added."""
    counted = Counted()
    newest = b"\xbe"
    add = b"\x40\x01a\x01"

    counted.reader.read(add + b"1")
    assert counted.reader.read(newest) == [(b"a", b"1")]
    counted.reader.read(add + b"2")
    assert counted.reader.read(newest) == [(b"a", b"2")]
    # Trailers change the table, too.
    counted.reader.decode(add + b"3")
    assert counted.reader.read(newest) == [(b"a", b"3")]
    # A table of size 0 is empty.
    counted.reader.read(b"\x20")
    with pytest.raises(PeerError) as raised:
        counted.reader.read(newest)
    assert raised.value.code == ErrorCode.COMPRESSION_ERROR


def test_a_block_that_changes_the_table_is_not_remembered_itself() -> None:
    counted = Counted()
    add = b"\x40\x01a\x011"

    counted.reader.read(add)
    counted.reader.read(add)
    counted.reader.read(b"\x40\x01b\x012")

    assert counted.reader.read(b"\xbf\xc0") == [(b"a", b"1"), (b"a", b"1")]
    assert counted.decoded == 4


def test_blocks_that_are_invented_get_a_bounded_memory() -> None:
    counted = Counted()
    for number in range(1000):
        counted.reader.read(b"\x00\x01a\x02" + number.to_bytes(2, "big"))

    assert len(counted.reader._known) <= 64


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xff\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # an index out of range
        b"\x00\x05ab",  # truncated
        b"\x3f\xff\xff\xff\x7f",  # a table larger than allowed
        b"\x20" * 100,  # many updates of the size
        b"\x00\x81\xff\x00",  # incomplete Huffman code
    ],
)
def test_a_block_that_cannot_be_decoded_is_a_compression_error(block: bytes) -> None:
    with pytest.raises(PeerError) as raised:
        Counted().reader.read(block)
    assert raised.value.code == ErrorCode.COMPRESSION_ERROR


def test_a_small_block_that_unpacks_to_much_is_too_much() -> None:
    counted = Counted()
    counted.reader.read(b"\x40\x01a\x7f\x80\x1e" + b"x" * 3967)

    with pytest.raises(PeerError) as raised:
        counted.reader.read(b"\xbe" * 100)
    assert raised.value.code == ErrorCode.ENHANCE_YOUR_CALM


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=20_000)), max_size=4))
def test_literals_are_read_back_and_leave_no_trace(headers: list[tuple[bytes, bytes]]) -> None:
    decoder = Decoder(max_header_list_size=10**6)

    assert list(decoder.decode(literals(headers), raw=True)) == headers
    assert not decoder.header_table.dynamic_entries


class TestALongList:
    """It is refused before it is decoded, which would take milliseconds."""

    def reader(self) -> BlockReader[Headers]:
        return BlockReader(lambda headers: headers, 64_000, 16_000)

    def test_of_more_fields_than_any_gateway_sends_ends_the_connection(self) -> None:
        with pytest.raises(PeerError) as raised:
            self.reader().read(b"\x90" * 257)
        assert raised.value.code == ErrorCode.ENHANCE_YOUR_CALM

    def test_is_not_decoded_but_for_the_fields_that_change_the_table(self) -> None:
        reader = self.reader()
        added = b"\x40\x01a\x01b"
        with pytest.raises(ListTooLongError) as raised:
            reader.read(literals([(b"x", b"y" * 17_000)]) + added)

        assert raised.value.list_bytes == 32 + 17_001 + 32 + 2
        # The first entry of the dynamic table.
        assert reader.read(b"\xbe") == [(b"a", b"b")]

    def test_of_which_much_changes_the_table_ends_the_connection(self) -> None:
        field = b"\x40\x01a\x7f\x80\x1e" + b"x" * 3967
        with pytest.raises(PeerError) as raised:
            self.reader().read(field * 5)
        assert raised.value.code == ErrorCode.ENHANCE_YOUR_CALM

    @settings(deadline=None)
    @given(st.binary(min_size=257, max_size=600))
    def test_of_any_bytes_means_what_decoding_says_or_is_a_violation(self, block: bytes) -> None:
        decoder = Decoder(max_header_list_size=64_000)
        try:
            found = list(self.reader().read(block))
        except (PeerError, ListTooLongError):
            return
        assert found == list(decoder.decode(block, raw=True))


TEXT = st.text("abcdefghijklmnopqrstuvwxyz0123456789-./", min_size=1, max_size=60)
HEADER = st.tuples(TEXT.map(str.encode), TEXT.map(str.encode))


@settings(deadline=None)
@given(st.lists(st.lists(HEADER, min_size=1, max_size=40), min_size=1, max_size=4), st.booleans())
def test_the_outline_of_what_an_encoder_sends(
    lists: list[list[tuple[bytes, bytes]]], huffman: bool
) -> None:
    encoder, reader = Encoder(), BlockReader[Headers](lambda headers: headers, 10**6)
    for headers in lists:
        block = encoder.encode(headers, huffman=huffman)
        found = outline(block, 256)
        sizes = [len(name) + len(value) + 32 for name, value in headers]
        assert found.list_bytes <= sum(sizes)
        assert list(reader.read(block)) == headers
