"""``/healthz``, ``/readyz`` and ``/metrics``, and the pages for people (``pages``).

The server runs beside the router's event loop, in a thread of its own: a router that is merely busy
still answers the kubelet's liveness probe. ``/readyz`` and ``/metrics`` are read in the router's
loop, and return 503 if it does not respond in time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from lora_router.admin.client_errors import server_log
from lora_router.admin.connections import Connections
from lora_router.admin.gate import Gate
from lora_router.admin.pages import EVENTS, SIGN_IN, Handler, add_pages
from lora_router.admin.sending import Sending
from lora_router.admin.shown import BUSY, Order, Show
from lora_router.admin.token import Token
from lora_router.listening import cannot_listen, listen
from lora_router.side_loop import SideLoop
from lora_router.telemetry.exposition import Page

DEAD_SECONDS = 60.0
"""A router whose event loop has not run for so long is not alive. No load causes this."""
_READ_SECONDS = 10.0
"""Time in which the router's loop must respond. Prometheus and the kubelet wait no longer."""
_MOST_BYTES = 8192
"""Size of a request's body. The largest one has a token."""

_Page = TypeVar("_Page")


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this router should receive new requests, and the reason if not."""

    ready: bool
    reason: str
    """One line for people."""
    details: dict[str, object]
    """Further fields of ``/readyz``."""
    standby: bool = False
    """Whether it is unready only because another router leads."""


class AdminError(OSError):
    """The admin server cannot listen."""


class AdminServer:
    """Serves the admin pages from ``start`` to ``stop``."""

    def __init__(
        self,
        page: Callable[[str], Awaitable[Page]],
        readiness: Callable[[], Readiness],
        silence: Callable[[], float],
        *,
        host: str,
        port: int,
        token_file: Path | None = None,
        show: Show | None = None,
        order: Order | None = None,
    ) -> None:
        """Create a server that does not listen yet.

        Args:
            page: Returns the page that ``/metrics`` serves, for the header ``accept``.
            readiness: Returns what ``/readyz`` reports.
            silence: Returns the seconds since the router's loop ran. Called in another thread.
            host: The address to listen on.
            port: The port; 0 selects a free one.
            token_file: The file with the token that the page and ``/debug`` require.
            show: Makes the pages under ``/debug``. ``None``: there are none.
            order: Gives orders to the router that loads adapters. ``None``: none are taken.

        Raises:
            TokenError: The file holds no usable token.
        """
        self._page = page
        self._readiness = readiness
        self._silence = silence
        self._host = host
        self._gate = Gate(host, None if token_file is None else Token(token_file))
        self._show = show
        self._order = order
        self.port = port
        """The port it listens on after ``start``."""
        self._loop: SideLoop | None = None
        self._runner: web.AppRunner | None = None
        self._connections: Connections | None = None
        self._listener: asyncio.Server | None = None
        self.read_seconds = _READ_SECONDS
        self.sending = Sending()

    async def start(self) -> None:
        """Listen.

        Raises:
            AdminError: The address is in use or not available.
        """
        try:
            self._loop = SideLoop("admin")
            self._loop.start()
            self.port = await self._loop.run(self._listen())
        except OSError as error:
            await self.stop()
            raise AdminError(
                cannot_listen(
                    self._host, self.port, "the admin pages (admin_host, admin_port)", error
                )
            ) from error

    async def stop(self) -> None:
        """Stop listening."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        loop.ends = True
        try:
            await loop.run(self._end())
        finally:
            await loop.stop()

    async def _listen(self) -> int:
        app = web.Application(client_max_size=_MOST_BYTES)
        # Outside of the others: a connection that is sent a long page can make room for another.
        app.middlewares.append(self.sending.middleware)
        app.middlewares.append(self._counted)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        add_pages(app, self._gate, self._made, self._show, self._order)
        self._runner = web.AppRunner(
            app, access_log=None, logger=server_log(), shutdown_timeout=1.0
        )
        await self._runner.setup()
        server = self._runner.server
        assert server is not None  # noqa: S101 -- it is set up
        listening = listen(self._host, self.port)
        port: int = listening.getsockname()[1]
        self._connections = Connections(server)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._connections, sock=listening)
        return port

    async def _end(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connections = self._connections
        # A form that arrives slowly keeps no connection that another one needs.
        if connections is None or request.path == SIGN_IN:
            return await handler(request)
        connections.begin(request, stream=request.path == EVENTS)
        try:
            return await handler(request)
        finally:
            connections.end(request)

    async def _healthz(self, _request: web.Request) -> web.Response:
        silence = self._silence()
        if silence > DEAD_SECONDS:
            return web.Response(
                status=503, text=f"the event loop has made no progress for {silence:.0f} s\n"
            )
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        try:
            readiness = await self._read(self._readiness)
        except TimeoutError:
            readiness = Readiness(ready=False, reason=BUSY, details={})
        # The syntax of the Kubernetes API server. The kubelet asks whether this router could lead.
        excluded = readiness.standby and "leader" in request.query.getall("exclude", ())
        return web.json_response(
            {"ready": readiness.ready, "reason": readiness.reason, **readiness.details},
            status=200 if readiness.ready or excluded else 503,
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        accept = ",".join(request.headers.getall("accept", ()))
        try:
            page = await self._made(partial(self._page, accept))
        except TimeoutError:
            return web.Response(status=503, text=f"{BUSY}\n")
        return web.Response(body=page.body, headers={"content-type": page.content_type})

    async def _read(self, read: Callable[[], _Page]) -> _Page:
        loop = self._loop
        if loop is None:
            raise TimeoutError  # It stops.
        return await loop.in_router(read, self.read_seconds)

    async def _made(self, make: Callable[[], Awaitable[_Page]]) -> _Page:
        loop = self._loop
        if loop is None:
            raise TimeoutError  # It stops.
        return await loop.await_in_router(make, self.read_seconds)
