"""A session reads how many tokens a request took, from the answers that may state it."""

import json
import logging
from typing import Any

import pytest

from lora_router.extproc.gateway_faults import BODIES_IN_A_ROW
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.usage_metadata import usage_metadata
from lora_router.extproc.usage_reading import UsageReading, usage_reading
from lora_router.extproc.usage_search import Usage, UsageSearch
from lora_router.fleet.prefixes import DEFAULT_TOKENS
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.telemetry.decisions import Decision
from tests.unit.extproc.conversation import (
    Conversation,
    request_body,
    request_headers,
    response_body,
    response_headers,
    response_trailers,
)

NAMES = HeaderNames(reads_answers=True)
ANSWER = json.dumps({"usage": {"prompt_tokens": 11, "completion_tokens": 7}}).encode()
EVENT = b"data: " + ANSWER + b"\n\n"
JSON, EVENTS = "application/json", "text/event-stream"


def conversation(*, every_stream: bool = False) -> Conversation:
    usage = UsageReading(every_stream=every_stream)
    return Conversation(headers=NAMES, usage=usage, records=10)


def cut(at: int) -> list[ProcessingRequest]:
    """The answer in two pieces."""
    return [response_body(ANSWER[:at], end=False), response_body(ANSWER[at:], end=True)]


def routed(
    talk: Conversation,
    path: str = "/v1/chat/completions",
    response_body_mode: "ProcessingMode.BodySendMode" = ProcessingMode.NONE,
    **fields: object,
) -> None:
    document = {"model": "sql-lora", **fields}
    talk.say(
        request_headers(path, response_body_mode=response_body_mode),
        request_body(json.dumps(document).encode()),
    )


def begin(
    talk: Conversation, kind: str = JSON, status: int = 200, encoding: str = ""
) -> ProcessingResponse:
    headers = [("content-encoding", encoding.encode())] if encoding else []
    (answer,) = talk.say(response_headers(str(status), content_type=kind, headers=headers))
    return answer


def ended(talk: Conversation) -> Decision:
    talk.session.end()
    return next(iter(talk.log))


def is_read(answer: ProcessingResponse) -> bool:
    return answer.mode_override.response_body_mode == ProcessingMode.STREAMED


def stated(answer: ProcessingResponse) -> dict[str, float]:
    """The numbers that an answer tells Envoy."""
    fields = answer.dynamic_metadata.fields
    if not fields:
        return {}
    assert list(fields) == ["io.lora_router"]
    numbers = fields["io.lora_router"].struct_value.fields
    return {name: value.number_value for name, value in numbers.items()}


def counts(talk: Conversation) -> tuple[int, int, int]:
    assert talk.context.usage is not None
    found = talk.context.usage.counts
    return found.stated, found.missing, found.encoded


def test_the_numbers_are_recorded_and_told_with_the_last_piece() -> None:
    talk = conversation()
    routed(talk)
    assert is_read(begin(talk))

    first, last = talk.say(*cut(20))

    assert stated(first) == {}
    assert stated(last) == {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    assert not last.response_body.response.HasField("body_mutation")
    decision = ended(talk)
    assert (decision.prompt_tokens, decision.completion_tokens) == (11, 7)
    assert counts(talk) == (1, 0, 0)


def test_a_document_that_ends_with_trailers_is_complete() -> None:
    talk = conversation()
    routed(talk)
    begin(talk)

    (piece,) = talk.say(response_body(ANSWER, end=False))
    (last,) = talk.say(response_trailers())

    assert (stated(piece), stated(last)["total_tokens"]) == ({}, 18)


def test_full_duplex_pieces_are_sent_back_with_the_numbers() -> None:
    talk = conversation()
    routed(talk, response_body_mode=ProcessingMode.FULL_DUPLEX_STREAMED)
    assert not begin(talk).HasField("mode_override")

    text = b" " * 200_000 + ANSWER
    pieces = talk.say(response_body(text, end=True))

    sent = [each.response_body.response.body_mutation.streamed_response for each in pieces]
    assert b"".join(each.body for each in sent) == text
    assert [each.end_of_stream for each in sent] == [False, False, False, True]
    assert [bool(stated(each)) for each in pieces] == [True, False, False, False]


@pytest.mark.parametrize(
    ("fields", "every_stream", "expected"),
    [
        ({"stream": True}, False, False),
        ({"stream": True}, True, True),
        ({"stream": True, "stream_options": {"include_usage": True}}, False, True),
        ({"stream": True, "stream_options": {"include_usage": False}}, False, False),
        ({"stream": True, "stream_options": {"include_usage": 1}}, False, False),
        ({"stream": True, "stream_options": []}, False, False),
        ({"stream": True, "stream_options": None}, False, False),
        ({"stream": True, "stream_options": {"x": [[[]]]}}, False, False),
    ],
)
def test_a_stream_is_read_if_its_request_asks_for_the_numbers(
    fields: dict[str, Any], every_stream: bool, expected: bool
) -> None:
    talk = conversation(every_stream=every_stream)
    routed(talk, **fields)

    assert is_read(begin(talk, EVENTS)) == expected

    (answer,) = talk.say(response_body(EVENT, end=True))
    assert bool(stated(answer)) == expected
    assert counts(talk) == (0, 0, 0)
    assert (ended(talk).prompt_tokens == 11) == expected
    assert counts(talk) == (int(expected), 0, 0)


@pytest.mark.parametrize(
    ("path", "kind", "status", "expected"),
    [
        ("/v1/messages", EVENTS, 200, True),
        ("/v1/responses", EVENTS, 200, True),
        ("/v1/embeddings", JSON, 200, True),
        ("/unknown", JSON, 200, True),
        ("/v1/messages/count_tokens", JSON, 200, False),
        ("/tokenize", JSON, 200, False),
        ("/v1/chat/completions", JSON, 429, False),
        ("/v1/chat/completions", JSON, 302, False),
        ("/v1/chat/completions", "audio/wav", 200, False),
    ],
)
def test_answers_are_read_where_they_may_state_numbers(
    path: str, kind: str, status: int, expected: bool
) -> None:
    talk = conversation()
    routed(talk, path, stream=kind == EVENTS)

    assert is_read(begin(talk, kind, status)) == expected


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_a_compressed_answer_is_not_read_but_counted(encoding: str) -> None:
    talk = conversation()
    routed(talk)

    assert not is_read(begin(talk, encoding=encoding))
    assert ended(talk).prompt_tokens is None
    assert counts(talk) == (0, 0, 1)


def test_an_answer_without_numbers_is_counted_as_missing() -> None:
    talk = conversation()
    routed(talk)
    begin(talk, encoding="identity")
    talk.say(response_body(b"{}", end=True))

    assert ended(talk).prompt_tokens is None
    assert counts(talk) == (0, 1, 0)


def test_a_stream_that_ends_early_counts_what_it_stated() -> None:
    talk = conversation()
    routed(talk, "/v1/messages", stream=True)
    begin(talk, EVENTS)
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 5}}}
    talk.say(response_body(b"data: " + json.dumps(start).encode() + b"\n\ndata: {", end=False))

    assert ended(talk).prompt_tokens == 5


