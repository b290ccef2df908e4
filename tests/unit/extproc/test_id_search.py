"""IDs in answers and in requests."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.extproc.body import BodyError, read_body
from lora_router.extproc.engine_fields import read_lora_path
from lora_router.extproc.id_search import (
    LOOK_BYTES,
    LOOK_PIECES,
    MAX_FIELD_BYTES,
    IdSearch,
    NamedId,
    NamedIds,
    ids_in_body,
    ids_of_object,
)

RESPONSE = b'{"id":"resp_1","object":"response","output":[{"id":"msg_1"}]}'
CREATED = (
    b"event: response.created\n"
    b'data: {"type":"response.created","response":{"id":"resp_1","tools":[]}}\n\n'
)
OF_BATCH = ("id", "output_file_id", "error_file_id")
OF_RESPONSE = (("previous_response_id", "response"), ("conversation", "conversation"))


def search(*pieces: bytes, events: bool = False, fields: tuple[str, ...] = ("id",)) -> object:
    found = IdSearch(fields, event_stream=events)
    names: object = None
    for piece in pieces:
        assert names is None
        names = found.add(piece)
    return names


class TestAnswers:
    def test_the_id_of_the_object_is_found(self) -> None:
        assert search(RESPONSE) == ["resp_1"]

    def test_the_id_of_the_response_in_the_first_event_is_found(self) -> None:
        assert search(CREATED, events=True) == ["resp_1"]

    @pytest.mark.parametrize("events", [False, True])
    def test_the_id_is_found_however_the_answer_is_cut(self, events: bool) -> None:
        whole = CREATED if events else RESPONSE
        for cut in range(len(whole)):
            found = IdSearch(("id",), event_stream=events)
            first = found.add(whole[:cut])
            assert (first or found.add(whole[cut:])) == ["resp_1"]

    def test_a_long_answer_needs_not_be_complete(self) -> None:
        assert (
            search(b'{"object":"response", "instructions":"x{\\"id\\":1", "id" : "resp_1') is None
        )
        assert search(b'{"a":[{"id":"no"}],"b":"\\"id\\"","id":"resp_1","c":"cut') == ["resp_1"]

    def test_ids_further_inside_are_others(self) -> None:
        assert search(b'{"data":[{"id":"x"}],"error":{"id":"y"}}') == []

    def test_a_batch_has_ids_of_the_files_that_it_made(self) -> None:
        batch = {"id": "b", "input_file_id": "in", "output_file_id": "out", "error_file_id": None}

        assert search(json.dumps(batch).encode(), fields=OF_BATCH) == ["b", "out"]

    def test_comments_before_the_first_event_are_skipped(self) -> None:
        assert search(b": ping\r\n\r\n" + CREATED, events=True) == ["resp_1"]

    def test_an_answer_without_an_id_is_given_up(self) -> None:
        assert search(*[b" "] * LOOK_PIECES) == []
        assert search(b" " * LOOK_BYTES) == []
        assert search(b"not json at all", b"}") == []

    def test_what_cannot_be_an_id_is_ignored(self) -> None:
        assert search(b'{"id":"%s"}' % (b"x" * 200)) == []
        assert search(b'{"id":7}') == []

    @given(st.lists(st.binary(max_size=40), max_size=6), st.booleans())
    def test_no_bytes_raise(self, pieces: list[bytes], events: bool) -> None:
        found = IdSearch(OF_BATCH, event_stream=events)
        for piece in pieces:
            found.add(piece)

    @given(
        st.dictionaries(
            st.text(max_size=5),
            st.recursive(
                st.none() | st.integers() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["id", "x"]), inner, max_size=2)
                ),
                max_leaves=6,
            ),
            max_size=4,
        ),
        st.none() | st.text("abc_-", min_size=1, max_size=8),
    )
    def test_it_finds_what_a_parser_finds(self, document: dict[str, object], name: object) -> None:
        document.pop("response", None)
        document["id"] = name
        text = json.dumps(document).encode()

        found = dict(ids_of_object(text, frozenset({"id"})))

        assert found.get("id") == name
        assert "" in found


def ids_in(body: bytes) -> NamedIds:
    return ids_in_body(read_body(body, "application/json").document, OF_RESPONSE)


class TestRequests:
    @pytest.mark.parametrize(
        ("body", "named"),
        [
            (b'{"previous_response_id":"r"}', NamedId("r", "response", "previous_response_id")),
            (b'{"conversation":"c"}', NamedId("c", "conversation", "conversation")),
            (b'{"conversation":{"id":"c"}}', NamedId("c", "conversation", "conversation")),
            (b'{"previous_response_id":null}', None),
            (b'{"previous_response_id":""}', None),
            (b'{"previous_response_id":5}', None),
            (b'{"conversation":{}}', None),
            (b'{"model":"m"}', None),
            (
                b'{"input":"cut \\ud83d","previous_response_id":"r"}',
                NamedId("r", "response", "previous_response_id"),
            ),
            (
                b'{"temperature":NaN,"previous_response_id":"r","x":"\\ud83d"}',
                NamedId("r", "response", "previous_response_id"),
            ),
            (
                '{"previous_response_id":"r"}'.encode("utf-16"),
                NamedId("r", "response", "previous_response_id"),
            ),
        ],
    )
    def test_the_body_names_an_id_or_none(self, body: bytes, named: NamedId | None) -> None:
        assert ids_in(body).first == named

    @pytest.mark.parametrize(
        "field",
        [
            "store",
            "conversation",
            "previous_response_id",
            "input_file_id",
            "lora_path",
            "model",
            "stream_options",
        ],
    )
    def test_no_field_becomes_many_objects(self, field: str) -> None:
        body = b'{"stream":true,"%b":[%b0]}' % (field.encode(), b"[[[]]]," * 50_000)
        tracemalloc.start()
        try:
            fields = read_body(body, "application/json").document if field != "model" else None
            if fields is None:
                with pytest.raises(BodyError):
                    read_body(body, "application/json")
            else:
                ids_in_body(fields, (*OF_RESPONSE, ("input_file_id", "file")))
                read_lora_path(fields)
            # As long as the field is copied, and no longer.
            assert tracemalloc.get_traced_memory()[1] < 2 * len(body)
        finally:
            tracemalloc.stop()

    def test_what_is_too_long_for_an_id_names_none(self) -> None:
        longest = "x" * (MAX_FIELD_BYTES - 2)

        first = ids_in(json.dumps({"conversation": longest}).encode()).first
        assert first == NamedId(longest, "conversation", "conversation")
        assert ids_in(json.dumps({"conversation": longest + "x"}).encode()).first is None
        # The next field may still name one.
        both = {"previous_response_id": {"id": "r", "x": longest}, "conversation": {"id": "c"}}
        first = ids_in(json.dumps(both).encode()).first
        assert first == NamedId("c", "conversation", "conversation")

    def test_the_body_says_whether_the_answer_is_stored(self) -> None:
        assert ids_in(b"{}").is_stored
        assert ids_in(b'{"store":true}').is_stored
        assert not ids_in(b'{"store":false}').is_stored
