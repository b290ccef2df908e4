"""Fields of a multipart form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.extproc.body import BodyError, BodyErrorKind, read_body
from lora_router.extproc.multipart import MultipartError, read_fields

TYPE = 'multipart/form-data; boundary="x y"'


def part(name: str, value: bytes, extra: str = "") -> bytes:
    head = f'--x y\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
    return head.encode() + value + b"\r\n"


END = b"--x y--\r\n"
AUDIO = part("file", bytes(range(256)) * 100, '; filename="a.wav"\r\nContent-Type: audio/wav')


def test_the_model_is_found_past_a_file() -> None:
    body = AUDIO + part("model", b"whisper-lora") + part("stream", b"True") + END

    fields = read_body(body, TYPE)

    assert (fields.model, fields.stream, fields.size) == ("whisper-lora", True, len(body))


def test_only_wanted_fields_are_returned() -> None:
    body = part("a", b"1") + part("b", b"2") + END

    assert read_fields(body, TYPE, ("b", "c")) == {"b": b"2"}


def test_a_field_that_stands_twice_counts_with_its_last_value() -> None:
    body = part("model", b"a") + part("model", b"b") + END

    assert read_body(body, TYPE).model == "b"


def test_the_boundary_inside_a_file_is_no_boundary() -> None:
    body = part("file", b"noise --x y noise --x y--", '; filename="f"') + part("model", b"m") + END

    assert read_body(body, TYPE).model == "m"


def test_a_file_called_model_is_not_the_model() -> None:
    body = part("model", b"m", '; filename="model"') + END

    assert read_body(body, TYPE).model == ""


def test_text_before_and_after_the_form_is_allowed() -> None:
    body = b"preamble\r\n" + part("model", b"m") + END + b"epilogue --x y"

    assert read_body(body, TYPE).model == "m"


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=b",
        "Multipart/Form-Data; charset=utf-8; BOUNDARY=b",
        'multipart/form-data;boundary="b"; x=y',
    ],
)
def test_the_boundary_is_read_however_it_is_written(content_type: str) -> None:
    body = b"--b \t\r\ncontent-disposition:form-data;name=model\r\n\r\nm\r\n--b--"

    assert read_fields(body, content_type, ("model",)) == {"model": b"m"}


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"", "multipart/form-data", "names no boundary"),
        (b"", "multipart/form-data; boundary=", "names no boundary"),
        (b"", f"multipart/form-data; boundary={'x' * 71}", "longer than 70"),
        (b"", TYPE, "does not contain the boundary"),
        (b"no form at all", TYPE, "does not contain the boundary"),
        (part("model", b"m"), TYPE, "the closing boundary is missing"),
        (b"--x y\r\nno end of head", TYPE, "have no end"),
        (b"--x y\r\nname: " + b"x" * 9000 + b"\r\n\r\n\r\n" + END, TYPE, "have no end"),
        (b"--x yz\r\n\r\n\r\n" + END, TYPE, "not followed by a line end"),
        (b"--x y\nname: a\n\nm\n--x y--\n", TYPE, "not followed by a line end"),
        (part("model", b"m" * 70_000) + END, TYPE, "longer than 65536 bytes"),
    ],
)
def test_a_broken_form_is_refused_with_a_reason(
    body: bytes, content_type: str, message: str
) -> None:
    with pytest.raises(MultipartError, match=message):
        read_fields(body, content_type, ("model",))

    with pytest.raises(BodyError) as caught:
        read_body(body, content_type)
    assert caught.value.kind is BodyErrorKind.MALFORMED


def test_a_name_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(BodyError, match="UTF-8"):
        read_body(part("model", b"\xff") + END, TYPE)


def test_a_part_without_a_disposition_is_skipped() -> None:
    body = b"--x y\r\ncontent-type: text/plain\r\n\r\nm\r\n" + part("model", b"m") + END

    assert read_body(body, TYPE).model == "m"


@given(st.binary(max_size=300), st.text(max_size=40))
def test_no_bytes_whatever_raise_anything_else(noise: bytes, boundary: str) -> None:
    for body in (noise, b"--x y" + noise, part("model", noise) + noise, noise + END):
        for content_type in (TYPE, f"multipart/form-data; boundary={boundary}"):
            try:
                read_fields(body, content_type, ("model",))
            except MultipartError:
                continue


@given(st.binary(max_size=100), st.text("abc-/", min_size=1, max_size=10))
def test_whatever_the_file_the_field_is_found(noise: bytes, model: str) -> None:
    if b"\r\n--x y" in b"\r\n" + noise:
        return
    body = part("file", noise, '; filename="f"') + part("model", model.encode()) + END

    assert read_fields(body, TYPE, ("model",)) == {"model": model.encode()}
