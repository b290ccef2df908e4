"""The name that the client wrote is put back into an answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.extproc.answer_names import AnswerNames, is_named


def named(*pieces: bytes, served: str = "sql-lora", asked: str = "gpt") -> list[bytes]:
    names = AnswerNames(served, asked)
    last = len(pieces) - 1
    return [names.add(piece, ends=number == last) for number, piece in enumerate(pieces)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"model":"sql-lora","n":1}', b'{"model":"gpt","n":1}'),
        (b'{"id": 1, "model" : "sql-lora"}', b'{"id": 1, "model" : "gpt"}'),
        (b'{"response":{"model":"sql-lora"}}', b'{"response":{"model":"gpt"}}'),
        (
            b'data: {"model":"sql-lora"}\n\ndata: {"model":"sql-lora"}\n\ndata: [DONE]\n\n',
            b'data: {"model":"gpt"}\n\ndata: {"model":"gpt"}\n\ndata: [DONE]\n\n',
        ),
        (b'{"model":"other"}', b'{"model":"other"}'),
        (b'{"x":"\\"model\\":\\"sql-lora\\""}', b'{"x":"\\"model\\":\\"sql-lora\\""}'),
        (b'{"models":"sql-lora","x":"sql-lora"}', b'{"models":"sql-lora","x":"sql-lora"}'),
        (b'{"model":"sql-lora-v2"}', b'{"model":"sql-lora-v2"}'),
    ],
)
def test_only_the_name_of_the_field_changes(text: bytes, expected: bytes) -> None:
    assert named(text) == [expected]
    assert b"".join(named(*(text[at : at + 1] for at in range(len(text))))) == expected


@pytest.mark.parametrize("ascii_only", [True, False])
def test_names_beyond_ascii_in_both_spellings(ascii_only: bool) -> None:
    document = {"model": "modèle", "x": "é"}
    text = json.dumps(document, ensure_ascii=ascii_only).encode()

    (result,) = named(text, served="modèle", asked="größe")

    assert json.loads(result) == {"model": "größe", "x": "é"}
    assert result.isascii() is ascii_only


def test_a_complete_event_is_passed_on_at_once() -> None:
    event = b'data: {"model":"sql-lora","x":"y"}\n\n'

    assert named(event, event, b"") == [event.replace(b"sql-lora", b"gpt")] * 2 + [b""]


def test_only_what_may_be_the_field_is_kept() -> None:
    assert named(b'{"x":1,"mod', b'el":"sql-', b'lora"}') == [b'{"x":1,', b"", b'"model":"gpt"}']
    assert named(b'{"x":"mod', b'e"}') == [b'{"x":', b'"mode"}']
    assert named(b'{"model"', b" " * 9, b"}") == [b"{", b'"model"' + b" " * 9, b"}"]


def test_the_end_of_an_answer_is_never_kept() -> None:
    assert named(b'{"model', b"") == [b"{", b'"model']


_texts = st.lists(
    st.sampled_from(
        ['"model"', ":", " ", '"sql-lora"', '"sql-', "{", "}", ",", '"', "model", "lora", "\n", "é"]
    ),
    max_size=30,
).map("".join)


@given(_texts, st.lists(st.integers(0, 200), max_size=8))
def test_the_borders_of_pieces_make_no_difference(text: str, borders: list[int]) -> None:
    body = text.encode()
    cuts = sorted({min(border, len(body)) for border in borders})
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    assert b"".join(named(*pieces)) == b"".join(named(body))


def test_which_answers_are_looked_at() -> None:
    assert is_named("application/json; charset=utf-8")
    assert is_named("text/event-stream; charset=utf-8")
    assert not is_named("audio/wav")
    assert not is_named("")
