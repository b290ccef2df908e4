"""Questions that the processes of a router, and its peers, ask each other, and how they answer.

Peers may run another release. So both are maps by name: unknown fields are ignored, and missing
ones have defaults. An answer has its rows in parts, each of which is decoded and merged by itself,
so that a large answer never occupies the event loop.
"""

from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

Kind = Literal[
    "routers",
    "pods",
    "adapters",
    "held",
    "decisions",
    "decision",
    "explain",
    "facts",
    "steps",
    "order",
]

MAX_QUESTION_BYTES = 16 * 1024
"""Length of a question. A longer one is not answered."""
MAX_PARTS = 4096
"""Parts of an answer that are read. An answer with more is an invalid one."""


class Question(Struct, frozen=True):
    """What is asked."""

    kind: Kind
    args: Mapping[str, str] = {}
    """The parameters, as on the page of the same name."""


class Answer(Struct, frozen=True):
    """What one process answers."""

    at: float = 0.0
    """Seconds since 1970."""
    parts: list[bytes] = []
    """Lists of rows, each encoded by itself. ``rows`` has the type of each kind."""
    more: int = 0
    """Rows that were left out because of a bound."""
    error: str = ""
    """Why there is no answer."""


class AnswerError(ValueError):
    """An answer of another process cannot be used."""


Row = TypeVar("Row")

_encoder = msgspec.msgpack.Encoder()
_question = msgspec.msgpack.Decoder(Question).decode
_answer = msgspec.msgpack.Decoder(Answer).decode

encode = _encoder.encode


def read_question(data: bytes) -> Question:
    """Return the question that ``data`` encodes.

    Raises:
        AnswerError: It is too long, or it is none that this release knows.
    """
    if len(data) > MAX_QUESTION_BYTES:
        raise AnswerError(f"the question is longer than {MAX_QUESTION_BYTES} bytes")
    try:
        return _question(data)
    except msgspec.MsgspecError as error:
        raise AnswerError(f"the question is not known: {error}") from None


def is_order(data: bytes) -> bool:
    """Return whether ``data`` encodes a question that changes something."""
    try:
        return read_question(data).kind == "order"
    except AnswerError:
        return False


def read_answer(data: bytes) -> Answer:
    """Return the answer that ``data`` encodes.

    Raises:
        AnswerError: It is malformed.
    """
    try:
        answer = _answer(data)
    except msgspec.MsgspecError as error:
        raise AnswerError(str(error)) from None
    if len(answer.parts) > MAX_PARTS:
        raise AnswerError(f"the answer has more than {MAX_PARTS} parts")
    return answer


def read_part(data: bytes, row: type[Row]) -> list[Row]:
    """Return the rows of a part.

    Raises:
        AnswerError: It is malformed.
    """
    try:
        return msgspec.msgpack.decode(data, type=list[row])  # type: ignore[valid-type]
    except msgspec.MsgspecError as error:
        raise AnswerError(str(error)) from None