def test_nothing_is_asked_for_without_the_setting() -> None:
    talk = Conversation(records=10)
    routed(talk)

    assert not begin(talk).HasField("mode_override")
    assert stated(talk.say(response_body(ANSWER, end=True))[0]) == {}
    assert ended(talk).prompt_tokens is None


def test_numbers_are_told_to_envoy_where_no_decisions_are_recorded() -> None:
    talk = Conversation(headers=NAMES, usage=UsageReading())
    routed(talk)
    begin(talk)

    assert stated(talk.say(response_body(ANSWER, end=True))[0])["total_tokens"] == 18


def test_ids_and_numbers_are_found_in_the_same_answer() -> None:
    talk = conversation()
    routed(talk, "/v1/responses")
    assert is_read(begin(talk))
    document = {"id": "resp_1", "usage": {"input_tokens": 4, "output_tokens": 3}}

    (answer,) = talk.say(response_body(json.dumps(document).encode(), end=True))

    assert stated(answer)["total_tokens"] == 7
    assert len(talk.context.director.sticky.made) == 1


def test_a_gateway_that_sends_no_bodies_is_noticed() -> None:
    talk = conversation()
    for _ in range(BODIES_IN_A_ROW):
        talk.session = talk.another()
        routed(talk)
        begin(talk)
        talk.session.end()

    assert "allow_mode_override" in str(talk.context.gateway.status())


def test_an_answer_that_cannot_be_read_still_reaches_the_client(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise ZeroDivisionError

    talk = conversation()
    routed(talk)
    begin(talk)
    monkeypatch.setattr(UsageSearch, "add", fail)

    first, last = talk.say(*cut(9))

    assert first.HasField("response_body")
    assert stated(last) == {}
    assert "failed to read the numbers of tokens" in caplog.text


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage(), {}),
        (Usage(cached=3), {}),
        (Usage(0, 0), {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
        (
            Usage(10**9, 10**9, 5),
            {
                "prompt_tokens": 1e9,
                "completion_tokens": 1e9,
                "cached_tokens": 5,
                "total_tokens": 1e9,
            },
        ),
        (Usage(completion=3), {"completion_tokens": 3, "total_tokens": 3}),
    ],
)
def test_metadata_are_those_that_protobuf_reads(usage: Usage, expected: dict[str, float]) -> None:
    assert stated(ProcessingResponse.FromString(usage_metadata(usage))) == expected


def test_the_setting_warns_of_what_it_costs_or_lacks(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert usage_reading("off", False, "streamed") is None
        on, everything = usage_reading("on", True), usage_reading("all", True)
        assert not caplog.text
        assert on is not None
        assert everything is not None
        assert (on.every_stream, everything.every_stream) == (False, True)

        usage_reading("on", False)
        assert "decisions are not recorded" in caplog.text
        usage_reading("on", True, "full-duplex")
        assert "envoy_body_mode full-duplex" in caplog.text


def test_an_answer_that_states_less_than_was_believed_corrects_the_room_of_its_pod() -> None:
    placement = LoraPlacement(AlgorithmOptions())
    talk = Conversation(headers=NAMES, usage=UsageReading(every_stream=False), algorithm=placement)
    prefixes = talk.fleet.prefixes
    messages = [{"role": "user", "content": "The same question as before. " * 100}]

    def ask(cached: int) -> float:
        talk.session = talk.another()
        routed(talk, messages=messages)
        begin(talk)
        details = {"prompt_tokens_details": {"cached_tokens": cached}}
        usage = {"usage": {"prompt_tokens": 700, "completion_tokens": 7, **details}}
        talk.say(response_body(json.dumps(usage).encode(), end=True))
        talk.session.end()
        (pod,) = prefixes._pods.values()
        return pod.room

    assert ask(cached=0) == DEFAULT_TOKENS
    assert ask(cached=690) == DEFAULT_TOKENS
    assert ask(cached=5) < DEFAULT_TOKENS
