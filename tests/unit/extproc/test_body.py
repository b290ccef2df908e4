"""The name of the model in a request body."""

import json
import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from lora_router.extproc import body as body_module
from lora_router.extproc import lenient_json
from lora_router.extproc.body import (
    BodyError,
    BodyErrorKind,
    BodyFields,
    read_body,
)
from lora_router.extproc.lenient_json import MAX_NUMBERS, MAX_SURROGATES
from lora_router.routing.model_name_rule import MAX_MODEL_LENGTH
from tests.examples import examples
from tests.unit.extproc.starlette_pod import read_json

JSON = "application/json"


def error_of(body: bytes, content_type: str = JSON) -> BodyError:
    with pytest.raises(BodyError) as caught:
        read_body(body, content_type)
    return caught.value


def routing_fields(body: bytes) -> BodyFields:
    """Return what is read, without the prompt."""
    return structs.replace(read_body(body, JSON), document=None)


def test_model_stream_and_size_are_read() -> None:
    body = b'{"messages": [{"role": "user"}], "stream": true, "model": "sql-lora"}'

    assert routing_fields(body) == BodyFields("sql-lora", stream=True, size=len(body))


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

    assert routing_fields(body) == BodyFields("a", stream=False, size=len(body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"null",
        b"[]",
        b'"sql-lora"',
        b'{"model": "a"} {}',
        b'{"model": "a", "x": tru}',
        b'{"model": "a", "x": "\xff"}',
        b'{"model": "\xff"}',
        b'{"\xff": 1}',
        b'{"model": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "a", "x": +NaN}',
        b'{"model": "a", "x": -NaN}',
        b'{"model": "a", "x": 1NaN}',
        b'{"model": "a", "x": NaN1}',
        b'{"model": "a", "x": Infinity.5}',
        b'{"model": "a", "x": Infinitye5}',
        b'{"model": "a", "x": nan}',
        b'{"model": "a", NaN: 1}',
        b'{"model": "a", "x": "NaN" NaN}',
        b"NaN",
        b'{"model": "a", "x": "\\ud83d"} \\ud83d',
        b'{"model": "a", \\ud83d: 1}',
        b'\xef\xbb\xbf\xef\xbb\xbf{"model": "a"}',
        b'\xff\xfe{"model": "a"}',
        "[1]".encode("utf-16"),
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


@pytest.mark.slow
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


DAMAGES += [b"NaN", b"Infinity", b"-Infinity", b"\\\\", b'\\"', b"\\ud83d", b"\\uDE00", b"\\u0041"]
DAMAGES += [b"\xef\xbb\xbf", b"\xed\xa0\xbd", b"\xed\xb8\x80"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]


TEXTS = st.text() | st.text(st.sampled_from('\\"NaN \ud83d\ude00'), max_size=8)
POD_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@examples(200)
@given(
    st.dictionaries(st.sampled_from(["model", "stream", "x"]) | TEXTS, POD_VALUES, max_size=4),
    st.sampled_from(["a", "größe", "a/b:c"]),
    st.booleans(),
    st.sampled_from([None, (",", ":")]),
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from(DAMAGES), st.booleans()), max_size=3),
    st.sampled_from(ENCODINGS),
)
def test_of_any_body_it_takes_what_the_pod_takes(
    rest: dict[str, object],
    model: str,
    escape: bool,
    separators: tuple[str, str] | None,
    damages: list[tuple[int, bytes, bool]],
    encoding: str,
) -> None:
    listed = {**rest, "model": model, "stream": True}
    body = json.dumps(listed, ensure_ascii=escape, separators=separators)
    encoded = body.encode(encoding, errors="surrogatepass")
    for at, damage, instead in damages:
        encoded = encoded[:at] + damage + encoded[at + instead :]

    document = read_json(encoded)
    try:
        fields = read_body(encoded, JSON)
    except BodyError as error:
        if error.kind is BodyErrorKind.MALFORMED:
            assert document is None
        elif error.kind is BodyErrorKind.MODEL_TYPE:
            assert document is not None
            assert not isinstance(document["model"], str | None)
        else:
            assert document is not None
            assert not str(document["model"]).isprintable() or " " in str(document["model"])
    else:
        assert document is not None
        assert fields.model == (document.get("model") or "")
        assert fields.stream == (document.get("stream") is True)


