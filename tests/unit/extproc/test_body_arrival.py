"""When a body in pieces is complete: nobody waits for an end that comes only after the answer."""

import pytest

from lora_router.extproc import body_arrival
from lora_router.extproc.body import is_whole
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.states import PASSING, PIECES, ROUTED
from tests.unit.extproc.conversation import (
    Conversation,
    request_body,
    request_headers,
    request_trailers,
)

SQL = b'{"model": "sql-lora", "messages": [{"content": "}"}]}'
FORM = b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nsql-lora\r\n--x--\r\n'
FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED
MODES = [FULL_DUPLEX, ProcessingMode.STREAMED]


def headers(
    mode: "ProcessingMode.BodySendMode", length: int | None = None, kind: str = "application/json"
) -> ProcessingRequest:
    more = [] if length is None else [("content-length", b"%d" % length)]
    path = "/v1/completions" if kind == "application/json" else "/v1/audio/transcriptions"
    return request_headers(
        path, mode=mode, send_body_without_waiting=True, content_type=kind, headers=more
    )


def piece(body: bytes) -> ProcessingRequest:
    return request_body(body, end=False)


@pytest.mark.parametrize("mode", MODES)
def test_a_body_is_complete_with_the_last_of_its_announced_bytes(
    mode: "ProcessingMode.BodySendMode",
) -> None:
    talk = Conversation()
    assert talk.say(headers(mode, len(SQL) + 8), piece(SQL[:20])) == []

    answers = talk.say(piece(SQL[20:] + b" " * 8))

    assert answers[0].request_headers.response.header_mutation.set_headers
    assert talk.session.state is PASSING
    assert [each.WhichOneof("response") for each in talk.say(request_trailers())] == [
        "request_trailers"
    ]
    assert talk.session.state is ROUTED


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (SQL, "application/json"),
        (SQL + b"\r\n", "application/json"),
        (FORM, "multipart/form-data; boundary=x"),
    ],
)
def test_a_body_of_unknown_length_is_complete_when_it_can_be_read(
    mode: "ProcessingMode.BodySendMode", body: bytes, kind: str
) -> None:
    talk = Conversation()
    assert talk.say(headers(mode, kind=kind), piece(body[:30]), piece(body[30:40])) == []

    answers = talk.say(piece(body[40:]))

    assert answers[0].request_headers.response.header_mutation.set_headers
    assert talk.session.state is PASSING


def test_a_bracket_at_the_end_of_a_piece_completes_nothing() -> None:
    talk = Conversation()
    at = SQL.index(b"}") + 1

    assert talk.say(headers(FULL_DUPLEX), piece(SQL[:at])) == []

    assert talk.session.state is PIECES
    assert talk.say(piece(SQL[at:]))


def test_what_cannot_be_read_is_not_read_at_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Conversation()
    read: list[int] = []

    def counted(body: bytes, content_type: str) -> bool:
        read.append(len(body))
        return is_whole(body, content_type)

    monkeypatch.setattr(body_arrival, "is_whole", counted)
    talk.say(headers(FULL_DUPLEX))
    for _ in range(1000):
        assert talk.say(piece(b'"{}}')) == []

    assert sum(read) < 8 * 4000


def test_a_body_is_not_read_before_all_of_its_announced_bytes_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(body_arrival, "is_whole", lambda *_: pytest.fail("the body was read"))
    talk = Conversation()
    talk.say(headers(FULL_DUPLEX, len(SQL) + 2))

    assert talk.say(piece(SQL[:-1])) == talk.say(piece(b"} ")) == []

    assert talk.say(piece(b" "))
    assert talk.session.state is PASSING


def test_a_body_that_must_be_rewritten_is_complete_at_its_end() -> None:
    talk = Conversation()
    lenient = SQL.replace(b'"}"', b'"\\ud83d"')
    talk.say(headers(FULL_DUPLEX))

    # The reader that rewrites it would read all of it again with each piece.
    assert talk.say(piece(lenient)) == []

    answers = talk.say(request_body(b""))
    assert answers[0].request_headers.response.header_mutation.set_headers
    assert talk.session.state is ROUTED


@pytest.mark.parametrize("mode", MODES)
def test_what_follows_a_complete_body_goes_on(mode: "ProcessingMode.BodySendMode") -> None:
    talk = Conversation()
    talk.say(headers(mode), piece(SQL))

    (answer,) = talk.say(request_body(b"\n"))

    streamed = answer.request_body.response.body_mutation.streamed_response
    expected = (b"\n", True) if mode == FULL_DUPLEX else (b"", False)
    assert (streamed.body, streamed.end_of_stream) == expected
    assert talk.session.state is ROUTED
