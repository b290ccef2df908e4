"""The messages that send a body back are those that protobuf would make of it."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.extproc.body_pieces import LONGEST, request_pieces, response_pieces
from lora_router.extproc.outputs import BodyPiece, EndStream, Output
from lora_router.extproc.pb.ext_proc_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    ProcessingResponse,
    StreamedBodyResponse,
)

SIZES = [0, 1, 100, 127, 128, 4095, 4096, 16_384, LONGEST - 1, LONGEST, LONGEST + 1, 3 * LONGEST]


def messages(outputs: Sequence[Output]) -> list[ProcessingResponse]:
    """Parse the messages as Envoy does."""
    read = []
    for output in outputs:
        assert not isinstance(output, EndStream)
        data = output.joined() if isinstance(output, BodyPiece) else output
        read.append(ProcessingResponse.FromString(data))
    return read


def expected(piece: bytes, *, ends: bool) -> BodyResponse:
    streamed = StreamedBodyResponse(body=piece, end_of_stream=ends)
    mutation = BodyMutation(streamed_response=streamed)
    return BodyResponse(response=CommonResponse(body_mutation=mutation))


@given(st.binary(max_size=300), st.booleans())
def test_a_short_piece_is_one_message(piece: bytes, ends: bool) -> None:
    assert messages(request_pieces(piece, ends=ends)) == [
        ProcessingResponse(request_body=expected(piece, ends=ends))
    ]
    assert messages(response_pieces(piece, ends=ends)) == [
        ProcessingResponse(response_body=expected(piece, ends=ends))
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ends", [True, False])
def test_a_long_body_is_cut_into_messages_that_every_gateway_takes(size: int, ends: bool) -> None:
    body = bytes(number % 251 for number in range(size))

    pieces = [each.request_body for each in messages(request_pieces(body, ends=ends))]

    cut = [body[at : at + LONGEST] for at in range(0, size, LONGEST)] or [b""]
    last = [False] * (len(cut) - 1) + [ends]
    assert pieces == [expected(piece, ends=end) for piece, end in zip(cut, last, strict=True)]


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_the_bytes_of_a_long_body_are_not_copied(kind: type[bytes]) -> None:
    body = kind(b"x" * (LONGEST + 5000))

    pieces = request_pieces(body, ends=True)

    assert [isinstance(each, BodyPiece) and each.body.obj is body for each in pieces] == [True] * 2