def test_a_url_encoded_form_is_refused_with_a_reason() -> None:
    form = "application/x-www-form-urlencoded"

    assert "URL-encoded form" in error_of(b"model=a&stream=true", form).message
    # curl sends this type unless it is told another one. The pod says what is wrong with it.
    assert read_body(b'{"model": "a", "x": NaN}', form).model == "a"


CUT_EMOJI = [
    b'{"model": "a", "content": "cut \\ud83d"}',
    b'{"content": "cut \\uD83D", "model": "a"}',
    b'{"content": "\\ude00 \\\\\\ud83d", "model": "a"}',
    b'{"content": "\\ud83d\\ud83d\\ude00\\ude00", "model": "a"}',
    b'{"\\ud83d": {"\\udfff": []}, "model": "a"}',
    b'{"content": "cut \xed\xa0\xbd", "model": "a"}',
]


@pytest.mark.parametrize("body", CUT_EMOJI)
def test_a_string_that_is_cut_inside_an_emoji_is_read(body: bytes) -> None:
    assert json.loads(body)["model"] == "a"
    assert routing_fields(body) == BodyFields("a", stream=False, size=len(body))


def test_an_escaped_backslash_before_u_is_no_surrogate() -> None:
    body = rb'{"x": "\\ud83d", "y": "\ud83d", "model": "a\\ud83d"}'

    assert read_body(body, JSON).model == json.loads(body)["model"] == r"a\ud83d"


def test_a_surrogate_in_the_name_is_never_replaced() -> None:
    for name in (b"a\\ud83d", b"a\xed\xa0\xbd", b"\\ude00"):
        assert error_of(b'{"model": "' + name + b'"}').kind is BodyErrorKind.MODEL_NAME


def test_an_emoji_in_the_name_is_kept_beside_a_lone_surrogate() -> None:
    body = rb'{"model": "\ud83d\ude00", "content": "\ud83d"}'

    assert read_body(body, JSON).model == "\U0001f600"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_special_numbers_are_read_as_pods_read_them(number: bytes) -> None:
    body = b'{"temperature": ' + number + b', "x": "NaN\\"NaN", "model": "NaN"}'

    assert read_body(body, JSON).model == json.loads(body)["model"] == "NaN"
    assert error_of(b'{"model": ' + number + b"}").kind is BodyErrorKind.MODEL_TYPE


def test_special_numbers_are_refused_where_a_setting_says_so() -> None:
    with pytest.raises(BodyError, match="contains NaN or Infinity, which JSON does not have"):
        read_body(b'{"model": "a", "x": [NaN]}', JSON, special_numbers=False)

    assert read_body(b'{"model": "a", "x": "NaN"}', JSON, special_numbers=False).model == "a"


def test_the_number_of_special_numbers_is_bounded() -> None:
    few = b'{"model": "a", "x": [' + b"NaN," * (MAX_NUMBERS - 1) + b"NaN]}"
    many = b'{"model": "a", "x": [' + b"NaN," * MAX_NUMBERS + b"NaN]}"

    assert read_body(few, JSON).model == "a"
    assert "more than 20000 times" in error_of(many).message


@pytest.mark.parametrize(
    ("lone", "encoding"),
    [
        (b"\\ud83d", None),
        (b"\xed\xa0\xbd", None),
        ("\ude00".encode("utf-16-le", "surrogatepass"), "utf-16-le"),
        ("\ude00".encode("utf-32-be", "surrogatepass"), "utf-32-be"),
    ],
)
def test_the_number_of_surrogates_is_bounded(lone: bytes, encoding: str | None) -> None:
    begin, end = '{"model": "a", "x": "', '"}'
    head, tail = begin.encode(encoding or "utf-8"), end.encode(encoding or "utf-8")

    assert read_body(head + lone * MAX_SURROGATES + tail, JSON).model == "a"

    error = error_of(head + lone * (MAX_SURROGATES + 1) + tail)
    assert error.kind is BodyErrorKind.MALFORMED
    assert "surrogates more than 100000 times" in error.message


