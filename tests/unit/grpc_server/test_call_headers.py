"""Request headers: what is read from them, and what is refused."""

import pytest

from lora_router.grpc_server.call_headers import CallHeaders, check_trailers, read_call_headers
from lora_router.grpc_server.violations import StreamError

GOOD = [
    (b":method", b"POST"),
    (b":path", b"/a"),
    (b":scheme", b"http"),
    (b"content-type", b"application/grpc"),
]


def read(*more: tuple[bytes, bytes]) -> CallHeaders:
    return read_call_headers([*GOOD, *more])


def changed(name: bytes, value: bytes) -> CallHeaders:
    return read_call_headers([(key, value if key == name else old) for key, old in GOOD])


def test_a_usual_head_is_grpc() -> None:
    headers = read((b"te", b"trailers"), (b"x-anything", b"\xff\t x"))

    assert (headers.path, headers.http_error, headers.timeout) == ("/a", 0, None)
    assert headers.list_bytes == sum(
        len(name) + len(value) + 32
        for name, value in [*GOOD, (b"te", b"trailers"), (b"x-anything", b"\xff\t x")]
    )


@pytest.mark.parametrize(
    "headers",
    [
        GOOD[1:],
        GOOD[:1] + GOOD[2:],
        GOOD[:2] + GOOD[3:],
        [*GOOD, (b":path", b"/late")],
        [GOOD[0], *GOOD],
        [(b":status", b"200"), *GOOD],
        [(b":path", b""), GOOD[0], GOOD[2]],
        [*GOOD, (b"Upper", b"x")],
        [*GOOD, (b"", b"x")],
        [*GOOD, (b"a b", b"x")],
        [*GOOD, (b"a", b"x\r\nb: y")],
        [*GOOD, (b"a", b"\0")],
        [*GOOD, (b"connection", b"close")],
        [*GOOD, (b"transfer-encoding", b"chunked")],
        [*GOOD, (b"te", b"gzip")],
        [*GOOD, (b"content-length", b"-1")],
        [*GOOD, (b"content-length", b"9" * 30)],
        [(b":path", b"/a\n"), GOOD[0], GOOD[2]],
    ],
)
def test_what_may_not_be_in_http_2_ends_the_stream(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(StreamError):
        read_call_headers(headers)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (b"application/grpc", 0),
        (b"application/grpc+proto", 0),
        (b"application/grpc;charset=x", 0),
        (b"Application/gRPC", 0),
        (b"application/grpc-web", 415),
        (b"application/json", 415),
        (b"", 415),
    ],
)
def test_the_content_type_says_whether_it_is_grpc(kind: bytes, error: int) -> None:
    assert changed(b"content-type", kind).http_error == error


def test_grpc_is_posted() -> None:
    assert changed(b":method", b"GET").http_error == 405


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"1H", 3600),
        (b"2M", 120),
        (b"3S", 3),
        (b"4m", 0.004),
        (b"5u", 5e-6),
        (b"6n", 6e-9),
        (b"99999999H", 359999996400.0),
    ],
)
def test_timeouts_are_read_in_all_units(text: bytes, seconds: float) -> None:
    assert read((b"grpc-timeout", text)).timeout == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"5", b"S", b"-1S", b"123456789S", b"1s", b"1 S"])
def test_a_malformed_timeout_is_told(text: bytes) -> None:
    headers = read((b"grpc-timeout", text))

    assert (headers.timeout, headers.bad_timeout) == (None, True)


@pytest.mark.parametrize("trailer", [(b":path", b"/"), (b"A", b""), (b"a", b"\n")])
def test_trailers_have_rules_too(trailer: tuple[bytes, bytes]) -> None:
    check_trailers([(b"a", b"b")])
    with pytest.raises(StreamError):
        check_trailers([trailer])
