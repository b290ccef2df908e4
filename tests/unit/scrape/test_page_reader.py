"""Reading a page over HTTP: what a failure says about the pod."""

import asyncio
import errno
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from lora_router.scrape import page_reader
from lora_router.scrape.bounded_connection import BoundedHandler
from lora_router.scrape.page_reader import LongPageError, PageReader, ScrapeError

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """Run a server that answers each request with ``answer``."""
    stopped = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            work = asyncio.ensure_future(answer(writer))
            stop = asyncio.ensure_future(stopped.wait())
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            stop.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"
    finally:
        stopped.set()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def reading(
    timeout: float = 5.0, clock: Callable[[], float] | None = None
) -> AsyncIterator[PageReader]:
    reader = PageReader(timeout) if clock is None else PageReader(timeout, clock)
    try:
        yield reader
    finally:
        await reader.close()


def writes(data: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return answer


async def closes(_writer: asyncio.StreamWriter) -> None:
    """Answer nothing."""


async def resets(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


async def hangs(_writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def trickles(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def never_ends(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 10_000)
        await writer.drain()


def repeats(start: bytes, again: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(again)
            await writer.drain()

    return answer


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def failure(answer: Answer, timeout: float = 5.0) -> ScrapeError:
    async with serving(answer) as url, reading(timeout) as pages:
        with pytest.raises(ScrapeError) as caught:
            async with pages.page(url, max_bytes=50_000):
                pass
    return caught.value


@pytest.mark.parametrize(
    ("answer", "timeout", "cause"),
    [
        (closes, 5.0, "connect"),
        (resets, 5.0, "connect"),
        (writes(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"), 5.0, "connect"),
        (hangs, 0.3, "timeout"),
        (trickles, 0.3, "timeout"),
    ],
)
async def test_a_server_that_cannot_be_reached(answer: Answer, timeout: float, cause: str) -> None:
    error = await failure(answer, timeout)

    assert (error.cause, error.unreachable) == (cause, True)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (writes(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"), "status"),
        (writes(b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"), "status"),
        (writes(b"SSH-2.0-OpenSSH_9.6\r\n"), "connect"),
        (never_ends, "too-large"),
    ],
)
async def test_a_server_that_responds_with_something_else_was_reached(
    answer: Answer, cause: str
) -> None:
    error = await failure(answer)

    assert (error.cause, error.unreachable) == (cause, False)


@pytest.mark.parametrize(
    "answer",
    [
        repeats(CHUNKED, b"1\r\nx\r\n" * 1000),
        repeats(CHUNKED, b"1;" + b"x" * 8000 + b"\r\nx\r\n"),
        repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        repeats(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 100),
        repeats(b"HTTP/1.1 200 OK\r\na: ", b"x" * 10_000),
        repeats(b"HTTP/1.1 200 ", b"x" * 10_000),
    ],
    ids=["chunks", "chunk extensions", "informational", "headers", "header", "reason"],
)
async def test_a_response_that_is_not_mostly_its_body_ends_early(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = 0
    receive = BoundedHandler.data_received

    def count(handler: BoundedHandler, data: bytes) -> None:
        nonlocal received
        received += len(data)
        receive(handler, data)

    monkeypatch.setattr(BoundedHandler, "data_received", count)
    error = await failure(answer)

    assert error.cause in {"too-large", "connect"}
    assert not error.unreachable
    assert received < 2_000_000


async def test_a_long_body_in_chunks_is_read() -> None:
    chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    body = writes(CHUNKED + chunk * 500 + b"0\r\n\r\n")
    async with (
        serving(body) as url,
        reading() as pages,
        pages.page(url, max_bytes=4_000_000, prefix=b"\n") as page,
    ):
        assert page == b"\n" + b"x" * 0x1000 * 500


async def test_a_length_that_is_too_large_is_refused_without_a_body() -> None:
    error = await failure(writes(b"HTTP/1.1 200 OK\r\ncontent-length: 50001\r\n\r\n"))

    assert (error.cause, error.unreachable) == ("too-large", False)


async def test_a_compressed_body_is_not_decompressed() -> None:
    bomb = gzip.compress(b"x" * 1_000_000)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
    async with (
        serving(writes(head % len(bomb) + bomb)) as url,
        reading() as pages,
        pages.page(url, max_bytes=50_000) as page,
    ):
        assert page == bomb


async def test_long_pages_share_a_bounded_memory_and_short_ones_do_not_need_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_reader, "LONG_PAGE_BYTES", 1000)
    monkeypatch.setattr(page_reader, "MAX_HELD_BYTES", 5000)
    long = writes(b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n" + b"x" * 4000)
    short = writes(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n" + b"x" * 900)
    async with serving(long) as long_url, serving(short) as short_url, reading() as pages:
        async with pages.page(long_url, max_bytes=4000):
            with pytest.raises(ScrapeError, match="too many long pages") as caught:
                async with pages.page(long_url, max_bytes=4000):
                    pass
            assert (caught.value.cause, caught.value.unreachable) == ("too-large", False)
            for _ in range(3):
                async with pages.page(short_url, max_bytes=4000):
                    pass
        async with pages.page(long_url, max_bytes=4000):
            pass


@pytest.mark.parametrize("head", [CHUNKED, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"])
async def test_a_page_that_is_not_expected_to_be_long_is_not_read_to_its_end(head: bytes) -> None:
    body = b"x" * 300_000
    chunked = b"".join(b"1000\r\n" + b"x" * 0x1000 + b"\r\n" for _ in range(75))
    answer = writes(head % len(body) + body if b"%d" in head else head + chunked + b"0\r\n\r\n")
    async with serving(answer) as url, reading() as pages:
        with pytest.raises(LongPageError):
            async with pages.page(url, max_bytes=4_000_000, may_be_long=False):
                pass


async def test_a_timeout_within_a_long_page_does_not_show_that_a_pod_cannot_be_reached() -> None:
    async def stops(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 400000\r\n\r\n" + b"x" * 300_000)
        await asyncio.Event().wait()

    async with serving(stops) as url, reading(0.3) as pages:
        with pytest.raises(ScrapeError) as caught:
            async with pages.page(url, max_bytes=4_000_000):
                pass

    assert (caught.value.cause, caught.value.unreachable) == ("timeout", False)


async def test_a_port_that_refuses_connections_cannot_be_reached() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/metrics"
        async with reading() as pages:
            with pytest.raises(ScrapeError) as caught:
                async with pages.page(url, max_bytes=1):
                    pass

    assert (caught.value.cause, caught.value.unreachable) == ("connect", True)


async def test_a_router_without_descriptors_says_nothing_about_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with reading() as pages:
        monkeypatch.setattr(pages._session, "get", none_left)
        with pytest.raises(ScrapeError) as caught:
            async with pages.page("http://127.0.0.1:1/metrics", max_bytes=1):
                pass

    assert (caught.value.cause, caught.value.unreachable) == ("internal", False)


async def test_a_timeout_that_a_stalled_router_noticed_late_says_nothing_about_the_server() -> None:
    times = iter([100.0, 140.0])
    async with serving(hangs) as url, reading(0.05, lambda: next(times)) as pages:
        with pytest.raises(ScrapeError) as caught:
            async with pages.page(url, max_bytes=1):
                pass

    assert (caught.value.cause, caught.value.unreachable) == ("timeout", False)