def test_a_body_that_is_valid_json_may_have_any_number_of_emoji() -> None:
    escaped = b'{"model": "a", "x": "' + rb"\ud83d\ude00" * (MAX_SURROGATES + 1) + b'"}'
    raw = b'{"model": "a", "x": "' + "\U0001f600".encode() * (MAX_SURROGATES + 1) + b'"}'

    assert read_body(escaped, JSON).model == read_body(raw, JSON).model == "a"


def test_many_words_in_strings_do_not_matter_beside_a_cut_emoji() -> None:
    body = b'{"model": "a", "x": "' + b"NaN " * (MAX_NUMBERS + 1) + b'\\ud83d"}'

    assert read_body(body, JSON).model == "a"


PARTS = [
    rb"\\",
    rb"\"",
    rb"\ud83d",
    rb"\uDE00",
    rb"\u0041",
    rb"\ud55c",
    b"ud83d",
    b"\\",
    b'"',
    b",",
    b'":',
    b"NaN",
    b"-Infinity",
    b"-",
    b"a",
    b"\xed\xa0\xbd",
    b"\xed",
    b"\xbd",
    "\U0001f600".encode(),
]


@given(st.lists(st.sampled_from(PARTS), max_size=12), st.sampled_from([b'"', b'["', b'[NaN,"']))
def test_of_strings_of_any_such_parts_it_takes_what_the_pod_takes(
    parts: list[bytes], begin: bytes
) -> None:
    end = b'"]' if begin.startswith(b"[") else b'"'
    body = b'{"x":' + begin + b"".join(parts) + end + b',"model":"a"}'

    document = read_json(body)

    if document is None:
        assert error_of(body).kind is BodyErrorKind.MALFORMED
    else:
        assert read_body(body, JSON).model == document["model"]


@given(
    st.text(st.sampled_from("\ud83d\ude00a\U0001f600é"), max_size=30),
    st.sampled_from(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]),
    st.sampled_from([4, 8, 12]),
)
def test_a_body_in_another_encoding_is_read_in_pieces(
    text: str, encoding: str, piece_bytes: int
) -> None:
    body = ('{"x": "' + text + '", "model": "größe"}').encode(encoding, "surrogatepass")
    before = lenient_json._PIECE_BYTES
    lenient_json._PIECE_BYTES = piece_bytes
    try:
        rewritten = bytes(lenient_json.rewritten(body).text).decode()
        assert error_of(body[:-1]).kind is BodyErrorKind.MALFORMED
    finally:
        lenient_json._PIECE_BYTES = before

    expected = re.sub("[\ud800-\udfff]", "\uffff", json.loads(body)["x"])
    assert json.loads(rewritten) == {"x": expected, "model": "größe"}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_that_python_detects_is_read(encoding: str) -> None:
    body = '{"model": "größe", "stream": true}'.encode(encoding)

    assert routing_fields(body) == BodyFields("größe", stream=True, size=len(body))


def test_numbers_may_be_big() -> None:
    for number in (b"1" * 4000, b"1e999999", b"-1E-999999", b"1." + b"1" * 4000):
        body = b'{"model": "a", "x": ' + number + b', "y": "\\ud83d"}'

        assert json.loads(body)["model"] == read_body(body, JSON).model == "a"


def test_a_large_body_with_a_cut_emoji_takes_a_few_times_its_memory() -> None:
    body = json.dumps(
        {"messages": ["a\n" * 500_000, "\ud83d", float("nan")], "model": "m"}
    ).encode()
    tracemalloc.start()
    try:
        assert read_body(body, JSON).model == "m"
        assert tracemalloc.get_traced_memory()[1] < 5 * len(body)
    finally:
        tracemalloc.stop()


@pytest.mark.slow
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
