"""Sends long answers in pieces, so that a client that does not read costs little.

``aiohttp`` passes a whole body to the connection at once and waits without a limit. A client that
stays and never reads would hold a page of some megabytes for ever. One that leaves in the middle
would leave it behind, too: the error of the write refers to the frames that hold the body, and
they to the error. Here a client has a limited time for each piece and for the page. The pages
that are being sent are limited together.
"""

import asyncio
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler

PIECE_BYTES = 64 * 1024
"""Shorter bodies are sent as they are. A connection buffers as much as that."""
SLOW_SECONDS = 10.0
"""A client that takes longer to read a piece is dropped."""
PAGE_SECONDS = 60.0
"""So is one that takes longer to read a page. Prometheus gives up after 10 s."""
MOST_BYTES = 64 * 1024 * 1024
"""Bytes of the pages that are being sent, for the whole process. A single page may be longer."""
TOO_MANY = "too many pages are being sent to clients that read them slowly; ask again later"


class Sending:
    """Sends the answers of a server. Used in the loop of the admin server only."""

    def __init__(
        self, *, most: int = MOST_BYTES, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Create it.

        Args:
            most: Bytes of pages that may be sent at the same time.
            now: Returns seconds, monotonic.
        """
        self._most = most
        self._now = now
        self.seconds = SLOW_SECONDS
        self.bytes = 0
        """Length of the pages that are being sent."""

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Send what a handler answers, if it is long."""
        answer = await handler(request)
        if not isinstance(answer, web.Response) or request.method == "HEAD":
            return answer
        body = answer.body
        if not isinstance(body, bytes) or len(body) <= PIECE_BYTES:
            return answer
        if self.bytes and self.bytes + len(body) > self._most:
            return web.Response(status=503, text=f"{TOO_MANY}\n")
        response = web.StreamResponse(
            status=answer.status, reason=answer.reason, headers=answer.headers
        )
        response.content_length = size = len(body)
        self.bytes += size
        try:
            await self._send(request, response, body)
        finally:
            self.bytes -= size
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, body: bytes) -> None:
        transport = request.transport  # The request forgets it when the connection is closed.
        until = self._now() + PAGE_SECONDS
        try:
            async with asyncio.timeout(self.seconds):
                await response.prepare(request)
            for begin in range(0, len(body), PIECE_BYTES):
                if self._now() >= until:
                    raise TimeoutError
                async with asyncio.timeout(self.seconds):
                    await response.write(body[begin : begin + PIECE_BYTES])
        except (TimeoutError, ConnectionError) as error:
            give_up(transport, error)


def give_up(transport: asyncio.Transport | None, error: Exception) -> None:
    """Close a connection at once, and let go of what was to be sent on it.

    Args:
        transport: The connection, as it was before the write.
        error: What the write raised. What waited for the connection refers to it, and its
            traceback refers to what was to be sent.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    if transport is not None:
        transport.abort()
