"""The counts of tokens that an answer states are found, however it is cut and whatever it says."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.extproc.json_usage import MAX_USAGE_BYTES, JsonUsage
from lora_router.extproc.usage_search import NO_USAGE, Usage, UsageSearch, usage_of
from tests.examples import examples

CHAT: dict[str, Any] = {"prompt_tokens": 11, "total_tokens": 18, "completion_tokens": 7}


def read(*pieces: bytes, stream: bool = False) -> Usage:
    search = UsageSearch(event_stream=stream)
    for piece in pieces:
        search.add(piece, ends=False)
    search.end()
    return search.usage


def by_byte(text: bytes) -> list[bytes]:
    return [text[at : at + 1] for at in range(len(text))]


def document(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def events(*documents: object, end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in documents) + end


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (document(id="x", choices=[{"index": 0}], usage=CHAT), Usage(11, 7)),
        (document(usage=CHAT, results=[{"index": 0}] * 999), Usage(11, 7)),
        (
            document(usage={**CHAT, "prompt_tokens_details": {"cached_tokens": 8}}),
            Usage(11, 7, 8),
        ),
        (document(data=[0.5] * 999, usage={"prompt_tokens": 3, "total_tokens": 3}), Usage(3)),
        (
            document(usage={"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 90}),
            Usage(95, 2, 90),
        ),
        (
            document(
                output=[],
                usage={
                    "input_tokens": 50,
                    "input_tokens_details": {"cached_tokens": 40},
                    "output_tokens": 2,
                },
                user="usage",
            ),
            Usage(50, 2, 40),
        ),
        (
            document(
                usage={
                    "billed_units": {"input_tokens": 1},
                    "tokens": {"input_tokens": 6, "output_tokens": 4},
                    "cached_tokens": 2,
                }
            ),
            Usage(6, 4, 2),
        ),
        (json.dumps({"usage": CHAT, "n": {"a": [1]}}, indent=4).encode(), Usage(11, 7)),
        (document(id="x"), NO_USAGE),
        (document(usage=None), NO_USAGE),
        (document(usage={"type": "duration", "seconds": 1}), NO_USAGE),
        (b"", NO_USAGE),
        (b'{"usage": {"prompt_tokens": 1', NO_USAGE),
    ],
)
def test_the_counts_of_a_document_in_one_piece_and_in_single_bytes(
    text: bytes, expected: Usage
) -> None:
    assert read(text) == expected
    assert read(*by_byte(text)) == expected


@pytest.mark.parametrize(
    "field",
    [
        {"tools": [{"parameters": {"properties": {"usage": {"prompt_tokens": 999}}}}]},
        {"metadata": {"usage": {"prompt_tokens": 999}}},
        {"choices": [{"usage": {"prompt_tokens": 999}}]},
        {"text": '"usage": {"prompt_tokens": 999}'},
        {"text": ' \\"usage": {"prompt_tokens": 999}'},
        {'x"usage': {"prompt_tokens": 999}},
        {"user": "]}" * 20_000},
        {"user": "\\" * 9_999},
        {"tools": {"usage": {"a": {"b": {"c": {"d": [[[[1]]]]}}}}}},
        {"tools": {"usage": {"usage": {"usage": {"prompt_tokens": 999}}}}},
        {"tools": [json.loads('{"usage":' * 90 + "{}" + "}" * 90)]},
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_what_a_client_writes_counts_nowhere(field: dict[str, object], *, before: bool) -> None:
    own: dict[str, object] = {"id": "x", "usage": CHAT}
    text = json.dumps({**field, **own} if before else {**own, **field}).encode()

    assert read(text) == Usage(11, 7)
    assert read(*(text[at : at + 1000] for at in range(0, len(text), 1000))) == Usage(11, 7)


@pytest.mark.parametrize(
    "number", [-1, 1.5, 1e3, "11", True, None, [], {}, 1_000_000_001, 10**30, 10**3000]
)
def test_a_number_that_counts_nothing_is_unknown(number: object) -> None:
    usage: dict[str, object] = {"prompt_tokens": number, "completion_tokens": 7}
    assert read(document(usage=usage)) == Usage(None, 7)


@pytest.mark.parametrize("usage", [None, [], "x", {"tokens": []}, {"prompt_tokens_details": 1}])
def test_another_object_says_nothing(usage: object) -> None:
    assert usage_of(usage) == NO_USAGE


CHUNK: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion.chunk",
    "choices": [{"delta": {"content": "hi"}}],
}
MESSAGE = {"id": "m", "content": [], "usage": {"input_tokens": 20, "output_tokens": 1}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (events(CHUNK, CHUNK, {**CHUNK, "choices": [], "usage": CHAT}), Usage(11, 7)),
        (events({**CHUNK, "usage": None}, {**CHUNK, "usage": CHAT}), Usage(11, 7)),
        (events(CHUNK, CHUNK), NO_USAGE),
        (events({**CHUNK, "usage": CHAT}, end=b""), Usage(11, 7)),
        (events({"usage": CHAT})[:-17].rstrip(), NO_USAGE),
        (
            events(
                {**CHUNK, "usage": {**CHAT, "completion_tokens": 1}},
                {**CHUNK, "usage": {**CHAT, "completion_tokens": 2}},
            ),
            Usage(11, 2),
        ),
        (
            events(
                {"type": "message_start", "message": MESSAGE},
                {"type": "content_block_delta", "delta": {"text": '"usage":{"input_tokens":1}'}},
                {"type": "message_delta", "delta": {"x": 1}, "usage": {"output_tokens": 9}},
            ),
            Usage(20, 9),
        ),
        (events({"type": "message_start", "message": MESSAGE}, end=b""), Usage(20, 1)),
        (
            events(
                {"type": "response.created", "response": {"usage": None}},
                {
                    "response": {
                        "tools": [{"usage": {"input_tokens": 999}}],
                        "output": "x" * 9_999,
                        "usage": {"input_tokens": 4, "output_tokens": 3},
                        "user": "y" * 9_999,
                    },
                    "sequence_number": 7,
                    "type": "response.completed",
                },
            ),
            Usage(4, 3),
        ),
        (
            events(
                {
                    "type": "response.completed",
                    "sequence_number": 7,
                    "response": {"usage": {"input_tokens": 4, "output_tokens": 3}},
                }
            ),
            Usage(4, 3),
        ),
        (
            events(
                {
                    "type": "message-end",
                    "delta": {
                        "finish_reason": "COMPLETE",
                        "usage": {"tokens": {"input_tokens": 6, "output_tokens": 4}},
                    },
                }
            ),
            Usage(6, 4),
        ),
        (events({"item": {"usage": {"input_tokens": 999}}}), NO_USAGE),
        (b': {"usage": {"prompt_tokens": 1}}\n\n', NO_USAGE),
        (b'event: {"usage": {"prompt_tokens": 1}}\n\n', NO_USAGE),
    ],
)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_the_counts_of_a_stream_of_events(text: bytes, expected: Usage, line_end: bytes) -> None:
    text = text.replace(b"\n", line_end)
    assert read(text, stream=True) == expected
    assert read(*by_byte(text), stream=True) == expected
    assert read(*text.splitlines(keepends=True), stream=True) == expected


def test_a_piece_that_changes_the_counts_says_so() -> None:
    search = UsageSearch(event_stream=True)
    last = b"data: " + document(usage=CHAT) + b"\n\n"

    assert not search.began
    assert [search.add(each, ends=False) for each in (b"data: {}\n\n", last, last)] == [
        False,
        True,
        False,
    ]
    assert not search.add(b"data: [DONE]\n\n", ends=True)
    assert search.began


def test_a_document_is_complete_with_its_last_piece() -> None:
    text = document(usage=CHAT)
    for ends in (True, False):
        search = UsageSearch(event_stream=False)
        assert search.add(bytearray(text), ends=ends) == ends
        assert search.end() != ends  # Trailers may end it.
        assert search.usage == Usage(11, 7)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "piece",
    [
        b"x" * 9999,
        b'"usage":{',
        b'{"usage":{},',
        b'{"usage":"',
        b"[" * 9999,
        b"\\" * 99,
        b"{" + b" " * 99,
        b'"' * 99,
        b'"usage":{"a":' + b"[" * 200,
        b'{"usage":' + b" " * 30,
        bytes(range(256)),
    ],
)
def test_little_is_kept_of_an_answer_of_any_length(piece: bytes, *, stream: bool) -> None:
    search = UsageSearch(event_stream=stream)
    if stream:
        search.add(b"data: ", ends=False)
    for _ in range(200):
        search.add(piece, ends=False)
        assert search.kept_bytes <= JsonUsage.HEAD_BYTES + MAX_USAGE_BYTES + 64
    search.end()
    assert search.kept_bytes == 0


def test_an_object_that_is_too_long_is_not_read() -> None:
    usage = {**CHAT, "more": "x" * MAX_USAGE_BYTES}
    text = document(x={"usage": usage}, usage=CHAT)

    assert read(document(usage=usage)) == NO_USAGE
    assert read(text) == Usage(11, 7)
    assert read(*(text[at : at + 100] for at in range(0, len(text), 100))) == Usage(11, 7)


texts = st.text(max_size=12) | st.sampled_from(
    ["usage", '"usage"', '"usage":{"prompt_tokens":5}', "\\", '\\"', "{", "}]", '\\"usage":{']
)
counts = st.integers(-2, 2_000_000_000)
usages = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": counts,
        "completion_tokens": counts,
        "prompt_tokens_details": st.none() | st.fixed_dictionaries({"cached_tokens": counts}),
        "x": texts,
    },
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts, inner, max_size=4)
        | st.fixed_dictionaries({"usage": usages | inner, "x": inner})
    ),
    max_leaves=12,
)
documents = st.fixed_dictionaries(
    {}, optional={"a": values, "usage": usages | values, "response": values, "z": values}
)


def cut(text: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


cuts = st.lists(st.integers(0, 10_000), max_size=6)


@pytest.mark.slow
@examples(50)
@given(documents, cuts, st.booleans(), st.sampled_from([None, 2]))
def test_the_same_is_found_as_by_parsing(
    written: dict[str, Any], places: list[int], ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(written, ensure_ascii=ascii_only, indent=indent).encode(
        errors="surrogatepass"
    )
    expected = usage_of(json.loads(text).get("usage"))

    assert read(*cut(text, places)) == expected
    assert read(*by_byte(text)) == expected


event_documents = st.builds(
    lambda response, rest: {"response": response, **rest} if response else rest,
    values,
    st.fixed_dictionaries({}, optional={"usage": usages | texts, "type": texts}),
)


@pytest.mark.slow
@examples(50)
@given(st.lists(event_documents, max_size=4), cuts, st.sampled_from([b"\n", b"\r\n"]))
def test_the_same_is_found_in_events_as_by_parsing(
    written: list[dict[str, Any]], places: list[int], line_end: bytes
) -> None:
    text = events(*written).replace(b"\n", line_end)
    expected = NO_USAGE
    for each in written:
        found = usage_of(each.get("usage"))
        inner = each.get("response")
        if not found.is_known and isinstance(inner, dict):
            found = usage_of(inner.get("usage"))
        expected = expected.followed_by(found)

    assert read(*cut(text, places), stream=True) == expected


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b'"usage":{', b"}", b'"'])), st.booleans()
)
def test_no_bytes_are_too_strange(pieces: list[bytes], stream: bool) -> None:
    read(*pieces, stream=stream)
