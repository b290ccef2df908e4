"""The name of the model in a request body."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.extproc import body as body_module
from lora_router.extproc.body import (
    MAX_MODEL_LENGTH,
    BodyError,
    BodyErrorKind,
    BodyFields,
    read_body,
)

JSON = "application/json"


def error_of(body: bytes, content_type: str = JSON) -> BodyError:
    with pytest.raises(BodyError) as caught:
        read_body(body, content_type)
    return caught.value


def test_model_stream_and_size_are_read() -> None:
    body = b'{"messages": [{"role": "user"}], "stream": true, "model": "sql-lora"}'

    assert read_body(body, JSON) == BodyFields("sql-lora", stream=True, size=len(body))


@pytest.mark.parametrize("body", [b"{}", b'{"model": null}', b'{"model": ""}'])
def test_no_model_is_an_empty_name(body: bytes) -> None:
    assert read_body(body, JSON).model == ""


@pytest.mark.parametrize("stream", [b"false", b"null", b"1", b'"true"', b"[true]", b"{}"])
def test_only_a_literal_true_is_streaming(stream: bytes) -> None:
    assert not read_body(b'{"stream": ' + stream + b"}", JSON).stream


def test_of_two_equal_keys_the_last_counts_as_in_the_pod() -> None:
    body = b'{"model": "a", "mod\\u0065l": "b", "model": "c"}'

    assert read_body(body, JSON).model == json.loads(body)["model"] == "c"


def test_a_model_inside_another_object_is_not_the_model() -> None:
    assert read_body(b'{"tools": {"model": "x"}, "model": "y"}', JSON).model == "y"


def test_a_byte_order_mark_is_skipped_and_counted() -> None:
    body = b'\xef\xbb\xbf{"model": "a"}'

    assert read_body(body, JSON) == BodyFields("a", stream=False, size=len(body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"null",
        b"[]",
        b'"sql-lora"',
        b'{"model": "a"} {}',
        b'{"model": "a", "x": NaN}',
        b'{"model": "a", "x": tru}',
        b'{"model": "a", "x": "\xff"}',
        b'{"model": "\xff"}',
        b'{"\xff": 1}',
        b'{"model": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        '{"model": "a"}'.encode("utf-16"),
    ],
)
def test_what_is_no_json_object_is_malformed(body: bytes) -> None:
    error = error_of(body)

    assert error.kind is BodyErrorKind.MALFORMED
    assert error.message.startswith("The request body ")


@pytest.mark.parametrize("model", [b"5", b"true", b'["a"]', b'{"a": 1}', b"1e5"])
def test_a_model_that_is_no_string_is_said_to_be_none(model: bytes) -> None:
    error = error_of(b'{"model": ' + model + b"}")

    assert error.kind is BodyErrorKind.MODEL_TYPE


@pytest.mark.parametrize(
    "model",
    ["a\nb", "a\r\ntarget-pod: x", "a\x00", "\x7f", "a\u2028b", "x" * 513, " a", "a ", "\u200b"],
)
def test_a_name_that_must_not_stand_in_a_header_is_refused(model: str) -> None:
    error = error_of(json.dumps({"model": model}).encode())

    assert error.kind is BodyErrorKind.MODEL_NAME
    assert model.strip() == "a" or model not in error.message


def test_a_lone_surrogate_is_no_name() -> None:
    assert error_of(b'{"model": "\\ud800"}').kind in {
        BodyErrorKind.MODEL_NAME,
        BodyErrorKind.MALFORMED,
    }


@pytest.mark.parametrize(
    "model", ["org/model:v1.2", "Größe", "模型", "a b", "x" * MAX_MODEL_LENGTH]
)
def test_names_that_models_do_have_are_taken(model: str) -> None:
    assert read_body(json.dumps({"model": model}).encode(), JSON).model == model


def test_a_large_body_is_not_copied() -> None:
    body = json.dumps({"messages": ["a\n" * 500_000], "model": "m"}).encode()
    tracemalloc.start()
    try:
        assert read_body(body, JSON).model == "m"
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_messages_repeat_nothing_of_the_body() -> None:
    secret = b"sk-secret"
    for body in (secret, b'{"model": "' + secret, b'{"model": "\xff' + secret + b'"}'):
        assert "secret" not in error_of(body).message


@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise_anything_else(body: bytes) -> None:
    for content_type in (JSON, "multipart/form-data; boundary=x", ""):
        try:
            fields = read_body(body, content_type)
        except BodyError:
            continue
        assert fields.size == len(body)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=20)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4), NAMES, st.booleans())
def test_it_agrees_with_pythons_json(rest: dict[str, object], model: str, escape: bool) -> None:
    body = json.dumps({**rest, "model": model}, ensure_ascii=escape)
    try:
        encoded = body.encode()
    except UnicodeEncodeError:  # A lone surrogate without an escape cannot be sent.
        return

    assert read_body(encoded, JSON).model == json.loads(encoded)["model"]


DAMAGES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b",",
    b":",
    b"0",
    b"-",
    b".",
    b"e",
    b"u",
    b" ",
    b"\n",
]
DAMAGES += [b"\x00", b"\x1f", b"\x7f", b"\xff", b"\xc3", "ß".encode(), b"null", b'"model":', b'"b"']


def pod_reads(body: bytes) -> dict[str, object] | None:
    """Parse a body as a pod does; ``None`` if it is not a JSON object in UTF-8."""

    def refuse(_constant: str) -> None:  # NaN and Infinity are extensions of Python.
        raise ValueError

    try:
        document = json.loads(body.decode("utf-8-sig"), parse_constant=refuse)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


@given(
    st.dictionaries(st.sampled_from(["model", "stream", "x"]) | st.text(), JSON_VALUES, max_size=4),
    st.sampled_from(["a", "größe", "a/b:c"]),
    st.booleans(),
    st.sampled_from([None, (",", ":")]),
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from(DAMAGES), st.booleans()), max_size=2),
)
def test_of_a_damaged_body_it_takes_what_the_pod_takes(
    rest: dict[str, object],
    model: str,
    escape: bool,
    separators: tuple[str, str] | None,
    damages: list[tuple[int, bytes, bool]],
) -> None:
    listed = {**rest, "model": model, "stream": True}
    body = json.dumps(listed, ensure_ascii=escape, separators=separators)
    encoded = body.encode(errors="surrogatepass")
    for at, damage, instead in damages:
        encoded = encoded[:at] + damage + encoded[at + instead :]

    document = pod_reads(encoded)
    try:
        fields = read_body(encoded, JSON)
    except BodyError as error:
        if error.kind is BodyErrorKind.MALFORMED:
            # This reader is stricter here: it refuses an escaped lone surrogate.
            assert document is None or b"\\ud" in encoded.lower()
        elif error.kind is BodyErrorKind.MODEL_TYPE:
            assert document is not None
            assert not isinstance(document["model"], str | None)
    else:
        assert document is not None
        assert fields.model == (document.get("model") or "")
        assert fields.stream == (document.get("stream") is True)


@given(st.dictionaries(NAMES, JSON_VALUES, max_size=4), st.data())
def test_a_body_that_is_cut_is_never_taken_for_whole(
    rest: dict[str, object], data: st.DataObject
) -> None:
    body = json.dumps({"model": "a", **rest}).encode()
    cut = data.draw(st.integers(0, len(body) - 1))

    assert error_of(body[:cut]).kind is BodyErrorKind.MALFORMED


def test_names_that_clients_invent_take_a_bounded_memory() -> None:
    for number in range(5000):
        read_body(b'{"model": "invented-%d"}' % number, "application/json")
    before = body_module._usual_model.cache_info()
    escaped = b'{"model": "' + rb"\u0061" * 500 + b'"}'
    assert read_body(escaped, "application/json").model == "a" * 500

    after = body_module._usual_model.cache_info()
    assert before.currsize == after.currsize == 4096
    assert before.misses == after.misses
