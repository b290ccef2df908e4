"""The limit of connections to the admin port.

A router whose probes get no connection is restarted. So a new connection is never refused: at the
limit, an older one is closed for it: the oldest one without a request, else the oldest one that is
no stream of events. The number of streams has a lower limit of its own.
"""

import asyncio

from aiohttp import web

MOST_CONNECTIONS = 256


class Connections:
    """Makes a connection of each one that is accepted."""

    def __init__(self, server: web.Server, most: int | None = None) -> None:
        """Create it.

        Args:
            server: Serves the connections.
            most: How many may be open.
        """
        self._server = server
        self._most = MOST_CONNECTIONS if most is None else most
        self._busy: dict[asyncio.BaseProtocol, bool] = {}
        """Connections with a request, and whether it is for a stream."""

    def __call__(self) -> asyncio.BaseProtocol:
        """Return the protocol of a new connection."""
        call_soon = asyncio.get_running_loop().call_soon
        call_soon(call_soon, self._limit)  # By then, the connection is made.
        return self._server()

    def begin(self, request: web.Request, *, stream: bool) -> None:
        """Take in that a connection has a request."""
        self._busy[request.protocol] = stream

    def end(self, request: web.Request) -> None:
        """Take in that it has none any more."""
        self._busy.pop(request.protocol, None)

    def _limit(self) -> None:
        others = [each for each in self._server.connections if _is_open(each)]
        while len(others) > self._most:
            # The last one is the newest, which is not closed for itself.
            oldest = min(others[:-1], key=self._worth)
            others.remove(oldest)
            transport = oldest.transport
            oldest.force_close()
            if transport is not None:
                # A client that reads nothing would keep what is not sent yet, and the socket.
                transport.abort()

    def _worth(self, connection: web.RequestHandler) -> int:
        is_stream = self._busy.get(connection)
        return 0 if is_stream is None else 1 + is_stream


def _is_open(connection: web.RequestHandler) -> bool:
    return connection.transport is not None and not connection.transport.is_closing()
