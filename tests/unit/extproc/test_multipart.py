"""Fields of a multipart form."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lora_router.extproc.body import BodyError, BodyErrorKind, read_body
from lora_router.extproc.multipart import MultipartError, read_fields
from tests.examples import examples
from tests.unit.extproc.starlette_pod import read_form

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

    assert read_fields(body, TYPE, ("b", "c")) == {"b": "2"}


def test_a_field_that_stands_twice_counts_with_its_last_value() -> None:
    body = part("model", b"a") + part("model", b"b") + END

    assert read_body(body, TYPE).model == "b"


def test_the_boundary_inside_a_file_is_no_boundary() -> None:
    body = part("file", b"noise --x y noise --x y--", '; filename="f"') + part("model", b"m") + END

    assert read_body(body, TYPE).model == "m"


@pytest.mark.parametrize("value", [b"true", b"True", b"1", b"yes", b"on"])
def test_what_the_pod_takes_for_true_is_streaming(value: bytes) -> None:
    assert read_body(part("stream", value) + part("model", b"m") + END, TYPE).stream


@pytest.mark.parametrize("end", [END, b"--x y--", b"--x y--\r\n\r\n"])
@pytest.mark.parametrize("begin", [b"", b"\r\n"])
def test_line_ends_before_and_after_the_form_are_allowed(begin: bytes, end: bytes) -> None:
    assert read_body(begin + part("model", b"m") + end, TYPE).model == "m"


CLIENTS = {
    "openai, httpx": (
        "multipart/form-data; boundary=9f3b6c0e1a2d4f58",
        b'Content-Disposition: form-data; name="model"',
        b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"Content-Type: audio/x-wav",
    ),
    "requests": (
        "multipart/form-data; boundary=0d5e0a7f6a8f4b0d8a1d5a0f4a7b9c3e",
        b'Content-Disposition: form-data; name="model"',
        'Content-Disposition: form-data; name="file"; filename="größe.wav"'.encode(),
    ),
    "aiohttp": (
        "multipart/form-data; boundary=4a6f0c0f6c2b4d0db0a27e1d0e3f0c7b",
        b'Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name="model"',
        b'Content-Type: application/octet-stream\r\nContent-Disposition: form-data; name="file"; '
        b"filename=\"gr%C3%B6%C3%9Fe.wav\"; filename*=utf-8''gr%C3%B6%C3%9Fe.wav",
    ),
    "chromium": (
        "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
        b'Content-Disposition: form-data; name="model"',
        b'Content-Disposition: form-data; name="file"; filename="a %22b%22.wav"\r\n'
        b"Content-Type: audio/wav",
    ),
    "firefox": (
        "multipart/form-data; boundary=----geckoformboundary5c1d0f6e3a1a4b2c8d7e6f5a4b3c2d1e",
        b'Content-Disposition: form-data; name="model"',
        b'Content-Disposition: form-data; name="file"; filename="a.wav"',
    ),
    "curl": (
        "multipart/form-data; boundary=------------------------d74496d66958873e",
        b'Content-Disposition: form-data; name="model"',
        b'Content-Disposition: form-data; name="file"; filename="a\\"b\\".wav"\r\n'
        b"Content-Type: application/octet-stream",
    ),
    "undici": (
        "multipart/form-data; boundary=----formdata-undici-012345678901",
        b'Content-Disposition: form-data; name="model"',
        b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"Content-Type: application/octet-stream",
    ),
    "go": (
        "multipart/form-data; boundary=5f1c7e0b3a9d2846e1f0c7b5a3928d6e5f1c7e0b3a9d2846e1f0c7b5",
        b'Content-Disposition: form-data; name="model"',
        b'Content-Disposition: form-data; name="file"; filename="C:\\\\a.wav"\r\n'
        b"Content-Type: application/octet-stream",
    ),
    ".net": (
        'multipart/form-data; boundary="6d1b0e5c-0f3a-4a52-9d3f-6a1c2b3d4e5f"',
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=model",
        b"Content-Disposition: form-data; name=file; filename=a.wav; filename*=utf-8''a.wav",
    ),
    "jersey": (
        "multipart/form-data;boundary=Boundary_1_1234567890_1700000000000",
        b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="model"',
        b'Content-Disposition: form-data; filename="a.wav"; size=7; name="file"',
    ),
    "apache": (
        "multipart/form-data; charset=ISO-8859-1; boundary=rnVrUTQxLbHDlgRJzzlY_wqWbv5N",
        b'Content-Disposition: form-data; name="model"\r\nContent-Type: text/plain; '
        b"charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit",
        b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary",
    ),
    "javamail": (
        'multipart/form-data; \tboundary="----=_Part_0_1330500.1700000000000"'.replace("\t", ""),
        b'content-disposition: form-data; name="model"\r\ncontent-length: 2',
        b'content-disposition: form-data; name="file"; filename="a.wav"',
    ),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_the_forms_of_clients_are_read_as_pods_read_them(client: str) -> None:
    content_type, field, file = CLIENTS[client]
    boundary = b"--" + content_type.partition("boundary=")[2].strip('"').encode()
    parts = [file + b"\r\n\r\nRIFF...", field + b"\r\n\r\nm1"]
    for order in (parts, parts[::-1]):
        body = (
            b"".join(boundary + b"\r\n" + each + b"\r\n" for each in order) + boundary + b"--\r\n"
        )

        assert read_form(body, content_type) == ("m1", "")
        assert read_body(body, content_type).model == "m1"


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=b",
        "multipart/form-data; charset=UTF-8; boundary=b",
        'multipart/form-data;boundary="b"; x=y',
    ],
)
def test_the_boundary_is_read_however_it_is_written(content_type: str) -> None:
    body = b"--b\r\ncontent-disposition:form-data;name=model\r\n\r\nm\r\n--b--"

    assert read_fields(body, content_type, ("model",)) == {"model": "m"}


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"", "multipart/form-data", "names no boundary"),
        (b"", "multipart/form-data; boundary=", "content-type is malformed"),
        (b"", 'multipart/form-data; boundary=""', "names no boundary"),
        (b"", "multipart/form-data; boundary=a; boundary=b", "'boundary' twice"),
        (b"", "multipart/form-data; boundary=a, multipart/form-data", "content-type is malformed"),
        (b"", "Multipart/Form-Data; boundary=a", "content-type is malformed"),
        (b"", "multipart/form-data; Boundary=a", "content-type is malformed"),
        (b"", "multipart/form-data ; boundary=a", "content-type is malformed"),
        (b"", "multipart/form-data; boundary=a; charset=utf-16", "charset is not utf-8"),
        (b"", f"multipart/form-data; boundary={'x' * 71}", "longer than 70"),
        (b"", TYPE, "does not begin with the boundary"),
        (b"no form at all", TYPE, "does not begin with the boundary"),
        (b"preamble\r\n" + part("model", b"m") + END, TYPE, "does not begin with the boundary"),
        (part("model", b"m") + END + b"epilogue", TYPE, "text follows the closing boundary"),
        (part("model", b"m") + END + b"\r\n" * 100, TYPE, "text follows the closing boundary"),
        (b"--x y \r\n" + part("model", b"m") + END, TYPE, "not followed by a line end"),
        (b"--x y\r\n\r\nm\r\n" + END, TYPE, "no content-disposition"),
        (b"--x y\r\ncontent-type: text/plain\r\n\r\nm\r\n" + END, TYPE, "no content-disposition"),
        (part("model", b"", "\r\ncontent-disposition: form-data"), TYPE, "closing boundary"),
        (
            part("model", b"", '\r\ncontent-disposition: form-data; name="a"') + END,
            TYPE,
            "two content-dispositions",
        ),
        (part("model", b"", "\r\n folded: x") + END, TYPE, "a header of a part is malformed"),
        (part("a", b"", '; name="model"') + END, TYPE, "malformed or ambiguous"),
        (part("a", b"", "; name*=utf-8''model") + END, TYPE, "malformed or ambiguous"),
        (part("a", b"", '; filename="; name=model"') + END, TYPE, "malformed or ambiguous"),
        (part('a"; x="', b"", ";x") + END, TYPE, "malformed or ambiguous"),
        (part('mo\\"del', b"") + END, TYPE, "malformed or ambiguous"),
        (part("model", b"m", '; filename="model"') + END, TYPE, "'model' is a file"),
        (part("model", b"m", "; filename*=utf-8''x") + END, TYPE, "'model' is a file"),
        (part("a", b"") * 2001 + END, TYPE, "more than 2000 parts"),
        (part("model", b"m"), TYPE, "the closing boundary is missing"),
        (b"--x y\r\nno end of head", TYPE, "have no end"),
        (b"--x y\r\nname: " + b"x" * 9000 + b"\r\n\r\n\r\n" + END, TYPE, "have no end"),
        (b"--x yz\r\n\r\n\r\n" + END, TYPE, "not followed by a line end"),
        (b"--x y\nname: a\n\nm\n--x y--\n", TYPE, "not followed by a line end"),
        (part("model", "größe".encode()) + END, TYPE + "; charset=iso-8859-1", "is not ASCII"),
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
    assume(b"\r\n--x y" not in b"\r\n" + noise)
    body = part("file", noise, '; filename="f"') + part("model", model.encode()) + END

    assert read_fields(body, TYPE, ("model",)) == {"model": model}


def seldom(usual: str, *unusual: str) -> st.SearchStrategy[str]:
    """Mostly the usual text, so that several unusual ones rarely meet and hide each other."""
    return st.sampled_from([usual] * 6 * len(unusual) + list(unusual))


SPACE = seldom(" ", "", "  ", "\t", "\x0b", "\xa0", "\r\n ")
KEY = seldom("name", "Name", "name*", "name*0", "filename", "filename*", "x")
NAME = seldom(
    "model", "stream", "file", "mod\\el", 'mo\\"del', "", "modelé", "a; name=model", "a\\"
)
QUOTED = seldom('"%s"', "%s", "'%s'", '"%s', '%s"', '\\"%s\\"', '"%s" "', "utf-8''%s")


@st.composite
def parameters(draw: st.DrawFn) -> str:
    made = ""
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 2, 3]))):
        semicolon = draw(seldom(";", " ;", ";;", ","))
        equals = draw(seldom("=", " =", "= ", ""))
        made += semicolon + draw(SPACE) + draw(KEY) + equals + draw(QUOTED) % draw(NAME)
    return made + draw(seldom("", ";", " "))


@st.composite
def heads(draw: st.DrawFn) -> str:
    kind = draw(seldom("form-data", "Form-Data", "attachment", "form-data ", ""))
    disposition = draw(seldom("Content-Disposition", "content-disposition", "Content-Disposition "))
    lines = [disposition + ":" + draw(SPACE) + kind + draw(parameters())]
    if draw(st.booleans()):
        other = seldom("Content-Type: text/plain", "Content-Transfer-Encoding: base64", ": x", "x")
        lines.insert(draw(st.integers(0, 1)), draw(other))
    if not draw(st.integers(0, 9)):
        lines.append("Content-Disposition: form-data" + draw(parameters()))
    return draw(seldom("\r\n", "\n", "\r", "\r\n\r\n")).join(lines)


@st.composite
def forms(draw: st.DrawFn) -> tuple[bytes, str]:
    parameter = seldom("boundary=b", 'boundary="b"', 'boundary="b', "boundary=c", "Boundary=b")
    more = seldom(
        "", "; charset=utf-8", "; charset=utf-16", "; boundary=c", "; boundary*=c", ";", ","
    )
    content_type = (
        draw(seldom("multipart/form-data", "Multipart/Form-Data", "multipart/form-data "))
        + draw(seldom("; ", ";", " ; ", ", "))
        + draw(parameter)
        + draw(more)
    )
    body = draw(seldom("", "\r\n", "\n", "preamble\r\n", "\r\n\r\n", "--c\r\n"))
    line = seldom("\r\n", "\n", " \r\n", "", "\r\n\r\n", "x\r\n")
    for _ in range(draw(st.sampled_from([1, 1, 2, 2, 3, 0]))):
        value = draw(
            seldom("m", "true", "", "\r\n--c\r\n", "\r\n--bb\r\n", "\r", "\r\n--", "é", "\n--b")
        )
        gap = draw(seldom("\r\n\r\n", "\r\n", "\n\n", ""))
        body += "--b" + draw(line) + draw(heads()) + gap + value
        body += draw(seldom("\r\n", "", "\n", "\r\r\n"))
    body += draw(seldom("--b--\r\n", "--b--", "--b-", "--b", "", "--b--x", "--b--\r\n--b\r\n"))
    return body.encode("latin-1"), content_type


@pytest.mark.slow
@examples(150)
@given(forms())
def test_of_any_form_it_reads_what_the_pod_reads_or_refuses_it(form: tuple[bytes, str]) -> None:
    body, content_type = form
    try:
        fields = read_fields(body, content_type, ("model", "stream"))
    except MultipartError:
        return
    pod = read_form(body, content_type)
    assert pod is None or pod == (fields.get("model", ""), fields.get("stream", ""))


def test_what_the_pod_reads_as_a_form_is_never_read_as_json() -> None:
    form = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--b--'
    for body in (form, b'{"model": "n"}'):
        for content_type in ("multipart/form-data; boundary=b", "Multipart/form-data;boundary=b"):
            try:
                fields = read_body(body, content_type)
            except BodyError:
                continue
            assert read_form(body, content_type) == (fields.model, "")
