"""Reading a page over HTTP: what a failure says about the pod."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from lora_router.scrape.page_reader import PageReader, ScrapeError

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


async def failure(answer: Answer, timeout: float = 5.0) -> ScrapeError:
    async with serving(answer) as url, reading(timeout) as pages:
        with pytest.raises(ScrapeError) as caught:
            await pages.get(url, max_bytes=50_000)
    return caught.value


@pytest.mark.parametrize(
    ("answer", "timeout", "cause"),
    [
        (closes, 5.0, "connect"),
        (resets, 5.0, "connect"),
        (writes(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"), 5.0, "connect"),
        (hangs, 0.05, "timeout"),
        (trickles, 0.1, "timeout"),
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


async def test_a_port_that_refuses_connections_cannot_be_reached() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/metrics"
        async with reading() as pages:
            with pytest.raises(ScrapeError) as caught:
                await pages.get(url, max_bytes=1)

    assert (caught.value.cause, caught.value.unreachable) == ("connect", True)


async def test_a_router_without_descriptors_says_nothing_about_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with reading() as pages:
        monkeypatch.setattr(pages._session, "get", none_left)
        with pytest.raises(ScrapeError) as caught:
            await pages.get("http://127.0.0.1:1/metrics", max_bytes=1)

    assert (caught.value.cause, caught.value.unreachable) == ("internal", False)


async def test_a_timeout_that_a_stalled_router_noticed_late_says_nothing_about_the_server() -> None:
    times = iter([100.0, 140.0])
    async with serving(hangs) as url, reading(0.05, lambda: next(times)) as pages:
        with pytest.raises(ScrapeError) as caught:
            await pages.get(url, max_bytes=1)

    assert (caught.value.cause, caught.value.unreachable) == ("timeout", False)
