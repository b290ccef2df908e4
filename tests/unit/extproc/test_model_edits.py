"""Another model in a body: every other byte stays."""

import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.extproc import body as body_module
from lora_router.extproc.body import BodyError, read_body
from lora_router.extproc.model_edits import (
    MAX_ESCAPES,
    MAX_FINDS,
    MAX_REPEATED,
    edited,
    model_edits,
    with_model,
)

JSON = "application/json"
FORM = "multipart/form-data; boundary=edge"
NEW = "sql-lora-v1"


def renamed(body: bytes, content_type: str = JSON, model: str = NEW) -> bytes:
    named = read_body(body, content_type).model
    thorough = edited(body, model_edits(body, content_type, named, model))
    assert with_model(body, content_type, named, model) == thorough
    return thorough


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a"}', b'{"model":"sql-lora-v1"}'),
        (b' {\n"n" : 1e0, "model"\t: "a" }\n', b' {\n"n" : 1e0, "model"\t: "sql-lora-v1" }\n'),
        (b'{"model":"a","model":"b"}', b'{"model":"sql-lora-v1","model":"sql-lora-v1"}'),
        (b'{"model":null,"model":"b"}', b'{"model":"sql-lora-v1","model":"sql-lora-v1"}'),
        (b'{"model":5,"model":"b"}', b'{"model":5,"model":"sql-lora-v1"}'),
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":"sql-lora-v1"}'),
        (b'{"model":"\\u0061\\"\\\\"}', b'{"model":"sql-lora-v1"}'),
        (b'{"model":null}', b'{"model":"sql-lora-v1"}'),
        (b'{"model":""}', b'{"model":"sql-lora-v1"}'),
        (b'{"n":1}', b'{"model":"sql-lora-v1","n":1}'),
        (b"{ }", b'{"model":"sql-lora-v1" }'),
        (b'\xef\xbb\xbf{"n":1}', b'\xef\xbb\xbf{"model":"sql-lora-v1","n":1}'),
    ],
)
def test_only_the_value_of_the_field_changes(body: bytes, expected: bytes) -> None:
    assert renamed(body) == expected


@pytest.mark.parametrize(
    "other",
    [
        b'"x":{"model":"a"}',
        b'"x":[{"model":null}]',
        b'"x":"\\"model\\":\\"a\\""',
        b'"x":"model"',
        b'"model\\"":"a"',
        b'"\\"model":"a"',
        b'"x":["model","a"]',
        b'"Model":"a"',
        b'"x":{"mod\\u0065l":"a"}',
    ],
)
def test_what_only_looks_like_the_field_stays(other: bytes) -> None:
    assert renamed(b'{"model":"a",' + other + b"}") == b'{"model":"sql-lora-v1",' + other + b"}"
    assert renamed(b"{" + other + b',"model":"a"}') == b"{" + other + b',"model":"sql-lora-v1"}'
    assert renamed(b"{" + other + b"}") == b'{"model":"sql-lora-v1",' + other + b"}"


_texts = st.text(st.sampled_from('model"\\:{}[],é\U0001f600 \n')) | st.sampled_from(
    ["model", '"model"', '"model":"a"', 'model":"a']
)
_keys = st.sampled_from(['"model"', '"mod\\u0065l"', '"\\u006dodel"', '"x"', '"\\"model"']) | (
    _texts.map(json.dumps)
)
_spaces = st.text(st.sampled_from(" \t\n\r"), max_size=2)


def _object(fields: list[tuple[str, str, str]]) -> str:
    return (
        "{" + ",".join(f"{space}{key}{space}:{space}{value}" for key, space, value in fields) + "}"
    )


_values = st.recursive(
    st.sampled_from(["null", "1e0", "-0.10", "true", '"a"', '"\\u0061\\/"'])
    | _texts.map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda each: "[" + ",".join(each) + "]")
        | st.lists(st.tuples(_keys, _spaces, inner), max_size=3).map(_object)
    ),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.lists(st.tuples(_keys, _spaces, _values), max_size=6).map(_object), st.booleans())
