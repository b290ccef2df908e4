"""A pod as a process: ``python -m tests.faults.pod_process NAME PORT ADAPTER...``.

It has as much of vLLM's HTTP API as Envoy and the router use, on a server of its own, so that it
can fail in ways that no framework allows. Each line on standard input is a ``Behaviour`` as JSON,
and is answered with a line on standard output: what the pod did since the last one. The pod exits
when standard input is closed.
"""

import asyncio
import json
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import cast

from tests.faults.behaviour import Behaviour, Page
from tests.faults.pod_pages import endless, metrics_page, models_page

_FIRST_SECONDS, _PAUSE_SECONDS = 0.02, 0.01
_LARGEST_HEAD = 64 * 1024


class PodProcess:
    """Serves completions, ``/metrics`` and ``/v1/models`` as it is told."""

    def __init__(self, name: str, port: int, adapters: tuple[str, ...]) -> None:
        self._name = name
        self._port = port
        self._adapters = adapters
        self._behaviour = Behaviour()
        self._server: asyncio.Server | None = None
        self._full: list[socket.socket] = []
        """A socket that drops connections, and those that fill its queue."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._running: Counter[str] = Counter()
        self._received: list[str] = []

    async def follow_orders(self) -> None:
        """Serve until standard input ends."""
        orders = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
        )
        await self._become(Behaviour())
        while line := await orders.readline():
            await self._become(Behaviour(**json.loads(line)))

    async def _become(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        for full in self._full:
            full.close()
        self._full = []
        if not (behaviour.listens and behaviour.reachable) and self._server is not None:
            self._server.close()
            self._server = None
        if behaviour.listens and behaviour.reachable and self._server is None:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self._port, limit=_LARGEST_HEAD, backlog=1024
            )
        if not behaviour.listens:
            for writer in list(self._writers):
                writer.transport.abort()
        elif not behaviour.reachable:
            for writer in list(self._writers):
                cast("asyncio.ReadTransport", writer.transport).pause_reading()
            self._full = _full_queue(self._port)
        did = {"received": self._received, "running": self._running.total()}
        self._received = []
        print(json.dumps(did), flush=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            idle_since = time.monotonic()
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if time.monotonic() - idle_since > self._behaviour.keep_alive_seconds:
                    writer.transport.abort()
                    return
                path = head.split(b" ", 2)[1].partition(b"?")[0]
                body = await _body(head.lower(), reader)
                if path == b"/metrics":
                    await self._page(writer, self._behaviour.metrics, self._metrics())
                elif path == b"/v1/models":
                    await self._page(writer, self._behaviour.models, self._models())
                else:
                    await self._complete(writer, body)
                await writer.drain()
                idle_since = time.monotonic()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    @property
    def _loaded(self) -> tuple[str, ...]:
        told = self._behaviour.adapters
        return self._adapters if told is None else tuple(told)

    def _metrics(self) -> bytes:
        adapters = [name for name in self._running if name != "base"]
        told = self._behaviour
        return metrics_page(told.metrics, self._running.total(), adapters, told.slots, time.time())

    def _models(self) -> bytes:
        return models_page(self._behaviour.models, self._loaded)

    async def _page(self, writer: asyncio.StreamWriter, kind: Page, page: bytes) -> None:
        if kind == "silent":
            await asyncio.sleep(3600)
        elif kind == "garbage":
            _garbage(writer)
        elif kind == "error":
            writer.write(_head(500, len(page)) + page)
        elif kind == "endless":
            writer.write(_head(200, None))
            for piece in endless():
                writer.write(_chunk(piece))
                await writer.drain()
        else:
            writer.write(_head(200, len(page)) + page)

    async def _complete(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        try:
            document = json.loads(body)
            model = str(document["model"])
            self._received.append(str(document.get("user", "")))
        except (ValueError, LookupError, TypeError):
            self._answer(writer, 400, {"error": {"message": "no JSON with a model"}})
            return
        if model != "base" and model not in self._loaded:
            self._answer(writer, 404, {"error": {"message": f"no model {model}", "code": 404}})
            return
        if self._behaviour.answers == "silent":
            await asyncio.sleep(3600)
        if self._behaviour.answers == "garbage":
            _garbage(writer)
            return
        if self._behaviour.answers == "error":
            self._answer(writer, 500, {"error": {"message": "EngineDeadError", "code": 500}})
            return
        self._running[model] += 1
        try:
            await self._generate(writer, document)
        finally:
            self._running[model] -= 1
            if not self._running[model]:
                del self._running[model]

    async def _generate(self, writer: asyncio.StreamWriter, document: dict[str, object]) -> None:
        tokens = int(str(document.get("max_tokens", 3)))
        pause = float(str(document.get("pause", _PAUSE_SECONDS)))
        await asyncio.sleep(_FIRST_SECONDS * self._behaviour.slowness)
        if not document.get("stream"):
            await asyncio.sleep(pause * tokens * self._behaviour.slowness)
            self._answer(writer, 200, {"pod": self._name, "tokens": tokens})
            return
        writer.write(_head(200, None, self._name, "text/event-stream"))
        for number in range(tokens):
            writer.write(_chunk(f"data: {number}\n\n".encode()))
            await writer.drain()
            await asyncio.sleep(pause * self._behaviour.slowness)
            if writer.is_closing():
                raise ConnectionResetError
        writer.write(_chunk(b"data: [DONE]\n\n") + _chunk(b""))

    def _answer(self, writer: asyncio.StreamWriter, status: int, document: object) -> None:
        text = json.dumps(document).encode()
        writer.write(_head(status, len(text), self._name, "application/json") + text)


def _full_queue(port: int) -> list[socket.socket]:
    """Listen with a full queue: the kernel drops further attempts to connect."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(("127.0.0.1", port))
    return [listening, *waiting]


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    _, _, length = head.partition(b"\r\ncontent-length:")
    if length:
        return await reader.readexactly(int(length.partition(b"\r\n")[0]))
    if b"\r\ntransfer-encoding: chunked" not in head:
        return b""
    pieces = []
    while size := int(await reader.readline(), 16):
        pieces.append((await reader.readexactly(size + 2))[:-2])
    await reader.readline()
    return b"".join(pieces)


def _head(
    status: int, length: int | None, pod: str = "", kind: str = "text/plain; version=0.0.4"
) -> bytes:
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    lines = (f"HTTP/1.1 {status} x", f"content-type: {kind}", f"x-pod: {pod}", size)
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff\xfe no protocol at all \r\n\r\n" * 8)
    writer.close()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(PodProcess(sys.argv[1], int(sys.argv[2]), tuple(sys.argv[3:])).follow_orders())
