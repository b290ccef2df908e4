"""Requests that the admin port cannot read, and what the log says of them."""

import asyncio
import logging
from pathlib import Path

import pytest
from aiohttp.http_exceptions import LineTooLong

from lora_router.admin.client_errors import ClientErrors
from lora_router.log_limit import LogLimit
from tests.unit.admin.test_orders import RIGHT, Orders

HOST = b"host: 127.0.0.1\r\n"
FORM = b"content-type: application/x-www-form-urlencoded"


async def send(admin: Orders, *parts: bytes) -> bytes:
    """Return the first line of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", admin.server.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(30):
            return await reader.readline()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /SECRET" + b"a" * 10_000 + b" HTTP/1.1\r\n" + HOST,
        b"GET / HTTP/1.1\r\n" + HOST + b"authorization: Bearer " + b"SECRET" * 3_000 + b"\r\n",
        b"GET http://SECRET:a/ HTTP/1.1\r\n" + HOST,
        b"GET / HTTP/1.1\r\n" + HOST + b"SEC\x00RET: x\r\n",
    ],
    ids=["long path", "long header", "address", "header name"],
)
async def test_a_request_that_cannot_be_read_is_one_line_without_its_content(
    head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with Orders(None) as admin:
        for _ in range(3):
            assert b" 400 " in await send(admin, head + b"\r\n")

    [line] = caplog.records
    assert (line.name, line.levelname) == ("lora_router.admin", "WARNING")
    assert line.getMessage().startswith("cannot read a request to the admin port, from 127.0.0.1: ")
    assert line.exc_info is None
    assert "SEC" not in caplog.text


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (FORM + b"\r\ncontent-encoding: deflate", b"SECRET"),
        (FORM + b"; charset=SECRET", b"a=b"),
        (FORM, b"\xff\xfe=SECRET"),
    ],
    ids=["compression", "encoding", "text"],
)
async def test_a_form_that_cannot_be_read_is_refused_and_not_logged(
    headers: bytes, body: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "token").write_text(RIGHT)
    length = b"\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with Orders(tmp_path / "token") as admin:
        head = b"POST /sign-in HTTP/1.1\r\n" + HOST + headers + length
        assert b" 400 " in await send(admin, head, body)

    assert "SECRET" not in caplog.text
    assert "Traceback" not in caplog.text


def test_lines_are_limited_and_faults_of_the_router_keep_their_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    server_log = logging.getLogger("test.admin.server")
    server_log.addFilter(ClientErrors(LogLimit(60.0, clock=lambda: now)))

    def fail(error: Exception) -> None:
        server_log.error("Error handling request from %s", "10.0.0.7", exc_info=error)

    for _ in range(3):
        fail(LineTooLong(b"SECRET", 8190))
    now = 60.0
    fail(LineTooLong(b"SECRET", 8190))
    fail(RuntimeError("a fault"))

    line = "cannot read a request to the admin port, from 10.0.0.7: LineTooLong"
    assert [record.getMessage() for record in caplog.records] == [
        line,
        f"{line} (2 similar lines suppressed)",
        "Error handling request from 10.0.0.7",
    ]
    assert caplog.records[-1].exc_info is not None