def test_the_document_reads_the_same_but_for_the_model(text: str, as_bytearray: bool) -> None:
    body = text.encode()
    try:
        named = read_body(body, JSON).model
    except BodyError:
        return
    given_body = bytearray(body) if as_bytearray else body
    try:
        edits = model_edits(given_body, JSON, named, "nouveau modèle")
    except BodyError:
        assert text.count("odel") > MAX_REPEATED
        return

    result = edited(given_body, edits)

    assert json.loads(result) == {**json.loads(body), "model": "nouveau modèle"}
    fast = with_model(given_body, JSON, named, "nouveau modèle")
    # An earlier field whose name is escaped may stay. It counts for nobody.
    assert fast == result or (b"\\u" in body and json.loads(fast) == json.loads(result))
    # Each edit takes the place of a string or of null, or adds a field. The rest is the same.
    kept = at = 0
    for edit in edits:
        assert result[at : at + edit.start - kept] == body[kept : edit.start]
        at += edit.start - kept + len(edit.text)
        old = body[edit.start : edit.end]
        assert old in (b"", b"null") or isinstance(json.loads(old), str)
        kept = edit.end
    assert result[at:] == body[kept:]


def test_a_field_that_is_repeated_too_often_is_refused() -> None:
    many = b",".join([b'"model":"a"'] * (MAX_REPEATED + 1))
    with pytest.raises(BodyError, match="repeated"):
        renamed(b"{" + many + b"}")
    nested = b'{"x":[' + b",".join([b'{"model":"a"}'] * (MAX_FINDS + 1)) + b'],"model":"a"}'
    with pytest.raises(BodyError, match="repeated"):
        renamed(nested)


def lines_of(call: Callable[[], object]) -> int:
    """Return how many lines of Python a call runs."""
    lines = 0

    def trace(_frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("unit", [b'"model",', b'"mod\\u0065l",', b'"",', b'"\\u006d",'])
def test_what_is_no_key_is_not_looked_at_one_by_one(unit: bytes) -> None:
    body = b'{"y":{"model":"b"},"x":[' + unit * 10_000 + b'0],"model":"a"}'

    assert lines_of(lambda: with_model(body, JSON, "a", NEW)) < 500


def test_letters_that_are_written_as_escapes_too_often_are_refused() -> None:
    many = b'{"y":{"model":"b"},"x":"' + rb"\u006d" * (MAX_ESCAPES + 1) + b'","model":"a"}'

    with pytest.raises(BodyError, match="escapes more than 100000 times"):
        renamed(many)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_body_that_must_be_rewritten_is_rewritten_once(
    monkeypatch: pytest.MonkeyPatch, mark: bytes
) -> None:
    body = mark + b'{"x":[NaN,"\\ud83d"],"model":null,"model":"a","model":"a","y":{"model":"a"}}'
    # The four passes that find the fields of the document read what is rewritten.
    monkeypatch.setattr(body_module, "rewritten", lambda _body: pytest.fail("read leniently"))

    edits = model_edits(body, JSON, "a", NEW)

    new = b'"sql-lora-v1"'
    assert edited(body, edits) == (
        mark
        + b'{"x":[NaN,"\\ud83d"],"model":%b,"model":%b,"model":%b,"y":{"model":"a"}}'
        % (new, new, new)
    )


def form(*parts: bytes) -> bytes:
    return b"".join(b"--edge\r\n" + part + b"\r\n" for part in parts) + b"--edge--\r\n"


FILE = (
    b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\nRIFF\r\n\r\na\r\n-- not an end"
)


def field(name: bytes, value: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((field(b"model", b"a"), FILE), (field(b"model", NEW.encode()), FILE)),
        ((FILE, field(b"model", b"a")), (FILE, field(b"model", NEW.encode()))),
        (
            (field(b"model", b"a"), field(b"x", b"a")),
            (field(b"model", NEW.encode()), field(b"x", b"a")),
        ),
        (
            (field(b"model", b"b"), field(b"model", b"a")),
            (field(b"model", b"b"), field(b"model", NEW.encode())),
        ),
        ((FILE,), (field(b"model", NEW.encode()), FILE)),
        ((field(b"model", b""), FILE), (field(b"model", NEW.encode()), FILE)),
    ],
)
def test_in_a_form_only_the_value_of_the_last_field_changes(
    parts: tuple[bytes, ...], expected: tuple[bytes, ...]
) -> None:
    assert renamed(form(*parts), FORM) == form(*expected)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be"])
def test_a_body_in_another_encoding_arrives_in_utf8(encoding: str) -> None:
    body = '{"model": "a", "prompt": "é"}'.encode(encoding)

    result = with_model(body, JSON, "a", NEW)

    assert result == '{"model": "sql-lora-v1", "prompt": "é"}'.encode()


def test_numbers_that_json_does_not_have_and_cut_surrogates_stay() -> None:
    body = b'{"x": NaN, "model": "a", "y": "cut \\ud83d"}'

    assert renamed(body) == body.replace(b'"a"', b'"sql-lora-v1"')
